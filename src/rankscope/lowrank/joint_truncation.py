"""Several weight matrices truncated together, rank by rank.

Each matrix is decomposed once, and going from one rank to the next adds the directions in between, so that all 256
ranks of a matrix cost about as much as one product of its factors. (paper section 3, "truncation loss", for many
matrices)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.validation import integer

Array = NDArray[np.float64]


def truncated_together(before: Sequence[Array], after: Sequence[Array], ranks: Iterable[int]) -> Iterator[list[Array]]:
    """Yield, for each rank R, the matrices before + (after - before, truncated to rank R).

    Parameters
    ----------
    before, after
        Matrices, (post, pre) each. With zeros before, the matrices after are themselves truncated.
    ranks
        Increasing, from 0 to whatever; at and above the rank of a matrix it is whole.

    Yields
    ------
    The matrices, in double precision. They are changed in place for the next rank.

    Raises
    ------
    InputError
        If a rank is negative or the ranks do not increase, or shapes differ.
    """
    if [matrix.shape for matrix in before] != [matrix.shape for matrix in after]:
        raise InputError(f"after must have the shapes of before, got {[matrix.shape for matrix in after]}")
    parts = [np.linalg.svd(a.astype(np.float64) - b, full_matrices=False) for b, a in zip(before, after, strict=True)]
    now = [matrix.astype(np.float64) for matrix in before]
    reached = 0
    for rank in ranks:
        R = integer("ranks", rank, minimum=reached)
        for matrix, (U, s, Vt) in zip(now, parts, strict=True):
            matrix += (U[:, reached:R] * s[reached:R]) @ Vt[reached:R]
        reached = R
        yield now
