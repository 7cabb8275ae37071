r"""Growth of the directions of a change over epochs.

The directions are the leading singular vectors $u_j, v_j$ of the change at the end. Where the change was
$\Delta W(e)$, direction j had the strength $u_j^T \Delta W(e) v_j$; half growth is the first epoch at which that is
half of the final one, interpolated between the epochs that are known. Its match are the singular vectors of
$\Delta W(e)$ that the chain of largest $|\cos| |\cos|$, one to one and from each epoch to the one before, leads to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Array = NDArray[np.float64]

CANDIDATES = 4  # singular vectors, in multiples of the number of directions


@dataclass(frozen=True, eq=False)
class Growth:
    """Growth of k directions over E epochs.

    Attributes
    ----------
    strength
        (E, k) u_j^T dW v_j.
    matched
        (E, k) Singular value of the match.
    cosine
        (E, k) |a.u_j| |b.v_j| of the match a, b with the direction at the end.
    half
        (k,) Epoch of half growth.
    left, right
        (E, N, k) Singular vectors of the matches.
    """

    strength: Array
    matched: Array
    cosine: Array
    half: Array
    left: Array
    right: Array


def growth(epochs: Sequence[int], changes: Sequence[Array], U: Array, s: Array, Vt: Array, last: int) -> Growth:
    """Return the growth of directions.

    Parameters
    ----------
    epochs, changes
        Numbers of completed epochs, increasing, and dW after them.
    U, s, Vt
        The k directions at the end, (n, k), (k,) and (k, m).
    last
        Number of completed epochs at the end.
    """
    k = len(s)
    strength, matched, cosine = (np.zeros((len(epochs), k)) for _ in range(3))
    left, right = np.zeros((len(epochs), len(U), k)), np.zeros((len(epochs), Vt.shape[1], k))
    A, B = U, Vt.T
    for at in reversed(range(len(epochs))):
        dW = changes[at]
        strength[at] = np.einsum("ik,ik->k", U, dW @ Vt.T)
        if not dW.any():
            continue
        P, values, Qt = np.linalg.svd(dW, full_matrices=False)
        P, Qt = P[:, : CANDIDATES * k], Qt[: CANDIDATES * k]
        rows, columns = linear_sum_assignment(-np.abs(A.T @ P) * np.abs(Qt @ B).T)
        A, B = P[:, columns], Qt[columns].T
        matched[at] = values[columns]
        cosine[at] = np.abs((A * U).sum(0) * (B * Vt.T).sum(0))
        left[at], right[at] = A, B
        assert len(rows) == k
    return Growth(strength, matched, cosine, half_growth(epochs, strength, s, last), left, right)


def half_growth(epochs: Sequence[int], strength: Array, final: Array, last: int) -> Array:
    """Return the epoch at which each direction first had half of its final strength, (k,).

    Between two epochs that are known the strength is taken to be linear; it is 0 at epoch 0.

    Parameters
    ----------
    epochs, strength
        Known epochs and strengths, (E,) and (E, k).
    final, last
        Strengths at the end, (k,), and the number of epochs there.
    """
    times, values = [float(epoch) for epoch in epochs], strength
    if not times or times[0] > 0:
        times, values = [0.0, *times], np.vstack([np.zeros(len(final)), values.reshape(-1, len(final))])
    if times[-1] < last:
        times, values = [*times, float(last)], np.vstack([values, final])
    half = np.full(len(final), np.nan)
    for j, target in enumerate(final / 2):
        reached = np.flatnonzero(values[:, j] >= target)
        if not reached.size or target <= 0:
            continue
        at = int(reached[0])
        low = values[at - 1, j] if at else 0.0
        before = times[at - 1] if at else 0.0
        half[j] = before + (times[at] - before) * (target - low) / (values[at, j] - low) if at else times[0]
    return half
