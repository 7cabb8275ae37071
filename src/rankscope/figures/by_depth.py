"""Changes of a model with many layers: norm and ranks of each kind of matrix over the number of the layer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from rankscope.checkpoints.names import common_start
from rankscope.plot.style import entry, series

FEWEST_LAYERS = 3
MAX_KINDS = 49
MAX_NAME = 40  # characters
PANELS = (
    ("relative_norm", r"$|\Delta W| \,/\, |W_0|$"),
    ("stable_rank", "stable rank"),
    ("rank_95", r"rank with 95 % of $|\Delta W|^2$"),
    ("standing_out", "directions that stand out"),
)


class Place(NamedTuple):
    """Kind of a matrix, its name without the number of its layer, and this number; None without one."""

    kind: str
    depth: int | None


def place(name: str) -> Place:
    """Return the place of a matrix in a model, from its name: the first number in it is that of the layer."""
    bare = name.removesuffix(".weight")
    found = re.search(r"(?:^|\.)(\d+)\.", bare)
    if found is None:
        return Place(bare, None)
    return Place(bare[: found.start(1)] + "*" + bare[found.end(1) :], int(found[1]))


def layered(names: Iterable[str]) -> bool:
    """Return whether most matrices are of kinds that at least three layers have."""
    places = [place(name) for name in names]
    counts = Counter(kind for kind, depth in places if depth is not None)
    within = sum(count for count in counts.values() if count >= FEWEST_LAYERS)
    return 2 * within > len(places) and len(counts) <= MAX_KINDS


def by_depth(whole: pd.DataFrame) -> Figure:
    """Draw norm and ranks of every matrix over its depth, a line for each kind.

    Parameters
    ----------
    whole
        Rows of whole matrices, as `rankscope.compare` returns them. Must be called with the style applied.
    """
    places = [place(str(name)) for name in whole.index]
    kinds = list(dict.fromkeys(kind for kind, depth in places if depth is not None))
    single = [kind for kind, depth in places if depth is None]
    start = common_start(kinds)
    last = max(depth for _, depth in places if depth is not None)
    panels = [one for one in PANELS if whole[one[0]].notna().any()]
    figure = Figure(figsize=(9.0, 1.6 + 0.16 * len(kinds) + 2.5 * ((len(panels) + 1) // 2)), layout="constrained")
    axes = figure.subplots((len(panels) + 1) // 2, 2, squeeze=False).ravel()
    for ax, (column, label) in zip(axes, panels, strict=False):
        _panel(ax, whole[column], places, kinds)
        for index, kind in enumerate(single):
            value = whole[column].iloc[[p.kind for p in places].index(kind)]
            if not pd.isna(value):
                ax.plot(last + 1.5 + index, value, "k*", markersize=6)
        ax.set_ylabel(label)
        ax.set_xlabel("layer")
        ax.set_yscale("log")
        for axis_formatter in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
            axis_formatter(FuncFormatter(_tick))
        ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        ticks = list(range(0, last + 1, max(1, -(-last // 8))))
        names = [_short(kind, "") for kind in single]
        ax.set_xticks([*ticks, *(last + 1.5 + i for i in range(len(single)))], [*map(str, ticks), *names])
        for text in ax.get_xticklabels()[len(ticks) :]:
            text.set(rotation=30, ha="right", fontsize=6.5)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    entries = [entry(_short(kind, start), markersize=3.5, **series(index)) for index, kind in enumerate(kinds)]
    figure.legend(handles=entries, loc="outside upper left", ncols=min(4, len(entries)))
    return figure


def _panel(ax: Axes, values: pd.Series, places: list[Place], kinds: list[str]) -> None:
    for index, kind in enumerate(kinds):
        points = sorted(
            (depth, float(value))
            for (own, depth), value in zip(places, values, strict=True)
            if own == kind and depth is not None and not pd.isna(value) and value > 0
        )
        if points:
            depths, heights = np.array(points).T
            ax.plot(depths, heights, linewidth=0.9, markersize=3.5, **series(index))


def _tick(value: float, _: int) -> str:
    return f"{value:g}"


def _short(kind: str, start: str) -> str:
    bare = kind.removeprefix(start)
    return bare if len(bare) <= MAX_NAME else "…" + bare[1 - MAX_NAME :]
