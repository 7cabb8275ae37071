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


class Shares(NamedTuple):
    """Shares of |dW|^2 in the k leading components, (N,) for k = 1 to N, and the components' shares of the squares."""

    change: Array
    components: Array


def shares(dW: Array, rows: Tensor) -> Shares:
    """Return the share of the rows of dW, (n, N), in the leading principal components of `rows`, (samples, N).

    Components with less than 1e-14 of the squares are in no defined order.
    """
    gram = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for block in torch.split(rows.detach(), ROWS):
        doubled = block.double()
        gram.addmm_(doubled.t(), doubled)
    values, vectors = torch.linalg.eigh(gram)
    spectrum = values.flip(0).clamp_min(0).numpy()
    total = spectrum.sum()
    if total == 0:
        nothing = np.full(len(spectrum), np.nan)
        return Shares(nothing, nothing)
    within = np.square(dW @ vectors.flip(1).numpy()).sum(0)
    return Shares(np.cumsum(within) / np.square(dW).sum(), spectrum / total)
