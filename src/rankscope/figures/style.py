"""One look for all figures: sizes, and colours that colour-blind readers and printers can tell apart.

Nothing is set globally: figures are made inside `styled()`, which leaves matplotlib's own settings as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito (2008), in an order in which neighbours also differ in lightness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "#222222"
QUIET = "#8a8a8a"

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


def label_panels(figure: Figure, axes: list[Axes]) -> None:
    """Put a, b, c, ... above the top left corner of each of `axes`."""
    for letter, ax in zip("abcdefghijklmnopqrstuvwxyz", axes, strict=False):
        ax.annotate(
            letter,
            xy=(0, 1),
            xycoords="axes fraction",
            xytext=(-38, 6),
            textcoords="offset points",
            fontsize=11,
            fontweight="bold",
        )


def gain_label(gain: float) -> str:
    """Return the legend entry of a gain."""
    return f"$g$ = {np.round(gain, 3):g}"
