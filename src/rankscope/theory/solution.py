"""What every exact theory of the linear network can be asked, once it has been reduced to the directions it visits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from rankscope.arguments import integer, number
from rankscope.errors import InputError
from rankscope.theory.reduced import (
    ReducedNetwork,
    curvature,
    descend,
    describe,
    flow,
    survives,
    taylor,
    time_of_error,
)

Array = NDArray[np.floating]

SINGULAR_VALUES = 5
FIRST_CHAIN, LONGEST_CHAIN = 8, 128
# From one learning rate to the next, looking for the first at which learning diverges.
SEARCH_STEP = 1.2


class LinearTheory(ABC):
    """A linear network that learns one number (or one for each of several inputs and outputs) from its fixed point.

    Attributes
    ----------
    target
        (q, p) z_hat for q outputs and p inputs.
    accuracy
        Relative accuracy of everything that is returned.
    """

    target: Array
    accuracy: float

    @abstractmethod
    def reduce(self, steps: int) -> ReducedNetwork:
        """Return the network on chains of at most `steps` directions."""

    @cached_property
    def reduced(self) -> ReducedNetwork:
        """The network on chains long enough for the accuracy.

        Raises
        ------
        InputError
            If no chain of reasonable length is.
        """
        steps = FIRST_CHAIN
        while steps <= LONGEST_CHAIN:
            network = self.reduce(steps)
            end = flow(network, self.target, np.array([np.inf]), self._tolerance)[0]
            if self._lost(network, end) <= 0.1 * self.accuracy:
                return network
            steps *= 2
        raise InputError(
            f"accuracy must be larger: chains of {LONGEST_CHAIN} directions do not reach {self.accuracy:g} for {self}"
        )

    def solve(self, times: ArrayLike) -> xr.Dataset:
        """Return gradient flow at these learning times.

        Parameters
        ----------
        times
            (times,) tau >= 0, increasing; infinity is the end of learning. In a network, tau is the learning rate times
            the epoch.

        Returns
        -------
        xr.Dataset
            Over `tau`: `readout`, `loss`, `singular_value` (tau, singular_index), `change_norm`, `gradient_norm`,
            `shuffled_loss` (relative to the loss before learning), `outlier` (NaN while there is none).

        Raises
        ------
        InputError
            If times are negative, not increasing or not numbers.
        """
        tau = learning_times(times)
        resolvents = flow(self.reduced, self.target, tau, self._tolerance)
        return self._described(resolvents, tau)

    def descend(self, learning_rate: float, epochs: int) -> xr.Dataset:
        """Return gradient descent in steps of a learning rate, before each of so many epochs.

        Returns
        -------
        xr.Dataset
            As `solve`, with `epoch` along `tau`. NaN once an eigenvalue of W has reached 1: learning has diverged.

        Raises
        ------
        InputError
            If the learning rate is not positive or the epochs are less than 1.
        """
        eta, count = number("learning_rate", learning_rate, above=0), integer("epochs", epochs, minimum=1)
        steps = descend(self.reduced, self.target, eta, count)
        described = self._described(steps, eta * np.arange(count, dtype=np.float64))
        return described.assign_coords(epoch=("tau", np.arange(count)))

    def taylor(self, order: int = 3) -> Array:
        """Return the Taylor coefficients of the readout at tau = 0, (order + 1,) or (order + 1, q, p)."""
        coefficients = taylor(self.reduced, self.target, integer("order", order, minimum=0))
        return coefficients[:, 0, 0] if self.target.size == 1 else coefficients

    def convergence_time(self, fraction: float = 0.05) -> float:
        """Return the learning time at which the loss is this fraction of the first one.

        Raises
        ------
        InputError
            If the fraction is not between 0 and 1.
        """
        share = number("fraction", fraction, above=0)
        if share >= 1:
            raise InputError(f"fraction must be below 1, got {fraction!r}")
        return time_of_error(self.reduced, self.target, float(np.sqrt(share)), self._tolerance)

    @cached_property
    def stable_learning_rate(self) -> float:
        """The learning rate above which gradient descent cannot settle where the flow ends: 2 / curvature there."""
        end = flow(self.reduced, self.target, np.array([np.inf]), self._tolerance)[0]
        return 2 / curvature(self.reduced, end)

    def largest_learning_rate(self, relative_error: float = 1e-2) -> float:
        """Return the learning rate from which gradient descent diverges, an eigenvalue of W reaching 1.

        It is above `stable_learning_rate`: descent that overshoots is thrown to another solution, of less curvature.
        Above it, single rates may happen to be thrown to safety, too.

        Parameters
        ----------
        relative_error
            Allowed in the answer.
        """
        ratio = 1 + number("relative_error", relative_error, above=0)
        low = high = self.stable_learning_rate
        while survives(self.reduced, self.target, high):
            low, high = high, high * SEARCH_STEP
        while not survives(self.reduced, self.target, low):
            low, high = low / SEARCH_STEP, low
        while high > low * ratio:
            middle = float(np.sqrt(low * high))
            low, high = (middle, high) if survives(self.reduced, self.target, middle) else (low, middle)
        return low

    def _described(self, resolvents: Array, tau: Array) -> xr.Dataset:
        dataset = describe(self.reduced, self.target, resolvents, SINGULAR_VALUES)
        return dataset.assign_coords(tau=("tau", tau, {"long_name": "learning time"}))

    @property
    def _tolerance(self) -> float:
        return max(1e-2 * self.accuracy, 1e-12)

    @staticmethod
    def _lost(network: ReducedNetwork, Q: Array) -> float:
        """Return the share of the directions that learning pushes along which lies at the ends of cut chains."""
        a, b = Q @ network.inputs, Q.T @ network.outputs
        rows, columns = network.open_ends
        return max(
            float(np.abs(ends @ pushed).max(initial=0) / np.linalg.norm(pushed))
            for pushed, ends in ((Q @ b, rows), (Q.T @ a, columns))
        )


def target_matrix(target: ArrayLike) -> Array:
    """Return the target as (q, p).

    Raises
    ------
    InputError
        If it is not a number or a matrix of numbers, or all of it is 0 (nothing would be learned).
    """
    try:
        matrix = np.asarray(target, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"target must be a number or a matrix of numbers, got {target!r}") from error
    if matrix.ndim not in (0, 2) or matrix.size == 0 or not np.isfinite(matrix).all():
        raise InputError(f"target must be a finite number or a matrix (outputs, inputs) of them, got {target!r}")
    if not matrix.any():
        raise InputError("target must not be 0, which the network gives before any learning")
    return matrix.reshape(matrix.shape or (1, 1))


def learning_times(times: ArrayLike) -> Array:
    """Return learning times as an array.

    Raises
    ------
    InputError
        If they are negative, not increasing or not numbers.
    """
    tau: Array = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if tau.ndim != 1 or not tau.size or np.isnan(tau).any() or tau[0] < 0 or (np.diff(tau) <= 0).any():
        raise InputError(f"times must be increasing learning times from 0 on, got {times!r}")
    return tau
