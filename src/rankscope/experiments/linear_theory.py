"""Theory curves for the networks of a linear run: at their learning rate over epochs, or of gradient flow over g."""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from rankscope.experiments.averages import was_trained
from rankscope.theory import InfiniteWidth, ThirdOrder

Array = NDArray[np.float64]

ACCURACY = 1e-5  # relative, of the theory
MARGIN = 1.35  # of time, beyond the last convergence
GAIN_POINTS = 21
MAX_GAIN = 0.99  # at 1 the linear network is unstable
GRADIENT_TIMES = 100  # at which the gradient norm is averaged


class Condition:
    """The networks of one gain and one target, and both theories at their learning rate.

    Attributes
    ----------
    networks
        Measurements along `sample`.
    diverged
        For each network, whether it diverged.
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
    def empty(self) -> bool:
        """Whether the run has no networks here."""
        return not self.networks.sizes["sample"]

    @property
    def finite(self) -> xr.Dataset:
        """The networks that did not diverge."""
        return self.networks.isel(sample=~self.diverged)

    def effective_time(self, epoch: ArrayLike) -> Array:
        """Return beta^2 tau, with tau = learning rate * epoch and beta = 1 / (1 - g^2)."""
        return np.asarray(epoch, dtype=np.float64) * self._rate / (1 - self.gain**2) ** 2

    @property
    def shown_time(self) -> float:
        """The effective time until shortly after the last network converges, or of all epochs; 0 without networks."""
        if self.empty:
            return 0.0
        epochs = self.finite["convergence_epoch"].values
        last = MARGIN * np.nanmax(epochs) if np.isfinite(epochs).any() else np.inf
        return float(self.effective_time(min(last, self._epochs - 1)))

    @cached_property
    def exact(self) -> xr.Dataset | None:
        """Gradient descent in the theory of infinite width, over `epoch`; None if there is nothing to solve."""
        if not self._solvable:
            return None
        return _descent(self.gain, self.target, self._rate, self._epochs).swap_dims(tau="epoch")

    @cached_property
    def expansion(self) -> xr.Dataset | None:
        """The paper's expansion to third order, over `epoch`; None if there is nothing to solve."""
        if not self._solvable:
            return None
        epochs = np.arange(self._epochs)
        solved = ThirdOrder(self.gain, self.target).solve(self._rate * epochs)
        return solved.assign_coords(epoch=("tau", epochs)).swap_dims(tau="epoch")

    @property
    def _solvable(self) -> bool:
        return not self.empty and 0 <= self.gain < 1 and self.target != 0

    def measured(self, index: int | None) -> tuple[Array, xr.DataArray]:
        """Return epochs, and the loss (index None) or a singular value of dW of the networks that did not diverge."""
        networks = self.finite
        if index is None:
            return networks["epoch"].values, networks["loss"]
        epochs = networks["recorded_epoch"].fillna(0)
        if "sample" in epochs.dims:
            epochs = epochs.max("sample")  # networks that stopped early lack the last records
        return epochs.values, networks["singular_value_history"].sel(leading_index=index, drop=True)


def exact_over_gain(target: float, until: float) -> xr.Dataset:
    """Return gradient flow in the theory of infinite width over `gain`, from 0 to `until` (0.99 at most).

    Returns
    -------
    xr.Dataset
        `convergence_time`, `change_norm` and `shuffled_loss` at the end of learning, and `average_gradient`, the mean
        gradient norm until convergence.
    """
    return _over_gain(target, until, GAIN_POINTS).copy(deep=True)


@lru_cache(maxsize=32)
def _over_gain(target: float, until: float, points: int) -> xr.Dataset:
    # Denser near the largest gain, where the curves bend.
    gains = np.unique(min(until, MAX_GAIN) * np.sin(np.linspace(0, np.pi / 2, points)))
    names = ("convergence_time", "change_norm", "shuffled_loss", "average_gradient")
    rows = []
    for gain in gains:
        theory = InfiniteWidth(float(gain), target, ACCURACY)
        converged = theory.convergence_time()
        # Denser near convergence, where the gradient rises and falls.
        times = converged * (1 - np.linspace(1, 0, GRADIENT_TIMES) ** 3)
        solved = theory.solve([*times, np.inf])
        end = solved.isel(tau=-1)
        gradient = np.trapezoid(solved["gradient_norm"][:-1], times) / converged
        rows.append([converged, float(end["change_norm"]), float(end["shuffled_loss"]), float(gradient)])
    return xr.Dataset(
        {name: ("gain", column) for name, column in zip(names, np.transpose(rows), strict=True)}, {"gain": gains}
    )


# Figures and claims of one run need the same curves.
@lru_cache(maxsize=128)
def _descent(gain: float, target: float, rate: float, epochs: int) -> xr.Dataset:
    return InfiniteWidth(gain, target, ACCURACY).descend(rate, epochs)
