"""Networks with the same seeds after moves in the last bit of their weights: norm, rank and loss of each."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rankscope.experiments.averages import was_trained
from rankscope.figures.labels import axis_label, task_label
from rankscope.figures.selection import over_tasks, require
from rankscope.plot.style import INK, entry, label_panels, mark_criterion, series, styled

SHOWN = ("change_norm", "functional_rank", "evaluation_loss")
CRITERION = 0.05
ROW = 0.18  # between two repetitions, as a fraction of the distance of two gains


def rounding(dataset: xr.Dataset) -> Figure:
    """Draw a column a task, a row a quantity: a point for each network, a bar for the mean, one color a repetition.

    Takes measurements along `task`, `gain`, `sample` and `repetition`; repetition 0 is not moved. A network without a
    functional rank has no point in that panel.
    """
    require(dataset, "rounding", "repetition", "initial_loss", *SHOWN)
    run = over_tasks(dataset, "repetition")[["status", "initial_loss", *SHOWN]].load()
    run["evaluation_loss"] = run["evaluation_loss"] / run["initial_loss"]
    tasks, count = run["task"].values, run.sizes["repetition"]
    with styled():
        figure = Figure(figsize=(max(4.4, 0.6 + 2.2 * len(tasks)), 6.4), layout="constrained")
        grid = figure.subplots(len(SHOWN), len(tasks), squeeze=False, sharey="row", sharex="col")
        for task, column in zip(tasks, grid.T, strict=True):
            one = run.sel(task=task)
            one = one.isel(gain=was_trained(one).any(["sample", "repetition"]).values)
            gains = one["gain"].values
            column[0].set_title(task_label(task))
            for name, ax in zip(SHOWN, column, strict=True):
                _draw(ax, one[name].astype(float).transpose("gain", "repetition", "sample").values)
                ax.set_xlim(-0.6, len(gains) - 0.4)
            column[-1].set_xticks(range(len(gains)), [f"{gain:g}" for gain in gains])
            column[-1].set_xlabel("gain $g$")
        for name, row in zip(SHOWN, grid, strict=True):
            if name == "evaluation_loss":
                row[0].set_ylabel("loss after learning\n/ initial loss")
                row[0].set_yscale("log")
                for ax in row:
                    mark_criterion(ax, CRITERION)
            else:
                row[0].set_ylabel(axis_label(name))
                row[0].set_ylim(0)
        grid[1, 0].yaxis.set_major_locator(MaxNLocator(integer=True))
        label_panels(figure, grid.flat, offset=(-12, 6))
        figure.align_ylabels()
        texts = ["weights as drawn", *(f"moved, {number}" for number in range(1, count))]
        entries = [entry(text, linestyle="none", **series(index)) for index, text in enumerate(texts)]
        figure.legend(handles=[*entries, entry("mean", color=INK)], loc="outside upper center", ncols=len(texts) + 1)
    return figure


def _draw(ax: Axes, values: np.ndarray[tuple[int, int, int], np.dtype[np.float64]]) -> None:
    """Draw the values of (gain, repetition, sample), and a bar at the mean of each repetition."""
    for place, by_repetition in enumerate(values):
        for index, found in enumerate(by_repetition):
            x = place + ROW * (index - (len(by_repetition) - 1) / 2)
            finite = found[np.isfinite(found)]
            ax.plot(np.full(finite.size, x), finite, linestyle="none", markersize=3.5, alpha=0.8, **series(index))
            if finite.size:
                half = 0.4 * ROW
                ax.plot([x - half, x + half], [finite.mean()] * 2, color=INK, linewidth=1.4, zorder=3)
