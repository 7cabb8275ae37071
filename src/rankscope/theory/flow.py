"""Gradient flow of the reduced linear network, until convergence.

The flow closes on Q, the resolvent between the directions of learning,

    dQ/dtau = Q Q^T w (z_hat - z)/(p q) (Q^T Q m)^T         for p inputs m and q outputs w,

and is integrated over u, the number of e-folds by which the error has decreased, in which it is neither explosive at
the start nor stiff at the end. Derivation: docs/guides/theory.md, "Solution to convergence".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize.elementwise import find_root

from rankscope.theory.reduced import Array, ReducedNetwork

# Learning is over when the error relative to the first one is this many times the tolerance of the integration.
CONVERGED = 10.0
# The integration stops after this many e-folds of the error (about thirty suffice), or this multiple of the initial
# time scale: a target that needs longer would make R singular.
LONGEST_PATH, LONGEST_TIME = 100.0, 1e12


@dataclass(frozen=True, eq=False)
class Path:
    """Integrated gradient flow of a network.

    Attributes
    ----------
    network, target
        The reduced network and its (q, p) target z_hat.
    folds, clock
        (steps,) e-folds u of the error, and the learning time tau at each of them.
    interpolate
        u -> change of Q and, in the last row, tau; (entries + 1, u).
    arrived
        Whether the error has vanished at the end.
    """

    network: ReducedNetwork
    target: Array
    folds: Array
    clock: Array
    interpolate: Callable[[Array], Array]
    arrived: bool

    def at(self, times: Array) -> Array:
        """Return the change of Q at learning times, (times, columns, rows); infinity is the end."""
        u = np.where(times == 0, 0, self.folds[-1])
        inside = (times > 0) & (times < self.clock[-1])
        if inside.any():
            right = np.searchsorted(self.clock, times[inside])
            bracket = (self.folds[right - 1], self.folds[right])
            u[inside] = find_root(lambda u, tau: self.interpolate(u)[-1] - tau, bracket, args=(times[inside],)).x
        return self._changes(u)

    @property
    def end(self) -> Array:
        """Q at the end, (rows, columns)."""
        end: Array = self.network.resolvent + self._changes(self.folds[-1:])[0]
        return end

    def time_of_error(self, fraction: float) -> float | None:
        """Return the learning time at which the error is this fraction of the first one, or None if it never is."""
        first = np.linalg.norm(self.target - self.network.readout)

        def beyond(u: Array) -> Array:
            left = self.target - self.network.readout - self.network.outputs.T @ self._changes(u) @ self.network.inputs
            size: Array = np.linalg.norm(left, axis=(1, 2)) / first - fraction
            return size

        if beyond(self.folds[-1:])[0] > 0:
            return None
        u = find_root(beyond, (self.folds[:1], self.folds[-1:])).x
        return float(self.interpolate(u)[-1, 0])

    @property
    def feasible(self) -> bool:
        """Whether the target is reached with an invertible Q, which gradient flow cannot make singular in finite time.

        For example, with m = w and a symmetric W0 the readout cannot change its sign.
        """
        signs, _ = np.linalg.slogdet(self.network.resolvent + self._changes(self.folds))
        return self.arrived and bool((signs == signs[0]).all())

    @cached_property
    def steepness(self) -> float:
        """Factor by which an error of tau is amplified in the gradient norm, both relative to their largest values.

        Large targets are learned abruptly after a long plateau.
        """
        Q = self.network.resolvent + self._changes(self.folds)
        a, b = Q @ self.network.inputs, Q.mT @ self.network.outputs
        error = self.target - self.network.outputs.mT @ a
        size = np.linalg.norm(b @ error @ a.mT, axis=(1, 2))
        rate = (a**2).sum((1, 2)) * (b**2).sum((1, 2)) / self.target.size
        return float((size * rate * self.clock).max() / size.max())

    def _changes(self, u: Array) -> Array:
        changes: Array = np.moveaxis(self.interpolate(u)[:-1].reshape(*self.network.resolvent.shape, -1), -1, 0)
        return changes


@dataclass(frozen=True, eq=False)
class Paths:
    """Gradient flow of several numbers that are learned independently in orthogonal subspaces.

    Has the interface of `Path`. A joint integration would be stiff, because large numbers are learned much faster than
    small ones.

    Attributes
    ----------
    network, target
        The reduced network and its (q, p) target z_hat.
    parts
        The flow of each number, whose learning time is the common one divided by p q.
    places
        (rows, rows of the flow) of each, orthonormal: embedding of its rows, and columns, in the whole space.
    """

    network: ReducedNetwork
    target: Array
    parts: Sequence[Path]
    places: Sequence[Array]

    def at(self, times: Array) -> Array:
        """Return the change of Q at learning times, (times, rows, columns); infinity is the end."""
        changes = [L @ part.at(times / self.target.size) @ L.T for part, L in zip(self.parts, self.places, strict=True)]
        total: Array = np.sum(changes, axis=0)
        return total

    @property
    def end(self) -> Array:
        """Q at the end, (rows, columns)."""
        end: Array = self.network.resolvent + self.at(np.array([np.inf]))[0]
        return end

    def time_of_error(self, fraction: float) -> float | None:
        """Return the learning time at which the error is this fraction of the first one, or None if it never is."""
        first = np.linalg.norm(self.target)

        def latest(each: float) -> float | None:
            """Return the time at which the last error has fallen to this share of the initial total error."""
            last = 0.0
            for part in self.parts:
                share = each * first / np.abs(part.target).item()
                time = part.time_of_error(share) if share < 1 else 0.0
                if time is None:
                    return None
                last = max(last, self.target.size * time)
            return last

        def beyond(times: Array) -> Array:
            left = self.target - self.network.outputs.T @ self.at(times) @ self.network.inputs
            size: Array = np.linalg.norm(left, axis=(1, 2)) / first - fraction
            return size

        low, high = latest(fraction), latest(fraction / len(self.parts) ** 0.5)
        if low is None or high is None:
            return None
        found = find_root(beyond, (np.array([low]), np.array([high])))
        # Both bounds coincide where all numbers but one are learned.
        return float(found.x[0]) if found.success[0] else low

    @property
    def feasible(self) -> bool:
        """Whether each target is reached."""
        return all(part.feasible for part in self.parts)

    @property
    def steepness(self) -> float:
        """Largest `steepness` of the flows."""
        return max(part.steepness for part in self.parts)


def flow(network: ReducedNetwork, target: Array, tolerance: float) -> Path:
    """Integrate gradient flow until the error has vanished.

    The independent variable is u with du = |a|^2 |b|^2 dtau / (p q), the number of e-folds of the error.

    Parameters
    ----------
    target
        (q, p) z_hat, different from the readout before learning.
    tolerance
        Relative tolerance of the integration.
    """
    m, w, Q0 = network.inputs, network.outputs, network.resolvent
    first_error = np.linalg.norm(target - network.readout)

    def velocity(_: float, state: Array) -> Array:
        Q = Q0 + state[:-1].reshape(Q0.shape)
        a, b = Q @ m, Q.T @ w
        rate = float(np.vdot(a, a) * np.vdot(b, b)) / target.size
        error = (target - w.T @ a) / (target.size * rate)
        return np.append((Q @ b) @ error @ (a.T @ Q), 1 / rate)

    def remaining(_: float, state: Array) -> float:
        error = np.linalg.norm(target - w.T @ (Q0 + state[:-1].reshape(Q0.shape)) @ m)
        return float(error / first_error - CONVERGED * tolerance)

    def patience(_: float, state: Array) -> float:
        return float(LONGEST_TIME * first_time - state[-1])

    remaining.terminal = patience.terminal = True  # type: ignore[attr-defined]
    start = np.zeros(Q0.size + 1)
    first_time = velocity(0.0, start)[-1]
    solution = solve_ivp(
        velocity,
        (0.0, LONGEST_PATH),
        start,
        method="DOP853",
        rtol=tolerance,
        # Absolute tolerances in units of the first error and of the initial time scale.
        atol=1e-3 * tolerance * np.append(np.full(Q0.size, first_error), first_time),
        dense_output=True,
        events=[remaining, patience],
    )
    return Path(network, target, solution.t, solution.y[-1], solution.sol, solution.t_events[0].size > 0)


def taylor(network: ReducedNetwork, target: Array, order: int) -> Array:
    """Return the Taylor coefficients of z(tau) at tau = 0 under gradient flow, (order + 1, q, p)."""
    m, w = network.inputs, network.outputs
    Q = [network.resolvent]
    for n in range(order):
        a, b = [q @ m for q in Q], [q.T @ w for q in Q]
        error = [target - w.T @ a[0], *(-w.T @ x for x in a[1:])]
        gradient = _product(_product(_product(Q, b), error), _product([x.T for x in a], Q))
        Q.append(gradient[n] / (target.size * (n + 1)))
    return np.stack([w.T @ q @ m for q in Q])


def _product(first: Sequence[Array], second: Sequence[Array]) -> list[Array]:
    """Return the Taylor coefficients of the product of two series of equal length."""
    order = range(len(first))
    return [np.sum([first[i] @ second[n - i] for i in range(n + 1)], axis=0) for n in order]
