"""The few directions that learning ever visits, found by the Krylov chains of Golub and Kahan.

Learning the fixed point multiplies the input vector by R^T R and the output vector by R R^T, over and over. K steps of
Golub-Kahan bidiagonalisation from a vector v give orthonormal columns V and U with R V = U B and B upper bidiagonal:
all that K such products can reach, at the price of K. Full reorthogonalisation keeps the columns orthogonal to the
last digit. (theory.md, section 3)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Apply = Callable[[Array], Array]

# A new direction below this, relative to the vector it was split from, is rounding noise: the chain is closed.
NEGLIGIBLE = 1e-13


class Chain(NamedTuple):
    """R V = U B: V (n, K) with the start as its first column, U (n, K), B (K, K) upper bidiagonal, diagonal > 0."""

    V: Array
    U: Array
    B: Array


def golub_kahan(apply: Apply, apply_transposed: Apply, start: Array, steps: int) -> Chain:
    """Return the chain grown from `start`, shorter than `steps` if it closes before.

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


def _orthogonal(x: Array, columns: list[Array]) -> Array:
    """Return x without its part along orthonormal columns; twice, which is what rounding needs."""
    if not columns:
        return x
    basis = np.stack(columns, axis=1)
    for _ in range(2):
        x = x - basis @ (basis.T @ x)
    return x
