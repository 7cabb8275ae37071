"""Draw means over the converged samples, with standard deviations, against a label of the networks.

The marker of a mean over only some of the samples is open. If no sample converged, an open marker with "0/n" is drawn
above the axes. Curves are displaced by a few points on paper so that their error bars do not overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from rankscope.figures.labels import QUANTITIES, Quantity
from rankscope.plot.style import note_below, series

MARKER_SIZE = 4.5
ROW_HEIGHT = 15.0  # points, of a marker above the axes with its text
TOP = 1.06  # of an axis from 0, relative to the largest value, so that its marker is not cut
DISPLACEMENT = 1.5  # points between two curves
NOTE = "open marker: mean over only some of the samples\n0/n above the axes: none of n samples converged"
NOTE_RANK = NOTE + " (or none has a functional rank)"


def draw_averages(ax: Axes, dim: str, curves: dict[str, xr.Dataset], joined: bool = True) -> dict[str, Line2D]:
    """Draw means with their standard deviations against the coordinate `dim`.

    Parameters
    ----------
    curves
        Label -> result of `over_converged` along `dim`; the position in the dictionary sets color and marker.
    joined
        Whether means are joined by lines.

    Returns
    -------
    Legend handles by label.
    """
    rows: dict[float, int] = {}
    handles = {}
    for index, (label, curve) in enumerate(curves.items()):
        shift = DISPLACEMENT * (index - (len(curves) - 1) / 2)
        handles[label] = _draw_curve(ax, dim, curve.isel({dim: curve["total"].values > 0}), index, shift, joined)
        for x, total in _without_any(dim, curve):
            row = rows[x] = rows.get(x, -1) + 1
            _mark_above(ax, x, f"0/{total}", index, row)
    return handles


def scale_averages(ax: Axes, name: str) -> None:
    """Set scale, limits and ticks of the vertical axis for the quantity `name`, after everything is drawn."""
    shared = ax.get_shared_y_axes().get_siblings(ax)
    if not any(np.isfinite(one.dataLim.minposy) for one in shared):
        ax.set(ylim=(0, 1), yticks=[])
        return
    quantity = QUANTITIES.get(name, Quantity(name))
    if quantity.log:
        ax.set_yscale("log", nonpositive="clip")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        ax.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        if min(float(one.dataLim.y0) for one in shared) >= 0:
            largest = max(float(one.dataLim.y1) for one in shared)
            ax.set_ylim(0, max(ax.get_ylim()[1], TOP * largest))
        if quantity.integer:
            ax.yaxis.set_major_locator(MaxNLocator(integer=True))


def rows_above(dim: str, curves: dict[str, xr.Dataset]) -> int:
    """Return the largest number of markers that `draw_averages` stacks above the axes."""
    places = [x for curve in curves.values() for x, _ in _without_any(dim, curve)]
    return max((places.count(x) for x in places), default=0)


def explain_averages(figure: Figure, averages: dict[str, xr.Dataset], handles: dict[str, Line2D], *notes: str) -> None:
    """Put the legend above all panels, and below them notes, with one on open markers if samples are missing."""
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(len(handles), 6))
    over = {curves.attrs.get("over", "") for curves in averages.values() if bool((curves["total"] > 1).any())} - {""}
    means = "; ".join(f"means and standard deviations over {samples}" for samples in sorted(over))
    partial = [name for name, curves in averages.items() if bool((curves["count"] < curves["total"]).any())]
    note_below(figure, means, (NOTE_RANK if "functional_rank" in partial else NOTE) if partial else "", *notes)


def _without_any(dim: str, curve: xr.Dataset) -> list[tuple[float, int]]:
    """Return position and number of samples wherever none of them has a value."""
    lost = curve.isel({dim: ((curve["total"] > 0) & (curve["count"] == 0)).values})
    return [(float(x), int(total)) for x, total in zip(lost[dim].values, lost["total"].values, strict=True)]


def _draw_curve(ax: Axes, dim: str, curve: xr.Dataset, index: int, shift: float, joined: bool) -> Line2D:
    style = {"markersize": MARKER_SIZE, **series(index)}
    x, mean = curve[dim].values.astype(float), curve["mean"].values
    line: dict[str, Any] = {"linestyle": "-" if joined else "none", "linewidth": 1.1, "elinewidth": 0.8, "zorder": 2}
    drawn = ax.errorbar(x, mean, yerr=curve["std"].values, **line, **style)
    some = (curve["count"] > 0) & (curve["count"] < curve["total"])
    (partial,) = ax.plot(x, np.where(some, mean, np.nan), linestyle="none", zorder=2.1, **style)
    partial.set_markerfacecolor("white")
    curve_line: Line2D = drawn.lines[0]
    for artist in (curve_line, partial, *drawn.lines[2]):
        # Shifted only now, so that the limits of the axes follow the numbers.
        artist.set_transform(ax.transData + _offset(ax, shift, 0))
    return curve_line


def _mark_above(ax: Axes, x: float, text: str, index: int, row: int) -> None:
    place = ax.get_xaxis_transform() + _offset(ax, 0, row * ROW_HEIGHT)
    style = {"markersize": MARKER_SIZE, "markerfacecolor": "white", **series(index)}
    ax.plot([x], [1], linestyle="none", transform=place, clip_on=False, zorder=4, **style)
    ax.annotate(
        text,
        xy=(x, 1),
        xycoords=place,
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        fontsize=7,
        color=style["color"],
        annotation_clip=False,
    )


def _offset(ax: Axes, right: float, up: float) -> ScaledTranslation:
    """Return a translation in points."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return ScaledTranslation(right / 72, up / 72, figure.dpi_scale_trans)
