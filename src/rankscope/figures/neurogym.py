"""The environments of NeuroGym, one a row: how well they are learned, how fast, and in how many directions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from rankscope.figures.selection import the_only, with_dims
from rankscope.figures.style import INK, QUIET, gain_label, label_panels, look, say_no_measurements, styled

PANELS = {
    "score": "score of the decisions",
    "fall_epoch": "epochs to 95 % of\nthe fall of the loss",
    "score_rank": "rank for 95 %\nof the score",
    "change_norm": "norm of change\n" + r"$\|\Delta W\|$",
}
NEEDED = (*PANELS, "chance", "status")
# What says nothing about a task that was not learned.
OF_THE_LEARNED = ("fall_epoch", "score_rank", "change_norm")
APART = 0.22  # between the rows of two gains, as a fraction of the distance of two environments

Array = NDArray[np.float64]


def neurogym(dataset: xr.Dataset) -> Figure:
    """Draw one row an environment, the best learned above, and one column a quantity, each gain in its color.

    Parameters
    ----------
    dataset
        Measurements of the experiment `neurogym` along `task`, `gain` and `sample`, of one `hidden_size`.

    Raises
    ------
    InputError
        If it holds several hidden sizes.
    """
    whole = with_dims(the_only(dataset[list(NEEDED)], "hidden_size"), "task", "gain", "sample").compute()
    whole = whole.transpose("task", "gain", "sample")
    best = whole["score"].max(["gain", "sample"]).fillna(-np.inf)
    whole = whole.isel(task=np.argsort(best.values, kind="stable"))
    names = [str(name) for name in whole["task"].values]
    with styled():
        figure = Figure(figsize=(7.4, 1.5 + 0.2 * len(names)), layout="constrained")
        axes = list(figure.subplots(1, len(PANELS), sharey=True, width_ratios=[1.25, 1, 1, 1]))
        axes[0].set_yticks(range(len(names)), names)
        axes[0].tick_params(axis="y", labelsize=7, length=0)
        axes[0].set_ylim(-0.7, len(names) - 0.3)
        for ax, (name, label) in zip(axes, PANELS.items(), strict=True):
            _draw(ax, whole, name)
            ax.set_xlabel(label)
            ax.grid(axis="y", color=QUIET, linewidth=0.3, alpha=0.5)
        label_panels(figure, axes, offset=(-2, 6))
        figure.legend(handles=_legend(whole["gain"].values), loc="outside upper center", ncols=6)
    return figure


def _draw(ax: Axes, whole: xr.Dataset, name: str) -> None:
    learned = (whole["score"] > (1 + whole["chance"]) / 2).values
    values = np.asarray(whole[name].values, dtype=float)
    if name == "score":
        values = np.where(values < 0, -0.03, values)  # an explained variance may be anything below 0
    gains = whole.sizes["gain"]
    for index in range(gains):
        for sample in range(whole.sizes["sample"]):
            x, good = values[:, index, sample], learned[:, index, sample]
            y = np.arange(len(x)) - APART * (index - (gains - 1) / 2)
            shown = good if name in OF_THE_LEARNED else np.isfinite(x)
            ax.plot(x[shown & good], y[shown & good], linestyle="none", markersize=4, **look(index))
            ax.plot(
                x[shown & ~good],
                y[shown & ~good],
                linestyle="none",
                markersize=4,
                markerfacecolor="white",
                **look(index),
            )
    if name == "score":
        _draw_chance(ax, whole)
    _scale(ax, name, values[learned])


def _draw_chance(ax: Axes, whole: xr.Dataset) -> None:
    chance = whole["chance"].max(["gain", "sample"]).values
    for row, level in enumerate(chance):
        if np.isfinite(level):
            ax.plot([level, level], [row - 0.35, row + 0.35], color=INK, linewidth=1.2)
    unsuitable = (whole["status"] == "unsuitable").any(["gain", "sample"]).values
    for row in np.flatnonzero(unsuitable).tolist():
        ax.text(0.02, row, "not a task", color=QUIET, fontsize=7, va="center")


def _scale(ax: Axes, name: str, shown: Array) -> None:
    if name == "score":
        ax.set_xlim(-0.05, 1.05)
        return
    if not np.isfinite(shown).any():
        ax.set(xlim=(0, 1), xticks=[])
        say_no_measurements(ax)
        return
    if name == "fall_epoch":
        ax.set_xscale("log", nonpositive="clip")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3) if _decades(shown) < 1.5 else (1,)))
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        largest = max(float(np.nanmax(shown)), 1e-9)
        ax.set_xlim(-0.06 * largest, 1.08 * largest)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=name == "score_rank"))


def _decades(values: Array) -> float:
    positive = values[np.isfinite(values) & (values > 0)]
    return float(np.log10(positive.max() / positive.min())) if positive.size else 0.0


def _legend(gains: Iterable[float]) -> list[Line2D]:
    marks = [
        Line2D([], [], linestyle="none", markersize=4, label=gain_label(gain), **look(index))
        for index, gain in enumerate(gains)
    ]
    missed: dict[str, Any] = {"marker": "o", "markerfacecolor": "white", "color": QUIET, "markersize": 4}
    return [
        *marks,
        Line2D([], [], linestyle="none", label="not half-way from chance to perfect", **missed),
        Line2D([], [], linestyle="none", marker="|", markersize=8, markeredgewidth=1.2, color=INK, label="chance"),
    ]
