"""Checkpoints of one training: growth of the change of each matrix, and of its directions.

Up to nine matrices have a panel each, with the strength of every direction of the last change over the checkpoints.
More matrices have a row each in three maps: norm, overlap with the last directions, and strengths of the first four.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rankscope.plot.style import GREY, INK, entry, mark_empty, styled

MAX_PANELS = 9
MAX_NAME = 34  # characters
MAX_TICKS = 10
DRAWN = 4  # directions of a matrix in a map
COLORMAP = "viridis"
MISSING = "#dddddd"

Array = NDArray[np.float64]


def along(compared: pd.DataFrame, first: str) -> Figure:
    """Draw the growth of directions along training.

    Parameters
    ----------
    compared
        As `Growth.to_dataframe` returns it.
    first
        Label of the first checkpoint, with which the others are compared.
    """
    with styled():
        if compared.empty:
            figure = Figure(figsize=(4.0, 2.5), layout="constrained")
            mark_empty(figure.subplots())
            return figure
        names = list(dict.fromkeys(compared.index.get_level_values("name")))
        return _panels(compared, names, first) if len(names) <= MAX_PANELS else _maps(compared, names)


def _panels(compared: pd.DataFrame, names: Sequence[str], first: str) -> Figure:
    columns = next(n for most, n in ((1, 1), (2, 2), (3, 3), (4, 2), (MAX_PANELS, 3)) if len(names) <= most)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(4.4, 0.6 + 2.7 * columns), 1.2 + 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    most = max(len(strengths) for strengths in compared["strengths"])
    colors = mpl.colormaps[COLORMAP](np.linspace(0, 0.92, max(2, most)))
    labels, unit = _labels(compared.loc[names[0]], first)
    for ax, name in zip(axes, names, strict=False):
        stages = compared.loc[name]
        strengths = np.vstack([np.zeros(len(stages["strengths"].iloc[0])), *stages["strengths"]])
        ax.plot([0.0, *stages["norm"]], color=GREY, linestyle=":", linewidth=1.1)
        for j, curve in reversed(list(enumerate(strengths.T))):
            ax.plot(curve, color=colors[j], marker="o", markersize=2.2, linewidth=1.1)
        ax.set_ylim(bottom=min(0.0, 1.1 * float(strengths.min())))
        ax.set_title(short(name), fontsize=7.5)
        _ticks(ax, labels)
    for index, ax in enumerate(axes):
        ax.set_visible(index < len(names))
        # The last panel of a column that ends earlier has the labels.
        ax.tick_params(labelbottom=index + columns >= len(names))
    figure.supxlabel(unit, fontsize=9)
    figure.supylabel(r"strength $u_j^T\,\Delta W\,v_j$", fontsize=9)
    entries = [entry(str(j + 1), color=colors[j], marker="o", markersize=3) for j in range(most)]
    entries.append(entry(r"norm $\|\Delta W\|$", color=GREY, linestyle=":"))
    title = "directions of the last change, the strongest first"
    ncols = len(entries) if columns > 1 else math.ceil(len(entries) / 2)
    figure.legend(handles=entries, title=title, title_fontsize=8, loc="outside upper center", ncols=ncols)
    return figure


def _maps(compared: pd.DataFrame, names: Sequence[str]) -> Figure:
    count = len(compared.loc[names[0]])
    width = 2.2 + 3 * max(1.5, min(3.2, 0.16 * count))
    figure = Figure(figsize=(width, 1.5 + max(2.0, 0.135 * len(names))), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    labels, unit = _labels(compared.loc[names[0]], None)
    norms, overlaps = np.full((2, len(names), count), np.nan)
    grown = np.full((len(names) * DRAWN, count), np.nan)
    sizes = []
    for row, name in enumerate(names):
        stages = compared.loc[name]
        norms[row] = stages["norm"] / stages["norm"].iloc[-1]
        overlaps[row] = (stages["left_overlap"] + stages["right_overlap"]) / 2
        strengths = np.array(stages["strengths"].tolist())
        sizes.append(strengths.shape[1])
        drawn = min(DRAWN, strengths.shape[1])
        # The directions of a matrix share its row: one alone fills it.
        places = np.arange(DRAWN) * drawn // DRAWN
        grown[row * DRAWN : (row + 1) * DRAWN] = (strengths / strengths[-1]).T[places]
    titles = (
        "norm of the change / last",
        "overlap of the k leading\ndirections with the last",
        f"strength of direction 1 (top)\nto {min(DRAWN, max(sizes))} / last",
    )
    colors = mpl.colormaps[COLORMAP].with_extremes(bad=MISSING)
    for ax, values, title in zip(axes, (norms, overlaps, grown), titles, strict=True):
        extent = (-0.5, count - 0.5, len(names) - 0.5, -0.5)
        image = ax.imshow(values, cmap=colors, vmin=0, vmax=1, aspect="auto", interpolation="nearest", extent=extent)
        ax.set_title(title, fontsize=8)
        _ticks(ax, labels)
        ax.tick_params(length=2)
        ax.hlines(np.arange(len(names) - 1) + 0.5, *extent[:2], color="white", linewidth=0.5)
    axes[0].set_yticks(range(len(names)), [short(name) for name in names], fontsize=5.5)
    for row, size in enumerate(sizes):
        axes[2].text(
            1.02, row, str(size), transform=axes[2].get_yaxis_transform(), fontsize=5.5, va="center", color=INK
        )
    axes[2].annotate(
        "k", (1.02, 1), (0, 2), xycoords="axes fraction", textcoords="offset points", fontsize=7, color=INK
    )
    figure.supxlabel(unit, fontsize=9)
    pad = 0.1 / figure.get_figheight()
    bar = figure.colorbar(image, ax=axes, location="top", aspect=50, shrink=0.6, pad=pad, extend="both")
    bar.set_label("fraction of the last checkpoint", fontsize=7.5)
    bar.ax.tick_params(labelsize=7)
    return figure


def _labels(stages: pd.DataFrame, first: str | None) -> tuple[list[str], str]:
    """Return the labels of the checkpoints, and of their axis: steps if all have one."""
    steps = list(stages["step"])
    if all(not pd.isna(step) for step in steps):
        labels = [str(int(step)) for step in steps]
        even = len(set(np.diff(steps))) < 2
        unit = "checkpoint (number in its name" + (")" if even else ", drawn at equal distances)")
    else:
        labels, unit = [short(str(label), 16) for label in stages.index], "checkpoint"
    if first is None:
        return labels, unit
    number = re.search(r"\d+$", first) if labels[-1].isdigit() else None
    return [number[0] if number else short(first, 12), *labels], unit


def _ticks(ax: Axes, labels: Sequence[str]) -> None:
    """Label at most ten checkpoints, the last one among them."""
    every = math.ceil(len(labels) / MAX_TICKS)
    at = list(range(len(labels) - 1, -1, -every))[::-1]
    upright = max(len(labels[i]) for i in at) * len(at) > 24
    ax.set_xticks(at, [labels[i] for i in at], fontsize=6.5, rotation=90 if upright else 0)


def short(name: str, most: int = MAX_NAME) -> str:
    """Return a shortened name; its end is kept."""
    name = name.removesuffix(".weight")
    return name if len(name) <= most else "…" + name[1 - most :]
