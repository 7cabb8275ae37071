"""Two checkpoints: the singular values of each matrix's change beside those that a random change would have.

A few matrices get a panel each, with the singular values over their rank; many share strips with a row each, in which a
singular value is a point and the edge of the random change a line that all rows have in common.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankscope.figures.style import COLOURS, INK, QUIET, legend_above, say_no_measurements, styled

MOST_PANELS = 12
ROWS_IN_A_STRIP = 60
MOST_PARTS = 6
LONGEST_NAME = 38
EDGE: dict[str, Any] = {"color": COLOURS[1], "linewidth": 1.2, "linestyle": (0, (4, 2))}
NOISE: dict[str, Any] = {"color": QUIET, "linewidth": 1.0, "linestyle": ":"}
EDGE_LABEL = "edge of a random change of the same size and norm"
NOISE_LABEL = "edge of the noise without what stands out"


def checkpoints(compared: pd.DataFrame) -> Figure:
    """Draw the leading singular values of the change of every matrix.

    Parameters
    ----------
    compared
        As `rankscope.compare` returns it.
    """
    whole = compared[compared["part"].isna()]
    with styled():
        if whole.empty:
            figure = Figure(figsize=(4.0, 2.5), layout="constrained")
            say_no_measurements(figure.subplots())
            return figure
        return _panels(whole, compared) if len(whole) <= MOST_PANELS else _strips(whole)


def _panels(whole: pd.DataFrame, compared: pd.DataFrame) -> Figure:
    columns = next(n for most, n in ((1, 1), (4, 2), (9, 3), (MOST_PANELS, 4)) if len(whole) <= most)
    rows = math.ceil(len(whole) / columns)
    figure = Figure(figsize=(max(4.2, 0.4 + 2.6 * columns), 0.9 + 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    parts_shown: dict[str, Line2D] = {}
    for ax, (name, matrix) in zip(axes, whole.iterrows(), strict=False):
        parts = compared[(compared["tensor"] == matrix["tensor"]) & compared["part"].notna()]
        if len(parts) <= MOST_PARTS:
            for index, part in enumerate(parts.itertuples()):
                color, text = COLOURS[index + 2], str(part.part)
                (line,) = ax.plot(
                    *_curve(part.singular_values),
                    color=color,
                    linewidth=0.9,
                    label=f"gate {text}" if len(text) == 1 else text,
                )
                parts_shown.setdefault(text, line)
        ax.plot(*_curve(matrix["singular_values"]), color=COLOURS[0], marker="o", markersize=2.5, linewidth=0.8)
        ax.axhline(matrix["random_edge"], **EDGE)
        ax.axhline(matrix["noise_edge"], **NOISE)
        ax.set_yscale("log")
        top = max(matrix["random_edge"], matrix["singular_values"][0])
        # Far below the edge lies what rounding leaves, many decades down.
        lowest = max(min(matrix["singular_values"]), matrix["rounding_noise"], 1e-4 * top)
        ax.set_ylim(lowest / 1.5, top * 1.6)
        ax.set_title(_short(str(name)), fontsize=7.5)
    for ax in axes[len(whole) :]:
        ax.set_visible(False)
    figure.supxlabel("rank", fontsize=9)
    figure.supylabel(r"singular value of $\Delta W$", fontsize=9)
    handles = [Line2D([], [], color=COLOURS[0], marker="o", markersize=3, label="whole matrix"), *_edges()]
    legend_above(figure, list(parts_shown.values()), handles)
    return figure


def _strips(whole: pd.DataFrame) -> Figure:
    strips = math.ceil(len(whole) / ROWS_IN_A_STRIP)
    rows = math.ceil(len(whole) / strips)
    figure = Figure(figsize=(max(6.0, 4.6 * strips), 1.2 + 0.14 * rows), layout="constrained")
    axes = figure.subplots(1, strips, squeeze=False, sharex=True).ravel()
    for index, ax in enumerate(axes):
        _strip(ax, whole.iloc[index * rows : (index + 1) * rows], rows)
    figure.supxlabel(r"singular value of $\Delta W$ / " + EDGE_LABEL, fontsize=9)
    point: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3}
    handles = [
        Line2D([], [], color=COLOURS[0], label="stands out (how many: on the right)", **point),
        Line2D([], [], color=QUIET, label="does not", **point),
        *_edges()[:1],
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(3, 2 * strips))
    return figure


def _strip(ax: Axes, matrices: pd.DataFrame, rows: int) -> None:
    for row, (_, matrix) in enumerate(matrices.iterrows()):
        values = np.asarray(matrix["singular_values"]) / matrix["random_edge"]
        known = not pd.isna(matrix["standing_out"])
        out = int(matrix["standing_out"]) if known else len(values)
        ax.plot(values[out:], np.full(len(values[out:]), row), ".", color=QUIET, markersize=1.5, alpha=0.6)
        ax.plot(values[:out], np.full(len(values[:out]), row), ".", color=COLOURS[0], markersize=3)
        text = f"{out}" if known else f"≥{out}"
        ax.text(1.01, row, text, transform=ax.get_yaxis_transform(), fontsize=5.5, va="center", color=INK)
    ax.axvline(1, **EDGE)
    ax.set_xscale("log")
    ax.set_xlim(left=0.02)
    ax.set_ylim(rows - 0.3, -0.7)
    ax.set_yticks(range(len(matrices)), [_short(str(name)) for name in matrices.index], fontsize=5.5)
    ax.tick_params(axis="y", length=0)


def _curve(values: tuple[float, ...]) -> tuple[list[int], list[float]]:
    """Return rank and value; what is zero is not on a logarithmic axis."""
    there = [value for value in values if value > 0]
    return list(range(1, len(there) + 1)), there


def _edges() -> list[Line2D]:
    return [Line2D([], [], label=EDGE_LABEL, **EDGE), Line2D([], [], label=NOISE_LABEL, **NOISE)]


def _short(name: str) -> str:
    """Return a name that fits; its end says most."""
    name = name.removesuffix(".weight")
    return name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]
