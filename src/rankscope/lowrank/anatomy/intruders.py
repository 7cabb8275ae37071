"""Intruder dimensions: leading left singular vectors of W that no singular vector of W0 resembles.

Of the k = 10 leading left singular vectors of W, those with max_i |cos(u_j, u0_i)| < 0.5 over all left singular vectors
of W0 (Shuttleworth et al. 2024). A random direction counts too, however weak it is; the share of the energy of W,
sum s_j^2 over them / |W|^2, tells how much they matter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    cosines = np.abs(initial.T @ U).max(0, initial=0.0)
    intruding = cosines < RESEMBLES
    square = float(np.square(singular_values).sum())
    return Intruders(int(intruding.sum()), float(np.square(s[intruding]).sum()) / square if square else float("nan"))
