"""Learning in the linear network, on the few directions that it visits.

At the fixed point the readout is z = w . R m with R = (1 - W)^-1, and one learning step adds a multiple of b a^T to W,
a = R m, b = R^T w. All of it happens within small spaces (`chains.py`): rows are coordinates of a and w, columns of b
and m, and Q is R between them. The flow closes on Q alone,

    dQ/dtau = Q Q^T w (z_hat - z)/(p q) (Q^T Q m)^T         for p inputs m and q outputs w,

whether Q stands for infinitely many units or for one given network. What learning writes is D = Q0^-1 - Q^-1, whose
singular values are those of dW. (theory.md, sections 1 and 3)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.integrate import solve_ivp
from scipy.optimize.elementwise import find_root

from rankscope.errors import InputError

Array = NDArray[np.floating]

# Chebyshev nodes at which the overlaps with (1 - W0 / lambda)^-1 are computed, and interpolated in between.
FEWEST_NODES, MOST_NODES = 17, 1088
# Learning is over when the error, in units of the first one, is this many times the tolerance of the integration: below
# that it is the integration's own.
CONVERGED = 10.0
# Where the flow is given up, in e-folds of the error, of which it takes some thirty, and in units of the time scale it
# begins with: what takes longer would have to make R singular.
LONGEST_PATH, LONGEST_TIME = 100.0, 1e12
# Epochs of descent that are followed one by one to see whether it survives; those after them, of which the short ones
# are taken together; and the share of the error that one step may take away and still be like several smaller ones.
EPOCHS, SHORTENED_EPOCHS, SHORT_STEP = 200, 200, 0.02
# Eigenvalues are real if their imaginary part is below this share of them; of equal ones, rounding makes pairs.
REAL = 1e-9
# A step of R beyond this leaves no digits of what was there, and soon no numbers.
LARGEST_STEP = 1e30
# Singular values of D below this share of the largest one are rounding noise.
RANK_TOLERANCE = 1e-13
# Stretches between the bulk and 1, in each of which one outlier is told from none.
OUTLIER_STRETCHES = 4


@dataclass(frozen=True, eq=False)
class ReducedNetwork:
    """A linear network seen from the directions that learning visits, `rows` and `columns` of them.

    Attributes
    ----------
    resolvent
        (rows, columns) R0 between the two spaces.
    inputs, outputs
        (columns, p) and (rows, q): the vectors m and w.
    overlap
        (rows, columns) scalar products of the two bases.
    scaled_overlap
        lambda -> (rows, columns) the same with (1 - W0 / lambda)^-1 in between, for a real lambda above `bulk_edge`.
    bulk_edge
        Where the bulk of the eigenvalues of W0 ends on the real axis.
    open_ends
        (ends, rows) and (ends, columns): what reads off a vector its amplitude at the ends where chains were cut short,
        which is what the reduction has lost.
    accuracy
        Relative accuracy asked for.
    """

    resolvent: Array
    inputs: Array
    outputs: Array
    overlap: Array
    scaled_overlap: Callable[[float], Array]
    bulk_edge: float
    open_ends: tuple[Array, Array]
    accuracy: float

    @cached_property
    def inverse(self) -> Array:
        """(columns, rows) Q0^-1."""
        inverse: Array = np.linalg.inv(self.resolvent)
        return inverse

    @cached_property
    def readout(self) -> Array:
        """(q, p) z before learning."""
        return self.outputs.T @ self.resolvent @ self.inputs

    @cached_property
    def overlap_coefficients(self) -> Array:
        """(n, rows, columns) Chebyshev coefficients of `scaled_overlap` in 2 bulk_edge / lambda - 1.

        It is a power series in bulk_edge / lambda that converges up to 1, where the bulk begins.

        Raises
        ------
        InputError
            If it converges so slowly, near a bulk edge of 1, that the accuracy is out of reach.
        """
        if self.bulk_edge <= np.finfo(float).tiny:
            return self.scaled_overlap(1.0)[None]
        count = FEWEST_NODES
        while count <= MOST_NODES:
            nodes = np.cos(np.pi * (np.arange(count) + 0.5) / count)
            values = np.stack([self.scaled_overlap(2 * self.bulk_edge / (1 + node)) for node in nodes])
            coefficients: Array = dct(values, axis=0) / count
            coefficients[0] /= 2
            sizes = np.abs(coefficients).max(axis=(1, 2))
            if sizes[-3:].max() <= 0.1 * self.accuracy * sizes.max():
                return coefficients
            count *= 2
        raise InputError(
            f"accuracy must be larger than {self.accuracy:g} where the bulk of the eigenvalues ends so near to 1, "
            f"at {self.bulk_edge:g}"
        )


@dataclass(frozen=True, eq=False)
class Path:
    """Gradient flow of a network from its first moment to its last.

    Attributes
    ----------
    network, target
        What learns, and the (q, p) z_hat that it learns.
    folds, clock
        (steps,) the e-folds u that the error has shrunk by, and the learning time tau at each of them.
    interpolate
        u -> change of Q and, in the last row, tau; (entries + 1, u).
    arrived
        Whether the error is gone at the end.
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
        """Return when the error is this fraction of the first one; None if the flow ends before."""
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
        """Whether the target is reached, by a Q that is invertible all the way: no time is enough to make it singular.

        With m = w and a symmetric W0, for one, the readout cannot change its sign.
        """
        signs, _ = np.linalg.slogdet(self.network.resolvent + self._changes(self.folds))
        return self.arrived and bool((signs == signs[0]).all())

    @cached_property
    def steepness(self) -> float:
        """By how much an error of tau comes out larger in the gradient norm, both relative to their largest values.

        Learning of large targets hesitates long, and is over in a moment.
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
    """Gradient flow of numbers that are learned side by side, in spaces that do not meet, each at its own pace.

    It answers what one `Path` does. One integration of it all would be stiff: what is learned of a large number goes on
    relaxing in no time while a small one has hardly begun.

    Attributes
    ----------
    network, target
        What learns, and the (q, p) z_hat that it learns.
    parts
        The flow of each number by itself, whose learning time is that of the whole over p q.
    places
        (rows, rows of the part) of each, orthonormal: where its rows, and its columns, lie in the whole.
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
        """Return when the error is this fraction of the first one; None if the flow ends before."""
        first = np.linalg.norm(self.target)

        def latest(each: float) -> float | None:
            """Return when the last of the errors has fallen to this share of the first total."""
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
        # Where all but one are done the two are the same.
        return float(found.x[0]) if found.success[0] else low

    @property
    def feasible(self) -> bool:
        """Whether each target is reached."""
        return all(part.feasible for part in self.parts)

    @property
    def steepness(self) -> float:
        """By how much an error of tau comes out larger in the gradient norm of any of them."""
        return max(part.steepness for part in self.parts)


def flow(network: ReducedNetwork, target: Array, tolerance: float) -> Path:
    """Integrate gradient flow until the error is gone.

    It runs over the number of e-folds that the error has shrunk by, u with du = |a|^2 |b|^2 dtau / (p q), in which
    learning is neither explosive at the start nor stiff at the end.

    Parameters
    ----------
    target
        (q, p) z_hat, which is not the readout before learning.
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
        # What is small beside the first error and the first time scale counts by its distance from 0.
        atol=1e-3 * tolerance * np.append(np.full(Q0.size, first_error), first_time),
        dense_output=True,
        events=[remaining, patience],
    )
    return Path(network, target, solution.t, solution.y[-1], solution.sol, solution.t_events[0].size > 0)


def descend(network: ReducedNetwork, target: Array, learning_rate: float, epochs: int) -> Array:
    """Return the change of Q before every step of gradient descent, (epochs, rows, columns).

    W <- W + learning_rate b (z_hat - z) a^T / (p q), exactly, by Woodbury's formula for Q. Once an eigenvalue of W has
    reached 1 there is no fixed point left, and what follows is NaN.
    """
    changes = np.full((epochs, *network.resolvent.shape), np.nan)
    change = np.zeros_like(network.resolvent)
    for before_step in changes:
        before_step[:] = change
        step = _gradient_step(network, target, learning_rate, network.resolvent + change)
        if step is None:
            break
        change = change + step
    return changes


def survives(network: ReducedNetwork, target: Array, learning_rate: float) -> bool:
    """Return whether gradient descent in steps of this learning rate keeps its fixed point on its way to the target.

    What overshoots may land where nearly nothing moves, for many thousand epochs. So, after a while, stretches where a
    step is too short to matter are crossed in longer ones. What has not failed in the end circles around the target.
    """
    Q, count = network.resolvent, target.size
    small = CONVERGED * network.accuracy * np.linalg.norm(target - network.readout)
    for epoch in range(EPOCHS + SHORTENED_EPOCHS):
        a, b = Q @ network.inputs, Q.T @ network.outputs
        if np.linalg.norm(target - network.outputs.T @ a) < small:
            return True
        # What shrinks the error by a share that is small.
        longer = SHORT_STEP * count / float(np.vdot(a, a) * np.vdot(b, b)) if epoch >= EPOCHS else 0.0
        step = _gradient_step(network, target, max(learning_rate, longer), Q)
        if step is None:
            return False
        Q = Q + step
    return True


def curvature(network: ReducedNetwork, Q: Array) -> float:
    """Return the largest eigenvalue of the loss's Hessian where the target is met: steps above 2 / it cannot settle."""
    a, b = Q @ network.inputs, Q.T @ network.outputs
    # The Hessian there is that of z(W), whose gradients are b_j a_i^T: its Gram matrix is a Kronecker product.
    largest = float(np.linalg.norm(a.T @ a, 2)) * float(np.linalg.norm(b.T @ b, 2))
    return largest / (len(a.T) * len(b.T))


def _gradient_step(network: ReducedNetwork, target: Array, learning_rate: float, Q: Array) -> Array | None:
    """Return what one step adds to Q, or None if it takes an eigenvalue of W to 1, or out of all proportion."""
    m, w = network.inputs, network.outputs
    with np.errstate(over="ignore", invalid="ignore"):
        a, b = Q @ m, Q.T @ w
        added = learning_rate / target.size * (target - w.T @ a) @ a.T
        taken = added @ Q @ b
        if not np.isfinite(taken).all():
            return None
        # At x of the way, 1 - x taken is singular where 1 - W is: an eigenvalue of 1 or more is met.
        eigenvalues = np.linalg.eigvals(taken)
        real = np.abs(eigenvalues.imag) <= REAL * np.abs(eigenvalues)
        if (eigenvalues.real[real] >= 1).any():
            return None
        step: Array = (Q @ b) @ np.linalg.solve(np.eye(len(target)) - taken, added @ Q)
    return step if np.abs(step).max() < LARGEST_STEP else None


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


def describe(network: ReducedNetwork, target: Array, changes: Array, singular_values: int) -> xr.Dataset:
    """Return everything that is measured of a linear network, for the changes of Q at several moments.

    Parameters
    ----------
    target
        (q, p) z_hat.
    changes
        (tau, rows, columns); NaN where there is no fixed point.
    singular_values
        How many to return.
    """
    m, w, overlap = network.inputs, network.outputs, network.overlap
    finite = np.asarray(np.isfinite(changes).all(axis=(1, 2)))
    change = np.where(finite[:, None, None], changes, 0.0)
    Q = network.resolvent + change
    readout = w.T @ Q @ m
    error = target - readout
    # Q0^-1 - Q^-1, without the loss of digits that the difference would suffer for small changes.
    D = network.inverse @ change @ np.linalg.inv(Q)
    left, s, right = np.linalg.svd(D)
    gradient = (Q.mT @ w) @ (error / target.size) @ (Q @ m).mT
    seen_m, seen_w = overlap @ m, w.T @ overlap
    after_shuffle = w.T @ seen_m + seen_w @ np.linalg.solve(np.eye(len(m)) - D @ overlap, D) @ seen_m
    initial = float(_loss(target - network.readout))
    rows = ("tau", "output", "input")
    columns = {
        "readout": (rows, readout, "readout z"),
        "loss": (("tau",), _loss(error), "loss"),
        "singular_value": (
            ("tau", "singular_index"),
            s[:, :singular_values],
            "singular value of the change of the recurrent weights",
        ),
        "change_norm": (("tau",), np.sqrt((s**2).sum(1)), "Frobenius norm of the change of the recurrent weights"),
        "gradient_norm": (("tau",), np.linalg.norm(gradient, axis=(1, 2)), "gradient norm"),
        "shuffled_loss": (
            ("tau",),
            _loss(target - after_shuffle) / initial if initial > 0 else np.full(len(Q), np.nan),
            "loss after shuffling the initial weights, relative to the loss before learning",
        ),
        "outlier": (("tau",), _outlier(network, left, s, right), "largest real eigenvalue of W outside the bulk"),
    }
    dataset = xr.Dataset({name: (dims, values, {"long_name": text}) for name, (dims, values, text) in columns.items()})
    dataset = dataset.where(xr.DataArray(finite, dims="tau"))
    dataset = dataset.assign_coords(singular_index=np.arange(1, dataset.sizes["singular_index"] + 1))
    return dataset.squeeze(("output", "input")) if target.size == 1 else dataset


def _product(first: Sequence[Array], second: Sequence[Array]) -> list[Array]:
    """Return the Taylor coefficients of the product of two series, as many as each of them has."""
    order = range(len(first))
    return [np.sum([first[i] @ second[n - i] for i in range(n + 1)], axis=0) for n in order]


def _loss(error: Array) -> Array:
    """Return half the mean square over outputs and inputs."""
    half_mean: Array = 0.5 * np.mean(error**2, axis=(-2, -1))
    return half_mean


def _outlier(network: ReducedNetwork, left: Array, s: Array, right: Array) -> Array:
    """Return the largest real eigenvalue of W between the bulk edge and 1, NaN where there is none.

    It is one of lambda O_lambda D, with D = left s right of as low a rank as it has.
    """
    rank = max(int((s > RANK_TOLERANCE * s.max(initial=0)).any(axis=0).sum()), 1)
    X, Y = left[:, :, :rank] * s[:, None, :rank], right[:, :rank]
    rows, columns = network.resolvent.shape
    edge, coefficients = network.bulk_edge, network.overlap_coefficients.reshape(-1, rows * columns)

    def excess(eigenvalue: Array, moment: NDArray[np.integer]) -> Array:
        """Return by how much the largest real eigenvalue of lambda O_lambda D is larger than lambda."""
        position = 2 * edge / eigenvalue - 1 if edge > 0 else eigenvalue
        # One small product a moment: a single large one would call a second thread, which takes longer than they do.
        polynomials = chebyshev.chebvander(position, len(coefficients) - 1)[:, None, :]
        overlaps = (polynomials @ coefficients).reshape(-1, rows, columns)
        found = np.linalg.eigvals(Y[moment] @ overlaps @ X[moment])
        real = np.abs(found.imag) <= network.accuracy * np.abs(found)
        largest: Array = np.where(real, found.real, -1.0).max(axis=1)
        return largest - eigenvalue

    # The highest of these stretches at whose lower end there is one that is too large, and none at the upper.
    grid, moments = np.linspace(edge, 1, OUTLIER_STRETCHES + 1), np.arange(len(s))
    too_large = np.stack([excess(np.full(len(s), at), moments) > 0 for at in grid])
    falls = too_large[:-1] & ~too_large[1:]
    there = moments[falls.any(axis=0)]
    below = OUTLIER_STRETCHES - 1 - np.argmax(falls[::-1], axis=0)[there]
    outlier = np.full(len(s), np.nan)
    if len(there):
        found = find_root(excess, (grid[below], grid[below + 1]), args=(there,))
        # Where two real ones have become complex there is a step, but no eigenvalue.
        outlier[there] = np.where(np.abs(found.f_x) < np.sqrt(network.accuracy), found.x, np.nan)
    return outlier
