"""One task's column of the paper's Fig. 1: a trial, the loss, the singular values of the change, the truncation loss.

Takes a Dataset with the variables of `experiments.measure` along `gain`; draws, computes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from rankscope.figures.style import COLOURS, INK, MARKERS, QUIET, gain_label, label_panels, styled

SHOWN_RANKS = 25
CRITERION = 0.05


def learning(dataset: xr.Dataset, title: str | None = None) -> Figure:
    """Draw the column.

    Parameters
    ----------
    dataset
        Measurements along `gain`.
    title
        Above the figure.
    """
    with styled():
        channels = dataset.sizes["output_channel"]
        heights = [0.8 + 0.85 * channels, 6.6]
        figure = Figure(figsize=(4.4, sum(heights)), layout="constrained")
        trial_part, rest_part = figure.subfigures(2, 1, height_ratios=heights)
        trial_axes = list(trial_part.subplots(channels, 1, sharex=True, sharey=True, squeeze=False).flat)
        rest = list(rest_part.subplots(3, 1))
        draw_trial(trial_axes, dataset)
        draw_loss(rest[0], dataset)
        draw_singular_values(rest[1], dataset)
        draw_truncation(rest[2], dataset)
        label_panels(figure, [trial_axes[0], *rest])
        if title is not None:
            figure.suptitle(title)
    return figure


def draw_trial(axes: list[Axes], dataset: xr.Dataset) -> None:
    """Draw the example trial, one output channel an axis: inputs grey, target black, outputs in colour."""
    time = dataset["time"].isel(gain=0) if "gain" in dataset["time"].dims else dataset["time"]
    first = dataset.isel(gain=0)
    paired = dataset.sizes["input_channel"] == dataset.sizes["output_channel"]
    for channel, ax in enumerate(axes):
        inputs = [channel] if paired else range(dataset.sizes["input_channel"])
        for which in inputs:
            values = first["example_input"].isel(input_channel=which)
            ax.plot(time, values, color=QUIET, linewidth=0.9, drawstyle="steps-pre", label="input")
        for index, gain in enumerate(dataset["gain"].values):
            output = dataset["example_output"].isel(gain=index, output_channel=channel)
            ax.plot(time, output, color=COLOURS[index], label=gain_label(gain))
        mask = first["example_mask"].isel(output_channel=channel)
        target = first["example_target"].isel(output_channel=channel).where(mask > 0)
        ax.plot(time, target, color=INK, linewidth=2.0, linestyle=(0, (1.2, 1.2)), label="target")
        ax.axhline(0, color=QUIET, linewidth=0.4, zorder=0)
        ax.set_ylabel(f"channel {channel + 1}" if len(axes) > 1 else "output")
        ax.tick_params(labelbottom=channel == len(axes) - 1)
    axes[-1].set_xlabel("time (membrane time constants)")
    handles, labels = axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes[0].legend(
        unique.values(),
        unique.keys(),
        ncols=4,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        columnspacing=1.1,
        handlelength=1.4,
        borderaxespad=0.2,
    )


def draw_loss(ax: Axes, dataset: xr.Dataset) -> None:
    """Draw the loss over epochs, with the level at which a run counts as converged, and where it does."""
    for index, gain in enumerate(dataset["gain"].values):
        run, colour = dataset.isel(gain=index), COLOURS[index]
        relative = run["loss"] / float(run["initial_loss"])
        ax.semilogy(run["epoch"], relative, color=colour, linewidth=1.0, label=gain_label(gain))
        when = float(run["convergence_epoch"])
        if not np.isnan(when):
            ax.plot(when, CRITERION, marker=MARKERS[index], color=colour, markeredgecolor="white", markersize=7)
    _mark_criterion(ax, "converged: below 5 %")
    ax.set(xlabel="epoch", ylabel="loss / initial loss")
    ax.margins(x=0.02)


def draw_singular_values(ax: Axes, dataset: xr.Dataset) -> None:
    """Draw the leading singular values of the change against their index."""
    values = dataset["singular_value"].sel(matrix="change").isel(singular_index=slice(0, SHOWN_RANKS))
    for index, gain in enumerate(dataset["gain"].values):
        ax.plot(values["singular_index"], values.isel(gain=index), label=gain_label(gain), **_dots(index))
    ax.set(xlabel="index of the singular value", ylabel=r"singular value of $\Delta W$")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MultipleLocator(5))
    ax.legend(loc="upper right")


def draw_truncation(ax: Axes, dataset: xr.Dataset) -> None:
    """Draw the loss with the change truncated to rank R, relative to R = 0, with the functional rank ringed."""
    for index, gain in enumerate(dataset["gain"].values):
        run = dataset.isel(gain=index)
        curve = run["truncation_loss"] / run["truncation_loss"].isel(rank=0)
        ax.semilogy(curve["rank"], curve, label=gain_label(gain), **_dots(index))
        rank = float(run["functional_rank"])
        if not np.isnan(rank):
            (ring,) = ax.plot([rank], [float(curve.sel(rank=rank))], marker="o", markersize=9, color=COLOURS[index])
            ring.set_markerfacecolor("none")
    _mark_criterion(ax, "functional rank (ringed): first below 5 %")
    ax.set(xlabel=r"rank that $\Delta W$ is truncated to", ylabel="loss / loss at rank 0")
    ax.xaxis.set_major_locator(MultipleLocator(5))


def _dots(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index], "marker": MARKERS[index], "markersize": 3.5, "linewidth": 0.9}


def _mark_criterion(ax: Axes, text: str) -> None:
    ax.axhline(CRITERION, color=QUIET, linewidth=0.8, linestyle="--", zorder=0)
    at_right_end = ax.get_yaxis_transform()
    ax.text(1, CRITERION, text, transform=at_right_end, ha="right", va="bottom", fontsize=7.5, color=QUIET)
