r"""Subspaces, the fraction of a direction that lies in one, and what a random direction has.

For a unit vector u and a subspace of dimension d with the projector P, the overlap is $|P u|^2$. For a random u among N
dimensions it has the distribution Beta(d / 2, (N - d) / 2), with the mean d / N and the variance
2 d (N - d) / (N^2 (N + 2)).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOLERANCE = 1e-6
"""Singular value, relative to the largest one, below which a vector adds no dimension; weights are in float32."""


class Null(NamedTuple):
    """Mean and standard deviation of the overlap of a random direction."""

    mean: float
    std: float


def basis(vectors: NDArray[Any]) -> Array:
    """Return an orthonormal basis (N, d) of the span of vectors (N, k).

    Vectors are normalized first, so that none is left out because it is short; zeros have no direction.
    """
    columns = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(columns, axis=0)
    columns = columns[:, norms > 0] / norms[norms > 0]
    if not columns.size:
        return np.empty((len(columns), 0))
    U, s, _ = np.linalg.svd(columns, full_matrices=False)
    found: Array = U[:, s > TOLERANCE * s[0]]
    return found


def overlaps(directions: NDArray[Any], subspace: Array) -> Array:
    """Return the overlaps (k,) of unit vectors, the columns of (N, k), with an orthonormal basis (N, d)."""
    found: Array = np.square(subspace.T @ directions).sum(0)
    return found


def null(size: int, dimension: int) -> Null:
    """Return the null of a subspace of `dimension` among `size` dimensions."""
    d, N = dimension, size
    return Null(d / N, math.sqrt(2 * d * (N - d) / (N**2 * (N + 2))))
