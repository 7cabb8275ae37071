"""Loss over epochs, singular values, truncation curve, and eigenvalues, on matplotlib axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.plot.style import COLORS, GREY, mark_criterion

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_VALUES = 25
POINT: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 2.3, "markeredgewidth": 0}


def loss(history: Any, ax: Axes | None = None, *, relative: bool = False, **line: Any) -> Axes:
    """Plot the loss of each epoch on a logarithmic axis.

    Parameters
    ----------
    history
        A `History`, or losses.
    ax
        Axes to draw into; by default those of a new figure.
    relative : bool
        Whether to divide by the first loss.
    line
        Properties of the line, as of `Axes.plot`.
    """
    losses = _vector("history", getattr(history, "losses", history))
    ax = new_axes() if ax is None else ax
    shown = losses / losses[0] if relative and losses.size else losses
    ax.semilogy(np.arange(losses.size), shown, **{"linewidth": 1.0, **line})
    ax.set(xlabel="epoch", ylabel="loss / initial loss" if relative else "loss")
    validation = getattr(history, "validation_losses", np.empty(0))
    if np.isfinite(validation).any():
        epochs = np.flatnonzero(np.isfinite(validation))
        ax.plot(epochs, validation[epochs], color=GREY, linewidth=0.9, linestyle="--", label="validation")
        ax.legend()
    ax.margins(x=0.02)
    return ax


def singular_values(change: Any, ax: Axes | None = None, *, most: int = MOST_VALUES, **line: Any) -> Axes:
    """Plot the largest singular values of a change, or of any matrix whose singular values are given.

    Parameters
    ----------
    change
        A `Change`, or singular values, largest first.
    ax
        Axes to draw into; by default those of a new figure.
    most : int
        Number of values at most.
    line
        Properties of the line, as of `Axes.plot`.
    """
    values = _vector("change", getattr(change, "singular_values", change))[:most]
    ax = new_axes() if ax is None else ax
    ax.plot(np.arange(1, values.size + 1), values, **{"marker": "o", "markersize": 3.5, "linewidth": 0.9, **line})
    ax.set(xlabel="index of the singular value", ylabel=r"singular value of $\Delta W$")
    ax.set_ylim(0, 1.05 * max(float(ax.dataLim.y1), 1e-12))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return ax


def truncation(
    curve: Any, ax: Axes | None = None, *, rank: float | None = None, criterion: float | None = 0.05, **line: Any
) -> Axes:
    """Plot the score of a network against the rank of its truncated change.

    A loss is drawn relative to that at the lowest rank, on a logarithmic axis.

    Parameters
    ----------
    curve
        A `TruncationCurve`.
    ax
        Axes to draw into; by default those of a new figure.
    rank
        The functional rank, which gets a ring.
    criterion
        Relative loss that is marked by a line; None for no line.
    line
        Properties of the line, as of `Axes.plot`.
    """
    ranks, scores = (_vector("curve", getattr(curve, name)) for name in ("ranks", "scores"))
    ax = new_axes() if ax is None else ax
    style = {"color": COLORS[0], "marker": "o", "markersize": 3.5, "linewidth": 0.9, **line}
    if curve.higher_is_better:
        ax.plot(ranks, scores, **style)
        ax.axhline(curve.full, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
        ax.set(ylabel="score")
    else:
        scores = scores / scores[0]
        ax.semilogy(ranks, scores, **style)
        if criterion is not None:
            mark_criterion(ax, criterion)
        ax.set(ylabel=f"loss / loss at rank {ranks[0]:g}")
    if rank is not None and rank in ranks:
        ring = {"marker": "o", "markersize": 9, "color": style["color"], "markerfacecolor": "none"}
        ax.plot([rank], [scores[np.flatnonzero(ranks == rank)[0]]], **ring)
    ax.set(xlabel=r"rank of the truncated $\Delta W$")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return ax


def spectrum(
    matrix: Any, ax: Axes | None = None, *, radius: float | None = None, limit: float | None = None, **point: Any
) -> Axes:
    """Plot the eigenvalues of a matrix in the complex plane, with a line at real part 1.

    Parameters
    ----------
    matrix
        A square matrix, or its eigenvalues.
    ax
        Axes to draw into; by default those of a new figure.
    radius
        Of a circle, such as the gain g for the spectrum of W0.
    limit
        Of both axes; eigenvalues beyond are counted. By default all are shown.
    point
        Properties of the points, as of `Axes.plot`.
    """
    values = matrix.detach().cpu().numpy() if hasattr(matrix, "detach") else np.asarray(matrix)
    if values.ndim == 2:
        if values.shape[0] != values.shape[1]:
            raise InputError(f"matrix must be square, or eigenvalues, got the shape {values.shape}")
        values = np.linalg.eigvals(values)
    ax = new_axes() if ax is None else ax
    ax.axvline(1, zorder=3, color="black", linewidth=0.8, linestyle=":")
    if radius is not None and np.isfinite(radius):
        ax.add_patch(Circle((0, 0), radius, fill=False, edgecolor=GREY, linewidth=0.9, zorder=3))
    ax.plot(values.real, values.imag, **POINT | point)
    if limit is None:
        found = np.abs([values.real, values.imag])
        limit = 1.08 * float(found[np.isfinite(found)].max(initial=max(1.0, radius or 0.0)))
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    ax.set(xlabel=r"Re $\lambda$", ylabel=r"Im $\lambda$")
    outside = int(np.sum((np.abs(values.real) > limit) | (np.abs(values.imag) > limit)))
    if outside:
        ax.text(0.03, 0.97, f"{outside} outside", transform=ax.transAxes, va="top", fontsize=7)
    return ax


def new_axes(size: tuple[float, float] = (3.6, 2.7)) -> Axes:
    """Return the axes of a new figure of pyplot, which a notebook shows."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def _vector(name: str, values: Any) -> NDArray[np.float64]:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1:
        raise InputError(f"{name} must hold one number after the other, got the shape {vector.shape}")
    return vector
