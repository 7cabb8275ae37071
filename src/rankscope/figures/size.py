"""Schuessler et al. 2020, supplement: convergence time and rank of the change against the number of units.

At g = 0 a line is the limit of infinitely many units.
"""

from __future__ import annotations

from typing import Any

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from rankscope.experiments.averages import over_converged
from rankscope.experiments.size_limit import limit_for
from rankscope.figures.averages import ROW_HEIGHT, draw_averages, explain_averages, rows_above, scale_averages
from rankscope.figures.labels import axis_label, task_label
from rankscope.figures.selection import over_tasks
from rankscope.plot.style import INK, gain_label, label_panels, styled

LIMIT: dict[str, Any] = {"color": INK, "linewidth": 1.0, "linestyle": (0, (4, 2)), "zorder": 1}
LIMIT_LABEL = "$g$ = 0, infinitely many units (band: twice the error)"
SHOWN = ("convergence_epoch", "change_norm", "trained_norm", "functional_rank")


def size(dataset: xr.Dataset) -> Figure:
    """Draw four quantities (rows) of each task (columns) against N, one curve a gain.

    Means and standard deviations are over the converged samples. For tasks trained as in the experiment, a dashed line
    with its error is the limit of infinitely many units at g = 0.

    Takes measurements along `task`, `gain`, `sample` and `hidden_size`.
    """
    run = over_tasks(dataset, "hidden_size")
    averages = {name: over_converged(run, name) for name in SHOWN}
    tasks, sizes = run["task"].values, run["hidden_size"].values
    with styled():
        figure = Figure(figsize=(max(5.0, 0.7 + 2.1 * len(tasks)), 8.0), layout="constrained")
        grid = figure.subplots(len(SHOWN), len(tasks), sharex=True, sharey="row", squeeze=False)
        handles: dict[str, Line2D] = {}
        limits: dict[str, Line2D] = {}
        for name, row in zip(SHOWN, grid, strict=True):
            for task, ax in zip(tasks, row, strict=True):
                handles = draw_averages(ax, "hidden_size", _by_gain(averages[name], task))
                line = _draw_limit(ax, run, name, task)
                limits = limits if line is None else {LIMIT_LABEL: line}
                ax.set_xscale("log", base=2)
                ax.set_xlim(sizes.min() / 1.4, sizes.max() * 1.4)
                ax.xaxis.set_major_locator(FixedLocator(sizes.tolist()))
                ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
                ax.xaxis.set_minor_locator(NullLocator())
            row[0].set_ylabel(axis_label(name))
            scale_averages(row[0], name)
        rows = max(rows_above("hidden_size", _by_gain(averages[SHOWN[0]], task)) for task in tasks)
        for task, top, bottom in zip(tasks, grid[0], grid[-1], strict=True):
            top.set_title(task_label(task), pad=6 + ROW_HEIGHT * rows)
            bottom.set_xlabel(axis_label("hidden_size"))
        label_panels(figure, grid.flat, offset=(-12, 6))
        figure.align_ylabels()
        explain_averages(figure, averages, handles | limits)
    return figure


def _by_gain(averages: xr.Dataset, task: str) -> dict[str, xr.Dataset]:
    return {gain_label(gain): averages.sel(task=task, gain=gain) for gain in averages["gain"].values}


def _draw_limit(ax: Axes, run: xr.Dataset, name: str, task: str) -> Line2D | None:
    """Draw the limit of a quantity as a line with a band of twice its error; return None where it is not known."""
    limit = limit_for(run, task, name)
    if limit is None:
        return None
    ax.axhspan(
        limit.value - 2 * limit.error, limit.value + 2 * limit.error, color=INK, alpha=0.12, linewidth=0, zorder=0
    )
    return ax.axhline(limit.value, **LIMIT)
