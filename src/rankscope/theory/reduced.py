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
from typing import Any

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
# Exponents of the decay of the error that the flow may take; it ends by itself long before.
LONGEST_PATH = 1e4
# Singular values of D below this share of the largest one are rounding noise.
RANK_TOLERANCE = 1e-13


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
        if self.bulk_edge == 0:
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
            f"gain must be further below 1 for an accuracy of {self.accuracy:g}: its bulk ends at {self.bulk_edge:g}"
        )


def flow(network: ReducedNetwork, target: Array, times: Array, tolerance: float) -> Array:
    """Return Q at the given times of gradient flow, (times, rows, columns).

    Parameters
    ----------
    target
        (q, p) z_hat.
    times
        (times,) learning times tau, increasing; infinity is the end of learning.
    tolerance
        Relative tolerance of the integration.
    """
    shape = network.resolvent.shape
    path = _learn(network, target, tolerance, until_time=times[-1])
    if path is None:
        return np.repeat(network.resolvent[None], len(times), axis=0)
    folds, clock = path.t, path.y[-1]
    at = np.where(times == 0, 0, folds[-1])
    inside = (times > 0) & (times < clock[-1])
    if inside.any():
        right = np.searchsorted(clock, times[inside])
        bracket = (folds[right - 1], folds[right])
        at[inside] = find_root(lambda u, tau: path.sol(u)[-1] - tau, bracket, args=(times[inside],)).x
    return np.moveaxis(path.sol(at)[:-1].reshape(*shape, len(times)), -1, 0)


def time_of_error(network: ReducedNetwork, target: Array, fraction: float, tolerance: float) -> float:
    """Return the learning time at which gradient flow has brought the error to this fraction of the first one."""
    path = _learn(network, target, tolerance, until_error=fraction)
    return 0.0 if path is None else float(path.y[-1, -1])


def _learn(
    network: ReducedNetwork, target: Array, tolerance: float, until_time: float = np.inf, until_error: float = 0.0
) -> Any:
    """Integrate the flow; return scipy's solution, or None if there is nothing to learn.

    It runs over the number of e-folds that the error has shrunk by, u with du = |a|^2 |b|^2 dtau / (p q), in which
    learning is neither explosive at the start nor stiff at the end. The last entry of the state is tau.
    """
    shape, count = network.resolvent.shape, target.size
    m, w = network.inputs, network.outputs
    first_error = np.linalg.norm(target - network.readout)
    if first_error == 0:
        return None

    def velocity(_: float, state: Array) -> Array:
        Q = state[:-1].reshape(shape)
        a, b = Q @ m, Q.T @ w
        rate = float(np.vdot(a, a) * np.vdot(b, b)) / count
        error = (target - w.T @ a) / (count * rate)
        return np.append((Q @ b) @ error @ (a.T @ Q), 1 / rate)

    def remaining(_: float, state: Array) -> float:
        error = np.linalg.norm(target - w.T @ state[:-1].reshape(shape) @ m)
        return float(error / first_error - max(until_error, CONVERGED * tolerance))

    def left(_: float, state: Array) -> float:
        return float(state[-1] - until_time)

    remaining.terminal = left.terminal = True  # type: ignore[attr-defined]
    return solve_ivp(
        velocity,
        (0.0, LONGEST_PATH),
        np.append(network.resolvent.ravel(), 0.0),
        method="DOP853",
        rtol=tolerance,
        atol=1e-3 * tolerance,
        dense_output=True,
        events=[remaining, left] if np.isfinite(until_time) else [remaining],
    )


def descend(network: ReducedNetwork, target: Array, learning_rate: float, epochs: int) -> Array:
    """Return Q before every step of gradient descent, (epochs, rows, columns).

    W <- W + learning_rate b (z_hat - z) a^T / (p q), exactly, by Woodbury's formula for Q. Once an eigenvalue of W has
    reached 1 there is no fixed point left, and what follows is NaN.
    """
    steps = np.full((epochs, *network.resolvent.shape), np.nan)
    Q = network.resolvent
    for step in steps:
        step[:] = Q
        stepped = _gradient_step(network, target, learning_rate, Q)
        if stepped is None:
            break
        Q = stepped
    return steps


def survives(network: ReducedNetwork, target: Array, learning_rate: float, most_epochs: int = 20_000) -> bool:
    """Return whether gradient descent in steps of this learning rate reaches the target, or loses its fixed point."""
    Q = network.resolvent
    small = CONVERGED * network.accuracy * np.linalg.norm(target - network.readout)
    for _ in range(most_epochs):
        if np.linalg.norm(target - network.outputs.T @ Q @ network.inputs) < small:
            return True
        stepped = _gradient_step(network, target, learning_rate, Q)
        if stepped is None:
            return False
        Q = stepped
    return False


def curvature(network: ReducedNetwork, Q: Array) -> float:
    """Return the largest eigenvalue of the loss's Hessian where the target is met: steps above 2 / it cannot settle."""
    a, b = Q @ network.inputs, Q.T @ network.outputs
    # The Hessian there is that of z(W), whose gradients are b_j a_i^T: its Gram matrix is a Kronecker product.
    largest: float = np.linalg.norm(a.T @ a, 2) * np.linalg.norm(b.T @ b, 2) / (a.shape[1] * b.shape[1])
    return largest


def _gradient_step(network: ReducedNetwork, target: Array, learning_rate: float, Q: Array) -> Array | None:
    """Return Q after one step, or None if it takes an eigenvalue of W to 1."""
    m, w = network.inputs, network.outputs
    a, b = Q @ m, Q.T @ w
    added = learning_rate / target.size * (target - w.T @ a) @ a.T
    core = np.eye(len(target)) - added @ Q @ b
    if not (np.isfinite(core).all() and np.linalg.det(core) > 0):
        return None
    stepped: Array = Q + (Q @ b) @ np.linalg.solve(core, added @ Q)
    return stepped


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


def describe(network: ReducedNetwork, target: Array, resolvents: Array, singular_values: int) -> xr.Dataset:
    """Return everything that is measured of a linear network, for Q at several moments.

    Parameters
    ----------
    target
        (q, p) z_hat.
    resolvents
        (tau, rows, columns).
    singular_values
        How many to return.
    """
    m, w, overlap = network.inputs, network.outputs, network.overlap
    finite = np.asarray(np.isfinite(resolvents).all(axis=(1, 2)))
    Q = np.where(finite[:, None, None], resolvents, network.resolvent)
    readout = w.T @ Q @ m
    error = target - readout
    D = network.inverse - np.linalg.inv(Q)
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

    It solves det(lambda - lambda O_lambda D) = 0, with D = left s right of as low a rank as it has.
    """
    rank = max(int((s > RANK_TOLERANCE * s.max(initial=0)).any(axis=0).sum()), 1)
    X, Y = left[:, :, :rank] * s[:, None, :rank], right[:, :rank]
    rows, columns = network.resolvent.shape
    edge, coefficients = network.bulk_edge, network.overlap_coefficients.reshape(-1, rows * columns)

    def determinant(eigenvalue: Array, moment: NDArray[np.integer]) -> Array:
        position = 2 * edge / eigenvalue - 1 if edge > 0 else eigenvalue
        # One small product a moment: a single large one would call a second thread, which takes longer than they do.
        polynomials = chebyshev.chebvander(position, len(coefficients) - 1)[:, None, :]
        overlaps = (polynomials @ coefficients).reshape(-1, rows, columns)
        values: Array = np.linalg.det(eigenvalue[:, None, None] * np.eye(rank) - Y[moment] @ overlaps @ X[moment])
        return values

    # The highest of these stretches at whose ends the determinant differs in sign.
    grid = np.linspace(edge, 1, 2 if min(network.inputs.shape[1], network.outputs.shape[1]) == 1 else 17)
    moments = np.arange(len(s))
    signs = np.stack([np.sign(determinant(np.full(len(s), at), moments)) for at in grid])
    changes = signs[:-1] * signs[1:] < 0
    there = moments[changes.any(axis=0)]
    above = len(grid) - 1 - np.argmax(changes[::-1], axis=0)[there]
    outlier = np.full(len(s), np.nan)
    if len(there):
        outlier[there] = find_root(determinant, (grid[above - 1], grid[above]), args=(there,)).x
    return outlier
