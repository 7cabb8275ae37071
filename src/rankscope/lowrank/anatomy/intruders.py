"""Intruder dimensions: leading left singular vectors of W that no singular vector of W0 resembles.

Of the k = 10 leading left singular vectors of W, those with max_i |cos(u_j, u0_i)| < 0.5 over all left singular vectors
of W0 (Shuttleworth et al. 2024). A random direction counts too, however weak it is; the share of the energy of W,
sum s_j^2 over them / |W|^2, tells how much they matter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.linalg import leading_triplets

Array = NDArray[np.float64]

LEADING, RESEMBLES = 10, 0.5


class Intruders(NamedTuple):
    """Number of intruders among the leading singular vectors, and their share of the energy of W."""

    number: int
    share: float


def intruders(initial: Array, left: Array, singular_values: Array, leading: int = LEADING) -> Intruders:
    """Return the intruder dimensions of a matrix.

    Parameters
    ----------
    initial
        Left singular vectors of W0 with a singular value that is not zero, (n, r).
    left, singular_values
        Those of W, (n, k) and (k,), all of them, largest first.
    leading
        How many of W are looked at.
    """
    U, s = left[:, :leading], singular_values[:leading]
    U, s = U[:, s > 0], s[s > 0]
    return _counted(np.abs(initial.T @ U).max(0, initial=0.0), s, float(np.square(singular_values).sum()))


def intruders_between(before: Tensor, after: Tensor, leading: int = LEADING) -> Intruders:
    """Return the intruder dimensions of `after`, (n, m), from the smaller product of `before` with its transpose.

    Singular vectors of W0 are found down to 1e-6 of its norm.
    """
    W0, W = before.double(), after.double()
    found = leading_triplets(W, leading)
    n, m = W0.shape
    values, vectors = torch.linalg.eigh(W0 @ W0.t() if n <= m else W0.t() @ W0)
    kept = values > 1e-12 * values[-1]
    if n <= m:
        cosines = vectors[:, kept].t() @ found.U
    else:  # u = W0 v / s
        cosines = vectors[:, kept].t() @ (W0.t() @ found.U) / values[kept].sqrt()[:, None]
    largest = cosines.abs().cpu().numpy().max(0, initial=0.0)
    return _counted(largest, found.s.cpu().numpy(), float(W.square().sum()))


def _counted(cosines: Array, singular_values: Array, square: float) -> Intruders:
    intruding = cosines < RESEMBLES
    energy = float(np.square(singular_values[intruding]).sum())
    return Intruders(int(intruding.sum()), energy / square if square else float("nan"))
