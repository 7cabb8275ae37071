"""Means over the converged samples, and how a curve of them is drawn.

A network that did not converge has no convergence time, and its change is not the change that solves the task: it
stays out of the mean. So that nobody takes it for absent or for 0, the marker of a mean over some of the samples is
open, and where no sample is left an open marker with their number sits above the axes. Curves stand a little beside
each other, on paper only, so that their error bars do not cover each other.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from rankscope.figures.selection import was_trained
from rankscope.figures.style import QUIET, look

MARKER_SIZE = 4.5
ROW_HEIGHT = 15.0  # points, of a marker above the axes and its number
DODGE = 1.5  # points between two curves
NOTE = "open marker: mean over only some of the samples\nabove the axes, 0/n: none of n samples converged"
NOTE_RANK = NOTE + " (in the last panels: or has a functional rank)"
LABELS = {
    "convergence_epoch": "convergence time\n(epochs)",
    "change_norm": "norm of the change\n" + r"$\|\Delta W\|$",
    "trained_norm": "norm after learning\n" + r"$\|W\|$",
    "shuffled_loss": "loss after shuffle\n/ initial loss",
    "functional_rank": "functional rank",
}
LOGARITHMIC = ("convergence_epoch", "trained_norm")


def over_converged(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """Return the mean and the standard deviation of a variable over the converged samples.

    Parameters
    ----------
    dataset
        With `name`, `convergence_epoch` and `status` along `sample`.

    Returns
    -------
    xr.Dataset
        `mean`; `std`, with n - 1 in the denominator, NaN for a single sample; `count`, the samples that the mean is
        over: converged, with a finite value; `total`, the samples that were trained.
    """
    values = dataset[name].where(dataset["convergence_epoch"].notnull())
    return mean_and_std(values).assign(total=was_trained(dataset).sum("sample"))


def mean_and_std(values: xr.DataArray) -> xr.Dataset:
    """Return `mean`, `std` (with n - 1 in the denominator, NaN for a single value) and `count` of the finite values.

    They are over `sample`; where none is left, mean and deviation are NaN.
    """
    finite = values.where(np.isfinite(values))
    count = finite.notnull().sum("sample")
    mean = finite.sum("sample") / count.where(count > 0)
    std = np.sqrt(((finite - mean) ** 2).sum("sample") / (count - 1).where(count > 1))
    return xr.Dataset({"mean": mean, "std": std, "count": count})


def draw_averages(ax: Axes, dim: str, curves: dict[str, xr.Dataset], joined: bool = True) -> dict[str, Line2D]:
    """Draw means with their standard deviations against the coordinate `dim`, one curve an entry.

    Parameters
    ----------
    curves
        By label, what `over_converged` returns, along `dim` alone. The position gives the look.
    joined
        Whether by lines; not where a theory is the line.

    Returns
    -------
    What to put into a legend, by label.
    """
    rows: dict[float, int] = {}
    handles = {}
    for index, (label, curve) in enumerate(curves.items()):
        aside = DODGE * (index - (len(curves) - 1) / 2)
        handles[label] = _draw_curve(ax, dim, curve.isel({dim: curve["total"].values > 0}), index, aside, joined)
        for x, total in _none_left(dim, curve):
            row = rows[x] = rows.get(x, -1) + 1
            _mark_above(ax, x, f"0/{total}", index, row)
    return handles


def scale_averages(ax: Axes, name: str) -> None:
    """Give the vertical axis the scale, limits and ticks that suit the variable `name`, once all is drawn."""
    together = ax.get_shared_y_axes().get_siblings(ax)
    if not any(np.isfinite(one.dataLim.minposy) for one in together):
        ax.set(ylim=(0, 1), yticks=[])  # no sample is left anywhere, and nothing to scale to
        return
    if name in LOGARITHMIC:
        ax.set_yscale("log", nonpositive="clip")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        ax.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        ax.set_ylim(bottom=0)
    if name == "functional_rank":
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))


def rows_above(dim: str, curves: dict[str, xr.Dataset]) -> int:
    """Return how many markers `draw_averages` stacks above the axes at most."""
    places = [x for curve in curves.values() for x, _ in _none_left(dim, curve)]
    return max((places.count(x) for x in places), default=0)


def explain(figure: Figure, averages: dict[str, xr.Dataset], handles: dict[str, Line2D]) -> None:
    """Put the legend above all panels and, if a sample is missing from any mean, below them what that looks like."""
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(len(handles), 6))
    short = [name for name, curves in averages.items() if bool((curves["count"] < curves["total"]).any())]
    if short:
        figure.supxlabel(NOTE_RANK if "functional_rank" in short else NOTE, fontsize=7, color=QUIET)


def _none_left(dim: str, curve: xr.Dataset) -> list[tuple[float, int]]:
    lost = curve.isel({dim: ((curve["total"] > 0) & (curve["count"] == 0)).values})
    return [(float(x), int(total)) for x, total in zip(lost[dim].values, lost["total"].values, strict=True)]


def _draw_curve(ax: Axes, dim: str, curve: xr.Dataset, index: int, aside: float, joined: bool) -> Line2D:
    style = {"markersize": MARKER_SIZE, **look(index)}
    x, mean = curve[dim].values.astype(float), curve["mean"].values
    join = "-" if joined else "none"
    drawn = ax.errorbar(
        x, mean, yerr=curve["std"].values, linestyle=join, linewidth=1.1, elinewidth=0.8, zorder=2, **style
    )
    some = (curve["count"] > 0) & (curve["count"] < curve["total"])
    (partial,) = ax.plot(x, np.where(some, mean, np.nan), linestyle="none", zorder=2.1, **style)
    partial.set_markerfacecolor("white")
    line: Line2D = drawn.lines[0]
    for artist in (line, partial, *drawn.lines[2]):
        # Only now, so that the limits of the axes are those of the numbers.
        artist.set_transform(ax.transData + _shift(ax, aside, 0))
    return line


def _mark_above(ax: Axes, x: float, text: str, index: int, row: int) -> None:
    place = ax.get_xaxis_transform() + _shift(ax, 0, row * ROW_HEIGHT)
    style = {"markersize": MARKER_SIZE, "markerfacecolor": "white", **look(index)}
    ax.plot([x], [1], linestyle="none", transform=place, clip_on=False, zorder=4, **style)
    ax.annotate(
        text,
        xy=(x, 1),
        xycoords=place,
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        fontsize=7,
        color=look(index)["color"],
        annotation_clip=False,
    )


def _shift(ax: Axes, right: float, up: float) -> ScaledTranslation:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return ScaledTranslation(right / 72, up / 72, figure.dpi_scale_trans)
