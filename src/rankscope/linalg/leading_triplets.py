"""Leading singular triplets of a large matrix by subspace iteration, with a bound of the error computed from them.

A block of random vectors, multiplied by the matrix and its transpose in turn, converges to the leading singular vectors
(Halko, Martinsson & Tropp 2011). The residual of an approximate triplet bounds the distance to a singular value.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankscope.validation import integer

ROUNDS = 8
SETTLED = 1e-3


class Triplets(NamedTuple):
    """Singular triplets, largest first: U (m, k), s (k,), Vt (k, n), and for each value its `error` (k,)."""

    U: Tensor
    s: Tensor
    Vt: Tensor
    error: Tensor


def leading_triplets(matrix: Tensor, count: int) -> Triplets:
    r"""Return approximations of the `count` (at most min(m, n)) largest singular values and vectors of a matrix (m, n).

    No value is above the true one of its place. Each is within its `error` of a singular value: with $A v = s u$ to
    rounding and $r = A^T u - s v$, the symmetric matrix of the blocks $A$ and $A^T$ has an eigenvalue within
    $|r| / \sqrt 2$ of $s$. The rounding of the type of `matrix` is added to it. The block is drawn from a fixed seed,
    so that equal matrices give equal results.
    """
    count = min(integer("count", count, minimum=1), *matrix.shape)
    width = min(2 * count + 8, *matrix.shape)
    start = np.random.default_rng(0).standard_normal((matrix.shape[0], width), dtype=np.float32)
    right = matrix.t() @ torch.as_tensor(start).to(matrix)
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(right).Q
        U, s, Vt = torch.linalg.svd(matrix @ basis, full_matrices=False)
        V = basis @ Vt.t()
        # The next round needs this product anyway.
        right = matrix.t() @ U
        error = torch.linalg.vector_norm(right[:, :count] - V[:, :count] * s[:count], dim=0) / 2**0.5
        if bool((error <= SETTLED * s[0]).all()):
            break
    rounding = torch.finfo(matrix.dtype).eps * max(matrix.shape) ** 0.5 * s[0]
    return Triplets(U[:, :count], s[:count], V[:, :count].t(), error + rounding)
