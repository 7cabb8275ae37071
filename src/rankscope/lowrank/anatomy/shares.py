r"""The share of a change in the leading principal components of activity and of adjoints.

Plain gradient descent gives $\Delta W = -\eta \sum_t \delta_t r_t^T$: rows of dW lie in the span of past activity $r$,
and columns in that of past adjoints $\delta$. The shares are $|\Delta W Q_k|^2 / |\Delta W|^2$ with $Q_k$ the k
leading principal components of activity, and $|A_k^T \Delta W|^2 / |\Delta W|^2$ with those of the adjoints. Both are
components about zero, not about the mean, as the gradient is. The null is k / N.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

ROWS = 2**14
"""Rows of a block: in double precision they stay small beside what a network keeps."""


class Components(NamedTuple):
    """Principal components about zero, largest first: vectors (N, N) in columns, and their shares of the squares, (N,).

    Components with less than 1e-14 of the squares are in no defined order.
    """

    vectors: Array
    spectrum: Array


def components(rows: Tensor) -> Components | None:
    """Return the principal components of `rows`, (samples, N); None if all are zero."""
    gram = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for block in torch.split(rows.detach(), ROWS):
        doubled = block.double()
        gram.addmm_(doubled.t(), doubled)
    values, vectors = torch.linalg.eigh(gram)
    spectrum = values.flip(0).clamp_min(0).numpy()
    total = spectrum.sum()
    return None if total == 0 else Components(vectors.flip(1).numpy(), spectrum / total)


def shares(dW: Array, vectors: Array) -> Array:
    """Return the share of |dW|^2 in the first k columns of `vectors`, (N, N), for the rows of dW, (n, N): (N,)."""
    found: Array = np.cumsum(np.square(dW @ vectors).sum(0)) / np.square(dW).sum()
    return found
