"""Schuessler et al. 2020, Fig. 1: learning without and with strong random connectivity; the change is of low rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.experiments.averages import was_trained
from rankscope.figures.labels import task_label
from rankscope.figures.selection import over_tasks, require, without_padding
from rankscope.lowrank.curve import TruncationCurve
from rankscope.plot import loss as plot_loss
from rankscope.plot import singular_values as plot_singular_values
from rankscope.plot import truncation as plot_truncation
from rankscope.plot.style import (
    INK,
    entry,
    gain_entries,
    label_panels,
    mark_criterion,
    mark_empty,
    series,
    styled,
)
from rankscope.plot.trial import INPUT, TARGET, draw_trial, share_limits

NEEDED = ("loss", "initial_loss", "singular_value", "truncation_loss", "functional_rank", "example_output")
SHOWN_RANKS = 25
CRITERION = 0.05


def tasks(dataset: xr.Dataset) -> Figure:
    """Draw one column a task: a trial, the loss over epochs, the singular values of the change, the truncation loss.

    Takes measurements along `task` and `gain`. Of several samples the first is drawn.
    """
    require(dataset, "tasks", *NEEDED)
    run = over_tasks(dataset).isel(sample=0)
    names = run["task"].values
    with styled():
        figure = Figure(figsize=(max(4.4, 0.4 + 2.2 * len(names)), 8.4), layout="constrained")
        grid = figure.subplots(4, len(names), squeeze=False, height_ratios=[1.45, 1, 1, 1])
        for name, column in zip(names, grid.T, strict=True):
            column[0].set_title(task_label(name))
            one = run.sel(task=name)
            if bool(was_trained(one).any()):
                known = without_padding(one)
                for draw, ax in zip(DRAWERS, column, strict=True):
                    draw(ax, known)
            else:
                for ax in column:
                    ax.set_axis_off()
                mark_empty(column[0])
        for row in grid[1:]:
            share_limits(row)
            for ax in row[1:]:
                ax.set_ylabel("")
                ax.tick_params(labelleft=False)
        label_panels(figure, grid.flat, offset=(-22, 6))
        figure.align_ylabels(grid[1:, 0])
        mark: dict[str, Any] = {"linestyle": "none", "color": INK, "marker": "o"}
        entries = [
            entry("input", **INPUT),
            entry("target", **TARGET),
            *gain_entries(run["gain"].values, markersize=3.5),
            entry("converged: loss below 5 %", markersize=7, markeredgecolor="white", **mark),
            entry("functional rank: below 5 %", markersize=9, markerfacecolor="none", **mark),
        ]
        figure.legend(handles=entries, loc="outside upper center", ncols=(len(entries) + 1) // 2)
    return figure


def _draw_trial(panel: Axes, run: xr.Dataset) -> None:
    """Draw the example trial, the same for all gains, from a network that exists."""
    shared = run[["example_input", "example_mask", "example_target"]]
    one = shared.isel(gain=int(shared["example_mask"].notnull().any(["step", "output_channel"]).values.argmax()))
    inputs = one["example_input"].transpose("step", ...).values
    targets, mask = (one[name].transpose("step", ...).values for name in ("example_target", "example_mask"))
    outputs = run["example_output"].transpose("gain", "step", ...).values
    draw_trial(panel, one["time"].values, inputs, targets, mask, list(outputs))


def _draw_loss(ax: Axes, run: xr.Dataset) -> None:
    for index in range(run.sizes["gain"]):
        one = run.isel(gain=index)
        plot_loss(one["loss"] / float(one["initial_loss"]), ax, color=series(index)["color"])
        converged = float(one["convergence_epoch"])
        if not np.isnan(converged):
            ax.plot(converged, CRITERION, markeredgecolor="white", markersize=7, **series(index))
    mark_criterion(ax, CRITERION)
    ax.set(ylabel="loss / initial loss")


def _draw_singular_values(ax: Axes, run: xr.Dataset) -> None:
    values = run["singular_value"].sel(matrix="change").isel(singular_index=slice(0, SHOWN_RANKS))
    label = r"singular value of $\Delta W$"
    if "weight" in values.dims:  # of a gated network: the recurrent one
        weights = [str(name) for name in values["weight"].values]
        chosen = next((name for name in weights if "weight_hh" in name), weights[0])
        values = values.sel(weight=chosen)
        label += f"\n({chosen})"
    for index in range(run.sizes["gain"]):
        plot_singular_values(values.isel(gain=index), ax, **series(index))
    ax.set(ylabel=label)


def _draw_truncation(ax: Axes, run: xr.Dataset) -> None:
    """Draw the loss with the change truncated to each rank, relative to rank 0; the functional rank is ringed."""
    for index in range(run.sizes["gain"]):
        one = run.isel(gain=index)
        curve = TruncationCurve(one["rank"].values.tolist(), one["truncation_loss"].values, np.nan)
        rank = float(one["functional_rank"])
        plot_truncation(curve, ax, rank=None if np.isnan(rank) else rank, criterion=None, **series(index))
    mark_criterion(ax, CRITERION)


DRAWERS = (_draw_trial, _draw_loss, _draw_singular_values, _draw_truncation)
