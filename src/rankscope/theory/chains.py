"""Golub-Kahan bases of the few directions in which learning takes place.

Learning the fixed point repeatedly multiplies the input vector by R^T R and the output vector by R R^T. K steps of
Golub-Kahan bidiagonalization from a vector v give orthonormal columns V and U with R V = U B and B upper bidiagonal,
which span the Krylov space of K such products. Full reorthogonalization keeps the columns orthogonal to rounding.
Derivation: docs/guides/theory.md, "Reduction to few directions".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Apply = Callable[[Array], Array]

# A new direction below this, relative to the vector it was split from, is rounding: the chain is complete.
NEGLIGIBLE = 1e-13
# Relative singular value below which two directions coincide.
SAME = 1e-10


class Chain(NamedTuple):
    """R V = U B: V (n, K) with the start as its first column, U (n, K), B (K, K) upper bidiagonal, diagonal > 0."""

    V: Array
    U: Array
    B: Array


def golub_kahan(apply: Apply, apply_transposed: Apply, start: Array, steps: int) -> Chain:
    """Return the chain grown from `start`; it has fewer than `steps` directions if it closes earlier.

    Parameters
    ----------
    apply, apply_transposed
        x -> R x and x -> R^T x, for vectors (n,).
    start
        (n,), not zero.
    """
    V, U = [start / np.linalg.norm(start)], list[Array]()
    diagonal, above = list[float](), list[float]()
    while True:
        image = apply(V[-1])
        rest = _orthogonal(image, U)
        size = float(np.linalg.norm(rest))
        if size <= NEGLIGIBLE * np.linalg.norm(image):
            V.pop()
            break
        U.append(rest / size)
        diagonal.append(size)
        if len(U) == min(steps, len(start)):
            break
        back = apply_transposed(U[-1])
        rest = _orthogonal(back, V)
        size = float(np.linalg.norm(rest))
        if size <= NEGLIGIBLE * np.linalg.norm(back):
            break
        V.append(rest / size)
        above.append(size)
    B = np.diag(diagonal) + np.diag(above[: len(U) - 1], 1)
    return Chain(np.stack(V, axis=1), np.stack(U, axis=1), B)


class Spaces(NamedTuple):
    """Subspaces in which learning with input m and output w takes place.

    Attributes
    ----------
    rows, columns
        (n, r) orthonormal bases of the space of R m and w, and of that of R^T w and m.
    row_ends, column_ends
        (ends, r) linear functionals that give the amplitude at the ends of truncated chains.
    """

    rows: Array
    columns: Array
    row_ends: Array
    column_ends: Array


def chains_from(apply: Apply, apply_transposed: Apply, m: Array, w: Array, steps: int) -> Spaces:
    """Return the joint spaces of the chain of R from m and that of R^T from w, of `steps` directions each.

    If both chains together fill the space, the spaces are the whole space.

    Parameters
    ----------
    apply, apply_transposed
        x -> R x and x -> R^T x, for vectors (n,).
    m, w
        (n,), not zero, not necessarily orthogonal.
    """
    if 2 * steps >= len(m):
        whole, nothing = np.eye(len(m)), np.empty((0, len(m)))
        return Spaces(whole, whole, nothing, nothing)
    from_m = golub_kahan(apply, apply_transposed, m, steps)
    from_w = golub_kahan(apply_transposed, apply, w, steps)
    lengths = np.array([len(from_m.B), len(from_w.B)])
    last = np.cumsum(lengths)[lengths == steps] - 1
    # The two chains can share directions.
    halves = [
        np.linalg.svd(np.hstack(both), full_matrices=False) for both in ((from_m.U, from_w.V), (from_m.V, from_w.U))
    ]
    rank = max(int((s > SAME * s[0]).sum()) for _, s, _ in halves)
    bases = [left[:, :rank] for left, _, _ in halves]
    ends = [(right[:rank].T / np.maximum(s[:rank], SAME))[last] for _, s, right in halves]
    return Spaces(*bases, *ends)


def _orthogonal(x: Array, columns: list[Array]) -> Array:
    """Return x minus its projection on orthonormal columns, applied twice against rounding."""
    if not columns:
        return x
    basis = np.stack(columns, axis=1)
    for _ in range(2):
        x = x - basis @ (basis.T @ x)
    return x
