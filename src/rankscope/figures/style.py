"""One look for all figures: sizes, and colors that color-blind readers and printers can tell apart.

Nothing is set globally: figures are made inside `styled()`, which leaves matplotlib's own settings as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Okabe & Ito (2008), in an order in which neighbors also differ in lightness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "#222222"
QUIET = "#8a8a8a"
TASK_LABELS = {"flipflop": "flip-flop", "mante": "Mante", "romo": "Romo"}

_SETTINGS = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "figure.dpi": 100,
}


@contextmanager
def styled() -> Iterator[None]:
    """Apply the look within a `with` block."""
    with mpl.rc_context(_SETTINGS):
        yield


def look(index: int) -> dict[str, Any]:
    """Return the color and the marker of the curve `index`; no two of the first 49 share both."""
    turns, within = divmod(index, len(COLOURS))
    return {"color": COLOURS[within], "marker": MARKERS[(within + turns) % len(MARKERS)]}


def label_panels(figure: Figure, axes: list[Axes], offset: tuple[float, float] = (-38, 6)) -> None:
    """Put a, b, c, ... above the top left corner of each of `axes`.

    Parameters
    ----------
    offset
        Of the letter from that corner, in points.
    """
    for letter, ax in zip("abcdefghijklmnopqrstuvwxyz", axes, strict=False):
        ax.annotate(
            letter,
            xy=(0, 1),
            xycoords="axes fraction",
            xytext=offset,
            textcoords="offset points",
            fontsize=11,
            fontweight="bold",
        )


def legend_above(figure: Figure, varied: Sequence[Artist], kinds: Sequence[Artist]) -> None:
    """Put a legend above all panels: what the colors are, in columns as long as the last one, of what is drawn.

    Parameters
    ----------
    varied, kinds
        What has labels.
    """
    # Columns are filled one after the other, also by nothing.
    padding = [Line2D([], [], linestyle="none", label=" ")] * (-len(varied) % len(kinds))
    entries = [*varied, *padding, *kinds]
    figure.legend(handles=entries, loc="outside upper center", ncols=len(entries) // len(kinds))


def say_no_measurements(ax: Axes) -> None:
    """Say in an empty panel why it is empty."""
    ax.text(0.5, 0.5, "no measurements", transform=ax.transAxes, ha="center", color=QUIET)


def gain_label(gain: float) -> str:
    """Return the legend entry of a gain."""
    return f"$g$ = {np.round(gain, 3):g}"


def task_label(task: object) -> str:
    """Return a task's name as the paper writes it."""
    return TASK_LABELS.get(str(task), str(task))
