"""Base class of the exact theories: solves the reduced network in continuous time and in steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from rankscope.errors import InputError
from rankscope.theory.descent import curvature, descend, survives
from rankscope.theory.flow import CONVERGED, Path, Paths, flow, taylor
from rankscope.theory.moments import describe
from rankscope.theory.reduced import ReducedNetwork
from rankscope.validation import integer, number

Array = NDArray[np.floating]

SINGULAR_VALUES = 5
FIRST_CHAIN, LONGEST_CHAIN = 8, 128
# Range of `accuracy`: double precision offers no finer one.
FINEST, COARSEST = 1e-10, 0.1
# Relative tolerance of the integration in units of the accuracy; the steepness (`Path.steepness`) above which it is
# reduced; and the smallest tolerance that double precision supports.
TOLERANCE, STEEP, LEAST_TOLERANCE = 1e-2, 150.0, 2.5e-14
# Targets whose square and whose change are accurate in double precision.
SMALLEST_TARGET, LARGEST_TARGET = 1e-6, 1e6
# Factor between learning rates in the search for the first that diverges.
SEARCH_STEP = 1.1


class LinearTheory(ABC):
    """Theory of a linear network whose readout at the fixed point learns a target, one number or a matrix.

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

    def follow(self, network: ReducedNetwork, tolerance: float) -> Path | Paths:
        """Return gradient flow of the reduced network, integrated to this relative tolerance."""
        return flow(network, self.target, tolerance)

    @property
    def reduced(self) -> ReducedNetwork:
        """The network on chains long enough for the accuracy.

        Raises
        ------
        InputError
            If no chain of reasonable length is.
        """
        return self._flow.network

    @cached_property
    def _flow(self) -> Path | Paths:
        """Gradient flow to convergence, with chains and a tolerance fine enough for the accuracy."""
        steps = FIRST_CHAIN
        tolerance = TOLERANCE * self.accuracy
        while True:
            network = self.reduce(steps)
            rounding = np.finfo(float).eps * np.abs(network.readout).max()
            if rounding >= TOLERANCE * self.accuracy * np.linalg.norm(self.target - network.readout):
                raise InputError(f"target must differ from the readout before learning, got {self.target.tolist()}")
            path = self.follow(network, tolerance)
            if not path.feasible:
                raise InputError(f"target must be reachable by gradient flow, got {self.target.tolist()} for {self}")
            if self._lost(network, path.end) <= 0.1 * self.accuracy:
                break
            steps *= 2
            if steps > LONGEST_CHAIN:
                raise InputError(
                    f"accuracy must be larger than {self.accuracy:g}: chains of {LONGEST_CHAIN} directions do not "
                    f"reach it for {self}"
                )
        if path.steepness <= STEEP:
            return path
        tolerance *= STEEP / path.steepness
        if tolerance < LEAST_TOLERANCE:
            raise InputError(
                f"accuracy must be larger than {self.accuracy:g}: learning is too abrupt for it for {self}"
            )
        return self.follow(network, tolerance)

    def solve(self, times: ArrayLike) -> xr.Dataset:
        """Return the gradient-flow solution at the given learning times.

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
        return self._described(self._flow.at(tau), tau)

    def descend(self, learning_rate: float, epochs: int) -> xr.Dataset:
        """Return gradient descent with a learning rate, before each of `epochs` steps.

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
            If the fraction is not between 0 and 1, or below what the accuracy resolves.
        """
        time = self._flow.time_of_error(float(np.sqrt(check_fraction(fraction))))
        if time is None:
            least = (CONVERGED * TOLERANCE * self.accuracy) ** 2
            raise InputError(
                f"fraction must be at least {least:.3g} at an accuracy of {self.accuracy:g}, got {fraction!r}"
            )
        return time

    @cached_property
    def stable_learning_rate(self) -> float:
        """The learning rate above which gradient descent cannot settle where the flow ends: 2 / curvature there."""
        return 2 / curvature(self.reduced, self._flow.end)

    def largest_learning_rate(self, relative_error: float = 1e-2) -> float:
        """Return the learning rate above which gradient descent diverges because an eigenvalue of W reaches 1.

        It exceeds `stable_learning_rate`: descent that overshoots reaches another solution of smaller curvature, or
        oscillates around the target. The boundary is not sharp: close to it single rates below diverge and single rates
        above converge.

        Parameters
        ----------
        relative_error
            Relative error allowed in the result.

        Raises
        ------
        InputError
            If the relative error is not positive.
        """
        ratio = 1 + number("relative_error", relative_error, above=0)
        low = high = float(self.stable_learning_rate)
        while survives(self.reduced, self.target, high):
            low, high = high, high * SEARCH_STEP
        while not survives(self.reduced, self.target, low):
            low, high = low / SEARCH_STEP, low
        while high > low * ratio:
            middle = float(np.sqrt(low * high))
            low, high = (middle, high) if survives(self.reduced, self.target, middle) else (low, middle)
        return low

    def _described(self, changes: Array, tau: Array) -> xr.Dataset:
        dataset = describe(self.reduced, self.target, changes, SINGULAR_VALUES)
        return dataset.assign_coords(tau=("tau", tau, {"long_name": "learning time"}))

    @staticmethod
    def _lost(network: ReducedNetwork, Q: Array) -> float:
        """Return the share of the gradient directions that lies at the ends of truncated chains."""
        a, b = Q @ network.inputs, Q.T @ network.outputs
        rows, columns = network.open_ends
        return max(
            float(np.abs(ends @ pushed).max(initial=0) / np.linalg.norm(pushed))
            for pushed, ends in ((Q @ b, rows), (Q.T @ a, columns))
        )


def check_accuracy(accuracy: float) -> float:
    """Return a relative accuracy, or raise `InputError` if it is outside `FINEST` to `COARSEST`."""
    return number("accuracy", accuracy, minimum=FINEST, maximum=COARSEST)


def check_fraction(fraction: float) -> float:
    """Return a fraction of the first loss, or raise `InputError` if it is not between 0 and 1."""
    share = number("fraction", fraction, above=0)
    if share >= 1:
        raise InputError(f"fraction must be below 1, got {fraction!r}")
    return share


def target_matrix(target: ArrayLike) -> Array:
    """Return the target as (q, p).

    Raises
    ------
    InputError
        If it is not a number or a matrix of numbers, is all 0 (nothing to learn), or is too small or too large for
        double precision.
    """
    matrix = reals("target", target, "a number or a matrix (outputs, inputs) of numbers")
    if matrix.ndim not in (0, 2) or matrix.size == 0 or not np.isfinite(matrix).all():
        raise InputError(f"target must be a finite number or a matrix (outputs, inputs) of them, got {target!r}")
    size = np.abs(matrix).max()
    if size == 0:
        raise InputError(f"target must not be 0, the readout before learning, got {target!r}")
    if not SMALLEST_TARGET <= size <= LARGEST_TARGET:
        raise InputError(f"target must be between {SMALLEST_TARGET:g} and {LARGEST_TARGET:g} in size, got {target!r}")
    return matrix.reshape(matrix.shape or (1, 1))


def learning_times(times: ArrayLike) -> Array:
    """Return learning times as an array.

    Raises
    ------
    InputError
        If they are negative, not increasing or not numbers.
    """
    tau = np.atleast_1d(reals("times", times, "increasing learning times from 0 on"))
    if tau.ndim != 1 or not tau.size or np.isnan(tau).any() or tau[0] < 0 or (tau[1:] <= tau[:-1]).any():
        raise InputError(f"times must be increasing learning times from 0 on, got {times!r}")
    return tau


def reals(name: str, values: ArrayLike, expected: str) -> Array:
    """Return an array of real numbers in double precision, or raise `InputError` for text, bool and complex."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} must be {expected}, got {values!r}")
    return array.astype(np.float64)
