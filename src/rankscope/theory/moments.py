"""Observables of a reduced linear network over learning.

The singular values of D = Q0^-1 - Q^-1 are those of dW. D and the overlaps between the directions determine the loss,
the norm of the change, the loss after shuffling W0, and the eigenvalue of W that leaves the bulk. Derivation:
docs/guides/theory.md, "Solution to convergence".
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.optimize.elementwise import find_root

from rankscope.theory.reduced import Array, ReducedNetwork

# Singular values of D below this share of the largest one are rounding errors.
RANK_TOLERANCE = 1e-13
# Intervals between the bulk edge and 1 that are searched for an outlier, at most one in each.
OUTLIER_STRETCHES = 4


def describe(network: ReducedNetwork, target: Array, changes: Array, singular_values: int) -> xr.Dataset:
    """Return all observables of a linear network for a sequence of changes of Q.

    Parameters
    ----------
    target
        (q, p) z_hat.
    changes
        (tau, rows, columns); NaN where there is no fixed point.
    singular_values
        Number of singular values to return.
    """
    m, w, overlap = network.inputs, network.outputs, network.overlap
    finite = np.asarray(np.isfinite(changes).all(axis=(1, 2)))
    change = np.where(finite[:, None, None], changes, 0.0)
    Q = network.resolvent + change
    readout = w.T @ Q @ m
    error = target - readout
    # Q0^-1 - Q^-1 without the cancellation of the plain difference for small changes.
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


def _loss(error: Array) -> Array:
    """Return half the mean square over outputs and inputs."""
    half_mean: Array = 0.5 * np.mean(error**2, axis=(-2, -1))
    return half_mean


def _outlier(network: ReducedNetwork, left: Array, s: Array, right: Array) -> Array:
    """Return the largest real eigenvalue lambda of W between the bulk edge and 1, NaN where there is none.

    It is an eigenvalue of lambda O_lambda D, with D = left s right reduced to its numerical rank.
    """
    rank = max(int((s > RANK_TOLERANCE * s.max(initial=0)).any(axis=0).sum()), 1)
    X, Y = left[:, :, :rank] * s[:, None, :rank], right[:, :rank]
    rows, columns = network.resolvent.shape
    edge, coefficients = network.bulk_edge, network.overlap_coefficients.reshape(-1, rows * columns)

    def excess(eigenvalue: Array, moment: NDArray[np.integer]) -> Array:
        """Return the largest real eigenvalue of lambda O_lambda D minus lambda."""
        position = 2 * edge / eigenvalue - 1 if edge > 0 else eigenvalue
        # Small products in a batch: a single large one would start a second BLAS thread, which is slower.
        polynomials = chebyshev.chebvander(position, len(coefficients) - 1)[:, None, :]
        overlaps = (polynomials @ coefficients).reshape(-1, rows, columns)
        found = np.linalg.eigvals(Y[moment] @ overlaps @ X[moment])
        real = np.abs(found.imag) <= network.accuracy * np.abs(found)
        largest: Array = np.where(real, found.real, -1.0).max(axis=1)
        return largest - eigenvalue

    # The highest interval in which the excess changes sign from positive to negative.
    grid, moments = np.linspace(edge, 1, OUTLIER_STRETCHES + 1), np.arange(len(s))
    too_large = np.stack([excess(np.full(len(s), at), moments) > 0 for at in grid])
    falls = too_large[:-1] & ~too_large[1:]
    there = moments[falls.any(axis=0)]
    below = OUTLIER_STRETCHES - 1 - np.argmax(falls[::-1], axis=0)[there]
    outlier = np.full(len(s), np.nan)
    if len(there):
        found = find_root(excess, (grid[below], grid[below + 1]), args=(there,))
        # Where two real eigenvalues merge into a complex pair the excess jumps, and there is no root.
        outlier[there] = np.where(np.abs(found.f_x) < np.sqrt(network.accuracy), found.x, np.nan)
    return outlier
