"""NeuroGym's environments, one a row: scores, learning time, and how many directions of the change are needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from rankscope.figures.selection import over_tasks, require
from rankscope.plot.style import GREY, INK, entry, gain_entries, label_panels, mark_empty, series, styled

PANELS = {
    "score": "score of the decisions",
    "fall_epoch": "epochs to 95 % of\nthe fall of the loss",
    "score_rank": "rank for 95 %\nof the score",
    "change_norm": "norm of change\n" + r"$\|\Delta W\|$",
}
NEEDED = (*PANELS, "chance", "status")
ROW_SHIFT = 0.22  # between the rows of two gains, as a fraction of the distance of two environments
MARK: dict[str, Any] = {"linestyle": "none", "markersize": 4}


def neurogym(dataset: xr.Dataset) -> Figure:
    """Draw one row an environment, sorted by its best score, and one column a quantity, one color a gain.

    Quantities other than the score are drawn only of networks that learned the task: half-way from chance to perfect.

    Takes measurements of the experiment `neurogym` along `task`, `gain` and `sample`.
    """
    require(dataset, "neurogym", *NEEDED)
    run = over_tasks(dataset[list(NEEDED)]).compute().transpose("task", "gain", "sample")
    best = run["score"].max(["gain", "sample"]).fillna(-np.inf)
    run = run.isel(task=np.argsort(best.values, kind="stable"))
    names = [str(name) for name in run["task"].values]
    with styled():
        figure = Figure(figsize=(7.4, 1.5 + 0.2 * len(names)), layout="constrained")
        axes = list(figure.subplots(1, len(PANELS), sharey=True, width_ratios=[1.25, 1, 1, 1]))
        axes[0].set_yticks(range(len(names)), names)
        axes[0].tick_params(axis="y", labelsize=7, length=0)
        axes[0].set_ylim(-0.7, len(names) - 0.3)
        learned = run["score"] > (1 + run["chance"]) / 2
        scores = run["score"].where(run["score"].isnull() | (run["score"] >= 0), -0.03)  # R^2 has no lower bound
        for ax, (name, label) in zip(axes, PANELS.items(), strict=True):
            values = scores if name == "score" else run[name].astype(float).where(learned)
            _draw(ax, values, learned)
            ax.set_xlabel(label)
            ax.grid(axis="y", color=GREY, linewidth=0.3, alpha=0.5)
            _scale(ax, name, values)
        _draw_chance(axes[0], run)
        label_panels(figure, axes, offset=(-2, 6))
        entries = [
            *gain_entries(run["gain"].values, **MARK),
            entry("not half-way from chance to perfect", marker="o", markerfacecolor="white", color=GREY, **MARK),
            entry("chance", linestyle="none", marker="|", markersize=8, markeredgewidth=1.2, color=INK),
        ]
        figure.legend(handles=entries, loc="outside upper center", ncols=6)
    return figure


def _draw(ax: Axes, values: xr.DataArray, learned: xr.DataArray) -> None:
    """Draw a marker for each finite value, filled if the network learned the task."""
    gains = values.sizes["gain"]
    for index in range(gains):
        rows = np.arange(values.sizes["task"]) - ROW_SHIFT * (index - (gains - 1) / 2)
        for sample in range(values.sizes["sample"]):
            one = {"gain": index, "sample": sample}
            x, good = values.isel(one).values, learned.isel(one).values
            for which, fill in ((good, series(index)["color"]), (~good, "white")):
                shown = which & np.isfinite(x)
                ax.plot(x[shown], rows[shown], markerfacecolor=fill, **MARK, **series(index))


def _draw_chance(ax: Axes, run: xr.Dataset) -> None:
    for row, level in enumerate(run["chance"].max(["gain", "sample"]).values):
        if np.isfinite(level):
            ax.plot([level, level], [row - 0.35, row + 0.35], color=INK, linewidth=1.2)
    unsuitable = (run["status"] == "unsuitable").any(["gain", "sample"]).values
    for row in np.flatnonzero(unsuitable).tolist():
        ax.text(0.02, row, "not a task", color=GREY, fontsize=7, va="center")


def _scale(ax: Axes, name: str, values: xr.DataArray) -> None:
    if name == "score":
        ax.set_xlim(-0.05, 1.05)
        return
    positive = values.values[np.isfinite(values.values)]
    if not positive.size:
        ax.set(xlim=(0, 1), xticks=[])
        mark_empty(ax)
    elif name == "fall_epoch":
        positive = positive[positive > 0]
        decades = np.log10(positive.max() / positive.min()) if positive.size else 0.0
        ax.set_xscale("log", nonpositive="clip")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3) if decades < 1.5 else (1,)))
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        largest = max(float(positive.max()), 1e-9)
        ax.set_xlim(-0.06 * largest, 1.08 * largest)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=name == "score_rank"))
