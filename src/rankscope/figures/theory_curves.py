"""Networks and what two theories say of them, drawn alike in every figure of the linear experiments.

Networks are points with an error bar: the mean and the standard deviation over the samples. Theories are lines: dashed
the paper's expansion, solid and thin the exact theory of infinitely many units. Where it is drawn over learning, the
exact one takes the very steps of the networks (`descend`). While they are short that is hardly different from gradient
flow; for a large target and a large g they are not, and it is the steps that decide whether learning settles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from rankscope.errors import InputError
from rankscope.figures.averages import mean_and_std
from rankscope.figures.selection import networks_of, trained_along, was_trained
from rankscope.figures.style import INK, QUIET, gain_label, legend_above
from rankscope.theory import InfiniteWidth, ThirdOrder

Array = NDArray[np.float64]

EXACT: dict[str, Any] = {"linewidth": 0.9}
PAPER: dict[str, Any] = {"linewidth": 1.1, "linestyle": (0, (4, 2))}
NETWORKS: dict[str, Any] = {"linestyle": "none", "markersize": 3.5, "markeredgewidth": 0}
EXACT_LABEL = "exact, infinite width, in the same steps"
PAPER_LABEL = "paper, third order (frozen at the target)"
TIME_LABEL = r"effective learning time $\beta^2\tau$"
DRAWN = ("loss", "singular_value_history", "recorded_epoch", "convergence_epoch", "learning_rate")
ACCURACY = 1e-5  # of the theory, relative
POINTS = 14  # along a curve
MARGIN = 1.35  # of time, beyond the last convergence


def read_places(
    dataset: xr.Dataset, experiment: str, gains: Iterable[float], targets: Iterable[float]
) -> dict[float, dict[float, Place]]:
    """Return the places of a run of linear networks by target and, among those, by gain, both increasing.

    Parameters
    ----------
    gains, targets
        Preferred ones; of many in the run the nearest are taken. Gains are below 1.

    Raises
    ------
    InputError
        If the dataset is of another experiment than `linear`, or no gain is below 1.
    """
    run = networks_of(dataset, experiment, "fixed_point", DRAWN, ("gain", "target", "sample"))
    there = trained_along(run, "gain")
    chosen_gains = _nearest(there[there < 1], gains)
    if not chosen_gains:
        raise InputError(f"dataset must hold a gain below 1, where linear networks rest, got {there.min():g} or more")
    chosen_targets = _nearest(trained_along(run, "target"), targets)
    # Only what is drawn is read.
    run = run.sel(gain=chosen_gains, target=chosen_targets).compute()
    return {target: {gain: Place(run, gain, target) for gain in chosen_gains} for target in chosen_targets}


class Place:
    """The networks of one gain and one target, and what the theories say of them, epoch by epoch.

    Attributes
    ----------
    networks
        Along `sample`.
    diverged
        Which of them did.
    """

    def __init__(self, run: xr.Dataset, gain: float, target: float) -> None:
        self.gain, self.target = gain, target
        networks = run.sel(gain=gain, target=target)
        self.networks = networks.isel(sample=was_trained(networks).values)
        self.diverged = np.asarray(self.networks["status"] == "diverged")
        rates = self.networks["learning_rate"].values.ravel()
        self._rate = float(rates[0]) if rates.size else np.nan
        self._epochs = networks.sizes["epoch"]

    @property
    def lasting(self) -> xr.Dataset:
        """The networks that did not diverge."""
        return self.networks.isel(sample=~self.diverged)

    def __str__(self) -> str:
        return f"{gain_label(self.gain)}, {target_label(self.target)}"

    def effective_time(self, epoch: ArrayLike) -> Array:
        """Return beta^2 tau, with tau = learning rate * epoch and beta = 1 / (1 - g^2)."""
        return np.asarray(epoch, dtype=np.float64) * self._rate / (1 - self.gain**2) ** 2

    @property
    def interesting(self) -> float:
        """The effective learning time until a little after the last network has converged, or the whole; 0 of none."""
        if not self.networks.sizes["sample"]:
            return 0.0
        epochs = self.lasting["convergence_epoch"].values
        last = MARGIN * np.nanmax(epochs) if np.isfinite(epochs).any() else np.inf
        return float(self.effective_time(min(last, self._epochs - 1)))

    @cached_property
    def exact(self) -> xr.Dataset | None:
        """The theory of infinite width over `epoch`, in the networks' steps; None where there is nothing to solve."""
        if not self._has_theory:
            return None
        solved = InfiniteWidth(self.gain, self.target, ACCURACY).descend(self._rate, self._epochs)
        return solved.swap_dims(tau="epoch")

    @cached_property
    def expansion(self) -> xr.Dataset | None:
        """The paper's theory over `epoch`; None where there is nothing to solve."""
        if not self._has_theory:
            return None
        epochs = np.arange(self._epochs)
        solved = ThirdOrder(self.gain, self.target).solve(self._rate * epochs)
        return solved.assign_coords(epoch=("tau", epochs)).swap_dims(tau="epoch")

    @property
    def _has_theory(self) -> bool:
        return self.networks.sizes["sample"] > 0 and 0 <= self.gain < 1 and self.target != 0

    def measured(self, index: int | None) -> tuple[Array, xr.DataArray]:
        """Return epochs, and there the loss (None) or a singular value of dW of the networks that did not diverge."""
        networks = self.lasting
        if index is None:
            return networks["epoch"].values, networks["loss"]
        epochs = networks["recorded_epoch"].fillna(0)
        if "sample" in epochs.dims:
            epochs = epochs.max("sample")  # those that stopped early lack the last
        return epochs.values, networks["singular_value_history"].sel(leading_index=index, drop=True)


def draw_place(
    ax: Axes,
    place: Place,
    index: int | None,
    appearance: dict[str, Any],
    until: float,
    *,
    shift: float = 0.0,
    logarithmic: bool = False,
) -> None:
    """Draw networks and theories of a place over effective learning time.

    Parameters
    ----------
    index
        Of the singular value of dW to draw; None for the loss.
    appearance
        Color and marker.
    until
        The last effective learning time that is shown.
    shift
        Of the points along the curve, in units of their distance, so that those of curves that coincide do not.
    logarithmic
        Whether mean and deviation are those of the logarithm.
    """
    until *= 1 + 1e-9  # times are products of decimals
    for solved, line in ((place.expansion, PAPER), (place.exact, EXACT)):
        if solved is not None and (index is None or index in solved["singular_index"]):
            curve = solved["loss"] if index is None else solved["singular_value"].sel(singular_index=index)
            x = place.effective_time(solved["epoch"])
            shown = (x <= until) & ((curve.values > 0) | (not logarithmic))
            ax.plot(x[shown], curve[shown], color=appearance["color"], **line)
    if not place.lasting.sizes["sample"] or (index is not None and index not in place.lasting["leading_index"]):
        return
    epochs, values = place.measured(index)
    x = place.effective_time(epochs)
    points = mean_and_std(xr.apply_ufunc(np.log, values.where(values > 0)) if logarithmic else values)
    known = np.flatnonzero((points["count"] > 0).values & (x <= until))
    if not known.size:
        return
    apart = (known.size - 1) / POINTS
    at = known[np.unique((apart * (np.arange(POINTS) + shift)).round().astype(int))]
    mean, std = points["mean"].values[at], np.nan_to_num(points["std"].values[at])
    if logarithmic:
        mean, bars = np.exp(mean), np.exp(mean) * [1 - np.exp(-std), np.exp(std) - 1]
    else:
        bars = np.array([std, std])
    ax.errorbar(x[at], mean, yerr=bars, elinewidth=0.7, **NETWORKS, **appearance)


def explain_theories(figure: Figure, first: Sequence[Artist], places: Iterable[Place], networks: str) -> None:
    """Put the legend above all panels, and below them which networks are left out.

    Parameters
    ----------
    first
        Entries before those of networks and theories.
    places
        All that are drawn.
    networks
        What their points are.
    """
    kinds = [
        Line2D([], [], color=INK, marker="o", label=networks, **NETWORKS),
        Line2D([], [], color=INK, label=EXACT_LABEL, **EXACT),
        Line2D([], [], color=INK, label=PAPER_LABEL, **PAPER),
    ]
    legend_above(figure, first, kinds)
    lost = [f"{place.diverged.sum()} of {place.diverged.size} at {place}" for place in places if place.diverged.any()]
    if lost:
        figure.supxlabel("diverged, and left out: " + "; ".join(lost), fontsize=7, color=QUIET)


def target_label(target: float) -> str:
    """Return a target as a title gives it."""
    return rf"$\hat z$ = {target:g}"


def _nearest(values: Array, preferred: Iterable[float]) -> list[float]:
    """Return those of the values that are nearest to the preferred ones, in their order; all if they are no more."""
    wanted = list(preferred)
    if len(values) <= len(wanted):
        return [float(value) for value in values]
    nearest = {int(np.abs(values - one).argmin()) for one in wanted}
    return [float(values[at]) for at in sorted(nearest)]
