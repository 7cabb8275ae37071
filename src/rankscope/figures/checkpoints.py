"""Comparison of two checkpoints: singular values of each matrix's change, beside those of a random change.

Up to twelve matrices have a panel each, with singular values over their index. More matrices are drawn by kind over
their depth if they are in numbered layers. Otherwise each has a row in which a singular value is a point, in units of
the edge of the random change.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankscope.figures.by_depth import by_depth, layered
from rankscope.plot.style import COLORS, GREY, INK, entry, legend_above, mark_empty, styled

MAX_PANELS = 12
ROWS_PER_COLUMN = 60
MAX_BLOCKS = 6  # gates or heads of a matrix
MAX_NAME = 38  # characters
EDGE: dict[str, Any] = {"color": COLORS[1], "linewidth": 1.2, "linestyle": (0, (4, 2))}
NOISE: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "linestyle": ":"}
EDGE_LABEL = "edge of a random change of the same size and norm"
NOISE_LABEL = "edge of the flat bulk that the other values form"
POINT: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3}


def checkpoints(compared: pd.DataFrame) -> Figure:
    """Draw the leading singular values of the change of every matrix.

    Parameters
    ----------
    compared
        As `rankscope.compare` returns it.
    """
    whole = compared[compared["block"].isna()]
    with styled():
        if whole.empty:
            figure = Figure(figsize=(4.0, 2.5), layout="constrained")
            mark_empty(figure.subplots())
            return figure
        if len(whole) <= MAX_PANELS:
            return _panels(whole, compared)
        return by_depth(whole) if layered(whole.index) else _rows(whole)


def _panels(whole: pd.DataFrame, compared: pd.DataFrame) -> Figure:
    columns = next(n for most, n in ((1, 1), (4, 2), (9, 3), (MAX_PANELS, 4)) if len(whole) <= most)
    rows = math.ceil(len(whole) / columns)
    figure = Figure(figsize=(max(4.2, 0.4 + 2.6 * columns), 0.9 + 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    drawn_blocks: dict[str, Line2D] = {}
    for ax, (name, matrix) in zip(axes, whole.iterrows(), strict=False):
        blocks = compared[(compared["tensor"] == matrix["tensor"]) & compared["block"].notna()]
        if len(blocks) <= MAX_BLOCKS:
            for index, block in enumerate(blocks.itertuples()):
                text = str(block.block)
                label = f"gate {text}" if len(text) == 1 else text
                color = COLORS[index + 2]
                (line,) = ax.plot(*_curve(block.singular_values), color=color, linewidth=0.9, label=label)
                drawn_blocks.setdefault(text, line)
        ax.plot(*_curve(matrix["singular_values"]), color=COLORS[0], marker="o", markersize=2.5, linewidth=0.8)
        ax.axhline(matrix["random_edge"], **EDGE)
        if matrix["flat_bulk"]:
            ax.axhline(matrix["noise_edge"], **NOISE)
        ax.set_yscale("log")
        top = max(matrix["random_edge"], matrix["singular_values"][0])
        # Values far below the edge are rounding errors.
        lowest = max(min(matrix["singular_values"]), matrix["rounding_noise"], 1e-4 * top)
        ax.set_ylim(lowest / 1.5, top * 1.6)
        ax.set_title(_short(str(name)), fontsize=7.5)
    for ax in axes[len(whole) :]:
        ax.set_visible(False)
    figure.supxlabel("index of the singular value", fontsize=9)
    figure.supylabel(r"singular value of $\Delta W$", fontsize=9)
    matrix_entry = entry("whole matrix", color=COLORS[0], marker="o", markersize=3)
    lines = [matrix_entry, entry(EDGE_LABEL, **EDGE)]
    if whole["flat_bulk"].eq(True).any():
        lines.append(entry(NOISE_LABEL, **NOISE))
    legend_above(figure, list(drawn_blocks.values()), lines)
    return figure


def _rows(whole: pd.DataFrame) -> Figure:
    columns = math.ceil(len(whole) / ROWS_PER_COLUMN)
    rows = math.ceil(len(whole) / columns)
    figure = Figure(figsize=(max(6.0, 4.6 * columns), 1.2 + 0.14 * rows), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False, sharex=True).ravel()
    for index, ax in enumerate(axes):
        _column(ax, whole.iloc[index * rows : (index + 1) * rows], rows)
    figure.supxlabel(r"singular value of $\Delta W$ / " + EDGE_LABEL, fontsize=9)
    entries = [
        entry("stands out of a flat bulk (count: on the right)", color=COLORS[0], **POINT),
        entry("other, or no flat bulk (–)", color=GREY, **POINT),
        entry(EDGE_LABEL, **EDGE),
    ]
    figure.legend(handles=entries, loc="outside upper left", ncols=min(3, 2 * columns))
    return figure


def _column(ax: Axes, matrices: pd.DataFrame, rows: int) -> None:
    for row, (_, matrix) in enumerate(matrices.iterrows()):
        values = np.asarray(matrix["singular_values"]) / matrix["random_edge"]
        known = not pd.isna(matrix["standing_out"])
        above = int(matrix["standing_out"]) if known else 0
        ax.plot(values[above:], np.full(len(values[above:]), row), ".", color=GREY, markersize=1.5, alpha=0.6)
        ax.plot(values[:above], np.full(len(values[:above]), row), ".", color=COLORS[0], markersize=3)
        text = f"{above}" if known else "–"
        ax.text(1.01, row, text, transform=ax.get_yaxis_transform(), fontsize=5.5, va="center", color=INK)
    ax.axvline(1, **EDGE)
    ax.set_xscale("log")
    ax.set_xlim(left=0.02)
    ax.set_ylim(rows - 0.3, -0.7)
    ax.set_yticks(range(len(matrices)), [_short(str(name)) for name in matrices.index], fontsize=5.5)
    ax.tick_params(axis="y", length=0)


def _curve(values: tuple[float, ...]) -> tuple[list[int], list[float]]:
    """Return index and value of the positive values, for a logarithmic axis."""
    positive = [value for value in values if value > 0]
    return list(range(1, len(positive) + 1)), positive


def _short(name: str) -> str:
    """Return a shortened name; its end is kept."""
    name = name.removesuffix(".weight")
    return name if len(name) <= MAX_NAME else "…" + name[1 - MAX_NAME :]
