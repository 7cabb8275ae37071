"""Convergence: the first epoch whose loss is a small fraction of the first one (Schuessler et al. 2020, Fig. 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rankscope.errors import InputError
from rankscope.validation import number


def convergence_epoch(losses: ArrayLike, fraction: float = 0.05) -> int | None:
    """Return the first epoch whose loss is below `fraction` of the epoch-0 loss, or None if there is none.

    Parameters
    ----------
    losses
        (epochs,) losses, as in `History.losses`. A loss that is not finite is not below, and if the first one is not
        finite the result is None.

    Raises
    ------
    InputError
        If `losses` is not one-dimensional or is empty, or `fraction` is not positive.
    """
    curve = np.asarray(losses, dtype=np.float64)
    if curve.ndim != 1 or curve.size == 0:
        raise InputError(f"losses must be a non-empty one-dimensional array, got shape {curve.shape}")
    threshold = number("fraction", fraction, above=0) * curve[0]
    below = np.flatnonzero((curve < threshold) & np.isfinite(curve) & np.isfinite(curve[0]))
    return int(below[0]) if below.size else None
