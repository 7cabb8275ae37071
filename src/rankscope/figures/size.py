"""Supplement: do the convergence time and the rank of the change depend on the number of units?"""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray

from rankscope.figures.averages import (
    LABELS,
    ROW_HEIGHT,
    draw_averages,
    explain,
    over_converged,
    rows_above,
    scale_averages,
)
from rankscope.figures.selection import with_dims
from rankscope.figures.style import gain_label, label_panels, styled, task_label

SHOWN = ("convergence_epoch", "change_norm", "trained_norm", "functional_rank")


def size(dataset: xr.Dataset) -> Figure:
    """Draw four quantities (rows) of each task (columns) against N, one curve a gain.

    Means and standard deviations are over the converged samples.

    Parameters
    ----------
    dataset
        Measurements of the experiment `size` along `task`, `gain`, `sample` and `hidden_size`.
    """
    whole = with_dims(dataset, "task", "gain", "sample", "hidden_size")
    averages = {name: over_converged(whole, name) for name in SHOWN}
    names, sizes = whole["task"].values, whole["hidden_size"].values
    with styled():
        figure = Figure(figsize=(max(5.0, 0.7 + 2.1 * len(names)), 8.0), layout="constrained")
        grid = figure.subplots(len(SHOWN), len(names), sharex=True, sharey="row", squeeze=False)
        handles: dict[str, Line2D] = {}
        for name, row in zip(SHOWN, grid, strict=True):
            for task, ax in zip(names, row, strict=True):
                handles = draw_averages(ax, "hidden_size", _by_gain(averages[name], task))
                _show_sizes(ax, sizes)
            row[0].set_ylabel(LABELS[name])
            scale_averages(row[0], name)
        rows = max(rows_above("hidden_size", _by_gain(averages[SHOWN[0]], task)) for task in names)
        for task, top, bottom in zip(names, grid[0], grid[-1], strict=True):
            top.set_title(task_label(task), pad=6 + ROW_HEIGHT * rows)
            bottom.set_xlabel("number of units $N$")
        label_panels(figure, list(grid.flat), offset=(-12, 6))
        figure.align_ylabels()
        explain(figure, averages, handles)
    return figure


def _by_gain(averages: xr.Dataset, task: str) -> dict[str, xr.Dataset]:
    return {gain_label(gain): averages.sel(task=task, gain=gain) for gain in averages["gain"].values}


def _show_sizes(ax: Axes, sizes: NDArray[np.int64]) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xlim(sizes.min() / 1.4, sizes.max() * 1.4)
    ax.xaxis.set_major_locator(FixedLocator(sizes.tolist()))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
