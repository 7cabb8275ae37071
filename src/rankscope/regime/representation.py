r"""Representation alignment: how similar the states of two networks are across trials.

With the last states H (trials, N) of each network and the Gram matrices :math:`R = H H^T` over trials,
:math:`\mathrm{RA} = \langle R_0, R \rangle / (|R_0| |R|)`, between 0 and 1 (Liu et al. 2024). 1 means that all inner
products are as before learning up to a factor. The null is the mean over all permutations of the trials of one
network, in closed form; it is large where states have a common mean.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rankscope.errors import InputError
from rankscope.regime.activity import finite


class RepresentationAlignment(NamedTuple):
    """Alignment of the Gram matrices, and its mean with permuted trials; NaN for one trial or states of zero."""

    value: float
    null: float


def representation_alignment(before: Any, after: Any) -> RepresentationAlignment:
    """Return the representation alignment of two networks.

    Parameters
    ----------
    before, after
        States on the same trials, (trials, N) and (trials, N').

    Raises
    ------
    InputError
        If they are no finite matrices with the same number of rows.
    """
    H0, H = finite("before", before), finite("after", after)
    if len(H0) != len(H):
        raise InputError(f"before and after must have the same trials, got {len(H0)} and {len(H)}")
    R0, R = H0 @ H0.T, H @ H.T
    scale = float(np.linalg.norm(R0) * np.linalg.norm(R))
    if scale == 0 or len(H) < 2:
        return RepresentationAlignment(math.nan, math.nan)
    P = len(H)
    diagonals = np.trace(R0) * np.trace(R) / P
    others = (R0.sum() - np.trace(R0)) * (R.sum() - np.trace(R)) / (P * (P - 1))
    return RepresentationAlignment(float((R0 * R).sum()) / scale, float(diagonals + others) / scale)
