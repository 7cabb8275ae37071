"""Schuessler et al. 2020, Fig. 1: learning without and with strong random connectivity; the change is of low rank."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rankscope.experiments.averages import was_trained
from rankscope.figures.labels import task_label
from rankscope.figures.selection import over_tasks, require, without_padding
from rankscope.figures.style import (
    GREY,
    INK,
    entry,
    gain_entries,
    label_panels,
    mark_criterion,
    mark_empty,
    series,
    styled,
)

NEEDED = ("loss", "initial_loss", "singular_value", "truncation_loss", "functional_rank", "example_output")
GAP = 0.12  # between two strips of a trial, as a fraction of the panel
SHOWN_RANKS = 25
CRITERION = 0.05
INPUT: dict[str, Any] = {"color": GREY, "linewidth": 0.9}
TARGET: dict[str, Any] = {"color": INK, "linewidth": 2.0, "linestyle": (0, (1.2, 1.2))}
ZERO: dict[str, Any] = {"color": GREY, "linewidth": 0.4, "zorder": 0}


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
            _share_limits(row)
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
    """Draw the example trial in strips: each output with its own input, or all inputs in a strip above the outputs."""
    # The trial is the same for all gains; take it from a network that exists.
    shared = run[["example_input", "example_mask", "example_target"]]
    trial = shared.isel(gain=int(shared["example_mask"].notnull().any(["step", "output_channel"]).values.argmax()))
    inputs, outputs = run.sizes["input_channel"], run.sizes["output_channel"]
    paired = inputs == outputs
    strips = _strips(panel, [*([] if paired else [0.5 + 0.3 * inputs]), *[1.0] * outputs])
    if not paired:
        _draw_inputs(strips[0], trial)
    for channel, ax in enumerate(strips[-outputs:]):
        if paired:
            _draw_input(ax, trial, channel)
        for index in range(run.sizes["gain"]):
            output = run["example_output"].isel(gain=index, output_channel=channel)
            ax.plot(trial["time"], output, color=series(index)["color"])
        one = trial.isel(output_channel=channel)
        ax.plot(trial["time"], one["example_target"].where(one["example_mask"] > 0), **TARGET)
        ax.axhline(0, **ZERO)
        ax.set_ylabel(f"output {channel + 1}" if outputs > 1 else "output")
    _share_limits(strips[-outputs:])
    strips[-1].set_xlabel("time (time constants)")


def _draw_inputs(ax: Axes, trial: xr.Dataset) -> None:
    """Draw all input channels, several above each other with a scale bar."""
    count = trial.sizes["input_channel"]
    levels = [2.0 * (count - 1 - channel) for channel in range(count)]
    for channel, level in enumerate(levels):
        ax.axhline(level, **ZERO)
        _draw_input(ax, trial, channel, level)
    ax.set_ylabel("input" if count == 1 else "input channel")
    if count > 1:
        ax.set_yticks(levels, [str(channel + 1) for channel in range(count)])
        right = ax.get_yaxis_transform()
        ax.plot([0.97, 0.97], [levels[0], levels[0] + 1], color=INK, linewidth=1.2, transform=right)
        ax.text(0.95, levels[0] + 0.5, "1", transform=right, ha="right", va="center", fontsize=7)


def _draw_input(ax: Axes, trial: xr.Dataset, channel: int, level: float = 0.0) -> None:
    ax.plot(trial["time"], trial["example_input"].isel(input_channel=channel) + level, drawstyle="steps-pre", **INPUT)


def _draw_loss(ax: Axes, run: xr.Dataset) -> None:
    for index in range(run.sizes["gain"]):
        one = run.isel(gain=index)
        ax.semilogy(one["epoch"], one["loss"] / float(one["initial_loss"]), color=series(index)["color"], linewidth=1.0)
        converged = float(one["convergence_epoch"])
        if not np.isnan(converged):
            ax.plot(converged, CRITERION, markeredgecolor="white", markersize=7, **series(index))
    mark_criterion(ax, CRITERION)
    ax.set(xlabel="epoch", ylabel="loss / initial loss")
    ax.margins(x=0.02)


def _draw_singular_values(ax: Axes, run: xr.Dataset) -> None:
    values = run["singular_value"].sel(matrix="change").isel(singular_index=slice(0, SHOWN_RANKS))
    label = r"singular value of $\Delta W$"
    if "weight" in values.dims:  # of a gated network: the recurrent one
        weights = [str(name) for name in values["weight"].values]
        chosen = next((name for name in weights if "weight_hh" in name), weights[0])
        values = values.sel(weight=chosen)
        label += f"\n({chosen})"
    for index in range(run.sizes["gain"]):
        ax.plot(values["singular_index"], values.isel(gain=index), markersize=3.5, linewidth=0.9, **series(index))
    ax.set(xlabel="index of the singular value", ylabel=label)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _draw_truncation(ax: Axes, run: xr.Dataset) -> None:
    """Draw the loss with the change truncated to each rank, relative to rank 0; the functional rank is ringed."""
    for index in range(run.sizes["gain"]):
        one = run.isel(gain=index)
        curve = one["truncation_loss"] / one["truncation_loss"].sel(rank=0)
        ax.semilogy(curve["rank"], curve, markersize=3.5, linewidth=0.9, **series(index))
        rank = float(one["functional_rank"])
        if not np.isnan(rank):
            ring = {"marker": "o", "markersize": 9, "color": series(index)["color"], "markerfacecolor": "none"}
            ax.plot([rank], [float(curve.sel(rank=rank))], **ring)
    mark_criterion(ax, CRITERION)
    ax.set(xlabel=r"rank of the truncated $\Delta W$", ylabel="loss / loss at rank 0")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


DRAWERS = (_draw_trial, _draw_loss, _draw_singular_values, _draw_truncation)


def _strips(panel: Axes, heights: list[float]) -> list[Axes]:
    """Replace `panel` by axes below each other that share the time axis."""
    panel.set_axis_off()
    unit = (1 - GAP * (len(heights) - 1)) / sum(heights)
    top, strips = 1.0, list[Axes]()
    for height in heights:
        bottom = top - unit * height
        strips.append(panel.inset_axes((0, bottom, 1, unit * height), sharex=strips[0] if strips else None))
        top = bottom - GAP
    for ax in strips[:-1]:
        ax.tick_params(labelbottom=False)
    return strips


def _share_limits(axes: Iterable[Axes]) -> None:
    """Set the vertical limits of all axes to a range that contains all their curves."""
    visible = [ax for ax in axes if ax.axison]
    limits = [ax.get_ylim() for ax in visible]
    for ax in visible:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
