"""Style of all figures: sizes, and colors that color-blind readers and printers can tell apart.

Matplotlib's own settings are not changed: figures are made inside `styled()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Okabe & Ito (2008), ordered so that neighbors also differ in lightness.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "#222222"
GREY = "#8a8a8a"

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
    """Apply the style within a `with` block."""
    with mpl.rc_context(_SETTINGS):
        yield


def series(index: int) -> dict[str, Any]:
    """Return color and marker of the curve `index`; the first 49 combinations differ."""
    turns, within = divmod(index, len(COLORS))
    return {"color": COLORS[within], "marker": MARKERS[(within + turns) % len(MARKERS)]}


def entry(label: str, **line: Any) -> Line2D:
    """Return a legend entry for a line with these properties."""
    return Line2D([], [], label=label, **line)


def gain_label(gain: float) -> str:
    """Return the legend label of a gain; NaN is that of networks without one."""
    return "network" if np.isnan(gain) else f"$g$ = {np.round(gain, 3):g}"


def gain_entries(gains: Iterable[float], **line: Any) -> list[Artist]:
    """Return a legend entry for each gain, in the color and marker of its curve."""
    return [entry(gain_label(gain), **line, **series(index)) for index, gain in enumerate(gains)]


def label_panels(figure: Figure, axes: Iterable[Axes], offset: tuple[float, float] = (-38, 6)) -> None:
    """Put a, b, c, ... above the top left corner of each of `axes`, at an offset in points."""
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


def legend_above(figure: Figure, colors: Sequence[Artist], lines: Sequence[Artist]) -> None:
    """Put a legend above all panels: entries for colors, in columns as long as the last one, which is for lines."""
    # Matplotlib fills columns one after the other.
    padding = [entry(" ", linestyle="none")] * (-len(colors) % len(lines))
    entries = [*colors, *padding, *lines]
    figure.legend(handles=entries, loc="outside upper center", ncols=len(entries) // len(lines))


def note_below(figure: Figure, *notes: str) -> None:
    """Write notes below all panels, a line each; empty ones are skipped."""
    if any(notes):
        figure.supxlabel("\n".join(filter(None, notes)), fontsize=7, color=GREY)


def mark_empty(ax: Axes) -> None:
    """Write "no measurements" into an empty panel."""
    ax.text(0.5, 0.5, "no measurements", transform=ax.transAxes, ha="center", color=GREY)


def mark_criterion(ax: Axes, level: float = 0.05) -> None:
    """Draw a dashed line at the level of convergence, labeled on the right."""
    ax.axhline(level, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    right = ax.get_yaxis_transform()
    ax.text(1.01, level, f"{100 * level:g} %", transform=right, va="center", fontsize=7.5, color=GREY)
