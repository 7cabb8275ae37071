"""Paper Fig. 1: three tasks are learned from no and from strong random connectivity, and the change is of low rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from rankscope.figures.panels import (
    draw_channel,
    draw_inputs,
    draw_loss,
    draw_singular_values,
    draw_truncation,
    inputs_are_paired,
)
from rankscope.figures.selection import the_only, was_trained, with_dims, without_padding
from rankscope.figures.style import INK, QUIET, gain_label, label_panels, look, say_no_measurements, styled, task_label

GAP = 0.12  # between two strips of a trial, as a fraction of the panel


def tasks(dataset: xr.Dataset) -> Figure:
    """Draw one column a task: a trial, the loss over epochs, the singular values of the change, the truncation loss.

    Parameters
    ----------
    dataset
        Measurements of the experiment `tasks` along `task` and `gain`, of one `hidden_size`. Of several samples the
        first is drawn.

    Raises
    ------
    InputError
        If it holds several hidden sizes.
    """
    whole = with_dims(the_only(dataset, "hidden_size"), "task", "gain", "sample").isel(sample=0)
    names = whole["task"].values
    with styled():
        figure = Figure(figsize=(max(5.0, 0.4 + 2.2 * len(names)), 8.4), layout="constrained")
        grid = figure.subplots(4, len(names), squeeze=False, height_ratios=[1.45, 1, 1, 1])
        for name, (trial, loss, values, truncation) in zip(names, grid.T, strict=True):
            trial.set_title(task_label(name))
            one = whole.sel(task=name)
            if not bool(was_trained(one).any()):
                _say_nothing_there([trial, loss, values, truncation])
                continue
            one = without_padding(one)
            _draw_trial(trial, one)
            draw_loss(loss, one, note=None)
            draw_singular_values(values, one)
            draw_truncation(truncation, one, note=None)
        for row in grid[1:]:
            _share_scale(list(row))
            for ax in row[1:]:
                ax.set_ylabel("")
                ax.tick_params(labelleft=False)
        label_panels(figure, list(grid.flat), offset=(-22, 6))
        figure.align_ylabels(grid[1:, 0])
        entries = _legend(whole["gain"].values)
        figure.legend(handles=entries, loc="outside upper center", ncols=(len(entries) + 1) // 2)
    return figure


def _draw_trial(panel: Axes, dataset: xr.Dataset) -> None:
    """Draw a trial in strips: each output with an input of its own, or all inputs in a strip above the outputs."""
    channels = dataset.sizes["output_channel"]
    paired = inputs_are_paired(dataset)
    heights = [] if paired else [0.5 + 0.3 * dataset.sizes["input_channel"]]
    strips = _strips(panel, [*heights, *[1.0] * channels])
    if not paired:
        draw_inputs(strips[0], dataset)
    outputs = strips if paired else strips[1:]
    for channel, ax in enumerate(outputs):
        draw_channel(ax, dataset, channel, [channel] if paired else [])
        ax.set_ylabel(f"output {channel + 1}" if channels > 1 else "output")
    _share_scale(outputs)
    strips[-1].set_xlabel("time (time constants)")


def _strips(panel: Axes, heights: list[float]) -> list[Axes]:
    """Return axes below each other in the place of `panel`, along one time."""
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


def _share_scale(axes: list[Axes]) -> None:
    """Give axes the limits that hold all their curves."""
    limits = np.array([ax.get_ylim() for ax in axes if ax.axison])
    for ax in axes if limits.size else []:
        ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())


def _say_nothing_there(column: list[Axes]) -> None:
    for ax in column:
        ax.set_axis_off()
    say_no_measurements(column[0])


def _legend(gains: NDArray[np.float64]) -> list[Line2D]:
    mark: dict[str, Any] = {"linestyle": "none", "color": INK}
    curves = [
        Line2D([], [], color=QUIET, linewidth=0.9, label="input"),
        Line2D([], [], color=INK, linewidth=2.0, linestyle=(0, (1.2, 1.2)), label="target"),
        *(Line2D([], [], markersize=3.5, label=gain_label(gain), **look(i)) for i, gain in enumerate(gains)),
    ]
    marks = [
        Line2D([], [], marker="o", markersize=7, markeredgecolor="white", label="converged: loss below 5 %", **mark),
        Line2D([], [], marker="o", markersize=9, markerfacecolor="none", label="functional rank: below 5 %", **mark),
    ]
    return curves + marks
