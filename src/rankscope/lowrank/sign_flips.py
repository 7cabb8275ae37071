"""Directions of a change that stand out of errors of unequal size, by random signs of its entries.

Multiplying the entries of a matrix by random signs takes its directions away and leaves the size of every entry. So the
largest singular value of a change with random signs is what errors of these sizes alone would reach, wherever they are
larger or smaller: the errors of rounding are, as the numbers of a type are further apart where weights are large (Hong,
Sheng & Dobriban 2020).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rankscope.linalg import leading_singular_values, leading_triplets
from rankscope.lowrank.bulk import Bulk, excess_of_mean
from rankscope.lowrank.change import Change

DRAWS = 3
MOST = 64
"""Directions that are looked for."""

MARGIN = 1.2
"""Factor of the level. The rounding errors of a change of low rank depend on it, so that they reach values up to 13 %
above those of independent errors of the same sizes (bfloat16, |dW| from 1e-4 to 6e-3 of |W0|)."""


def stand_out_of_errors(change: Change, device: str) -> Bulk:
    """Return how many directions of a change stand out of the rest of it with random signs.

    The directions that are found are taken away, and the rest is tested again, until no further one stands out. The
    signs are drawn from a fixed seed, so that equal changes give equal results.
    """
    rng = np.random.default_rng(0)
    rest = torch.from_numpy(np.array(change.matrix)).to(device)
    U, s, Vt = leading_triplets(rest, MOST)[:3]
    out = 0
    while True:
        largest = [_largest(rest * _signs(rest, rng)) for _ in range(DRAWS)]
        level = sum(largest) / DRAWS * excess_of_mean(*rest.shape) * MARGIN
        above = int((s > level).sum())
        if above == MOST:
            return Bulk(None, None, None)
        if above <= out:
            return Bulk(True, level, out)
        rest -= (U[:, out:above] * s[out:above]) @ Vt[out:above]
        out = above


def _signs(matrix: Tensor, rng: np.random.Generator) -> Tensor:
    bits = np.frombuffer(rng.bytes(math.ceil(matrix.numel() / 8)), np.uint8)
    signs = np.unpackbits(bits, count=matrix.numel()).astype(np.int8) * 2 - 1
    return torch.from_numpy(signs).reshape(matrix.shape).to(matrix)


def _largest(matrix: Tensor) -> float:
    return float(leading_singular_values(matrix, 1)[0])
