r"""The part of a change along W0: $\Delta W = c W_0$ + rest.

Weight decay multiplies W0 by a factor below 1 and so writes $c W_0$ with c < 0 into dW, of full rank. The least-squares
c is $\langle \Delta W, W_0 \rangle / |W_0|^2$. A rest of low rank has an overlap with W0 by chance, which shifts that
c and leaves a trace of W0 in the rest. Here c is therefore fitted again where the rest is not: with the k leading
singular vectors of the rest projected out of dW and W0, until c does not change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankscope.lowrank.change import Change, variance_explained

Array = NDArray[np.float64]

DIRECTIONS, ROUNDS = 8, 6
ALONG = 0.02
"""|cos(dW, W0)| below which a change is taken as it is: a part of 4e-4 of its energy, as chance gives."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """dW = c W0 + rest.

    Attributes
    ----------
    least_squares
        c of least squares; NaN without W0.
    c
        c outside the leading directions of the rest; 0 where dW has no part along W0 that chance would not give.
    numerical_rank
        Number of singular values of the rest above rounding.
    rank_95
        Number of its leading directions that have 95 % of its squared norm.
    """

    least_squares: float
    c: float
    numerical_rank: int
    rank_95: int


def scaling(change: Change, directions: int = DIRECTIONS) -> Scaling:
    """Return the part of a change along W0, and the ranks of the rest.

    Parameters
    ----------
    change
        A change that is not zero.
    directions
        Number k of leading directions of the rest that are left out of the fit of c.
    """
    cosine = change.initial_cosine
    if cosine is None or not change.initial_norm:
        return Scaling(float("nan"), 0.0, change.numerical_rank, _rank_95(change.singular_values))
    c = least = cosine * change.norm / change.initial_norm
    if abs(cosine) < max(ALONG, 4 / np.sqrt(change.matrix.size)):
        return Scaling(least, 0.0, change.numerical_rank, _rank_95(change.singular_values))
    dW, W0 = change.matrix, change.before
    k = min(directions, min(change.shape) // 4)
    U, s, Vt = np.linalg.svd(dW - c * W0, full_matrices=False)
    for _ in range(ROUNDS if k else 0):
        outer, inner = U[:, :k], Vt[:k]
        free_dW, free_W0 = (_outside(matrix, outer, inner) for matrix in (dW, W0))
        found = float((free_dW * free_W0).sum() / np.square(free_W0).sum())
        done = abs(found - c) <= 1e-12 * abs(found)
        c = found
        U, s, Vt = np.linalg.svd(dW - c * W0, full_matrices=False)
        if done:
            break
    # A rest is a difference of two matrices, each with its own rounding.
    eps = (
        float(np.finfo(np.float64).eps)
        * max(change.shape)
        * float(change.singular_values[0] + abs(c) * change.initial_norm)
    )
    level = max(change.rounding, eps)
    return Scaling(least, c, int(np.count_nonzero(s > level)), _rank_95(s) if s[0] > level else 0)


def _rank_95(singular_values: Array) -> int:
    return int(np.searchsorted(variance_explained(singular_values), 0.95 * (1 - 1e-12))) + 1


def _outside(matrix: Array, U: Array, Vt: Array) -> Array:
    """Return a matrix with the columns of U projected out on the left and the rows of Vt on the right."""
    found = matrix - U @ (U.T @ matrix)
    outside: Array = found - (found @ Vt.T) @ Vt
    return outside
