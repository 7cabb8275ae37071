r"""The flat bulk of singular values that noise forms, and the directions that stand out of it.

The singular values of an m x n matrix of independent entries with the standard deviation $\sigma$ fill an interval
with the upper edge $\sigma (\sqrt m + \sqrt n)$, with a known density (Marchenko & Pastur 1967). Directions that are
stronger stand out of it. A spectrum that falls smoothly, as fine-tuning often leaves it, has no such interval, and a
count of directions above an edge would depend on where the edge is put. Therefore the values below the edge are
compared with the density: if they do not follow it there is no flat bulk, and no count.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TRACY_WIDOM_99 = 2.0234
"""The 99 % quantile of the Tracy-Widom law of real random matrices (Johnstone 2001)."""

TRACY_WIDOM_MEAN = -1.2065

FEWEST = 12
"""Values that a bulk must have: of fewer it cannot be told whether they follow the density."""

TOLERANCE, TOLERANCE_OF_FEW = 0.005, 2.2
"""Largest distance between the distributions, 0.005 + 2.2 / number of values.

Of 100 matrices of noise, 99 stay below it from 12 x 12 to 1000 x 1000. Singular values k^-p with p between 0.5 and 3
are above it wherever the bulk is taken to begin.
"""

TOLERANCE_OF_LEADING = 0.05
"""The same if only the leading values are known, which a randomized decomposition finds a few percent too small."""

GAP = 10.0
"""Ratio of the weakest direction to the values below the level of rounding, from which these need no further test."""

GRID = 2001

Array = NDArray[np.float64]


class Bulk(NamedTuple):
    """What the weaker singular values form."""

    flat: bool | None  # None if it cannot be told from the values that are known
    edge: float | None  # upper edge of the bulk
    above: int | None  # number of values that stand out


NONE, UNKNOWN = Bulk(False, None, None), Bulk(None, None, None)


def flat_bulk(values: Array, shape: tuple[int, int], square: float, complete: bool, rounding: float) -> Bulk:
    """Return the flat bulk of a spectrum, and how many values stand out of it.

    The largest singular value of a random matrix scatters around the edge. A value stands out if it is above the level
    that one in a hundred random matrices exceeds.

    Parameters
    ----------
    values
        Singular values, largest first: all of them if `complete`, else the leading ones.
    shape
        (m, n) of the matrix.
    square
        Sum of the squares of all values.
    rounding
        Level below which values are due to the rounding of the weights or of the decomposition.
    """
    above = int(np.count_nonzero(values > rounding))
    if complete and 0 < above < min(shape) and (above == len(values) or values[above - 1] > GAP * values[above]):
        return Bulk(True, rounding, above)
    starts = [0] if not complete else [0, _start_by_median(values, shape)]
    for start in starts:
        out, edge = _settled(values, shape, square, complete, start)
        if out == len(values) and not complete:
            return UNKNOWN  # All known values stand out; the others may too.
        if min(shape) - out >= FEWEST and _is_flat(values[out:], shape, out, edge):
            return Bulk(True, edge, out)
    return NONE


def _settled(values: Array, shape: tuple[int, int], square: float, complete: bool, out: int) -> tuple[int, float]:
    """Return how many values are above the edge of the others, and this edge, beginning with `out` values."""
    m, n = shape
    s2 = values**2
    while True:
        rest = float(s2[out:].sum()) if complete else max(square - float(s2[:out].sum()), 0.0)
        rows, columns = m - out, n - out
        if min(rows, columns) == 0:
            return out, 0.0
        edge = math.sqrt(rest / (rows * columns)) * (math.sqrt(rows) + math.sqrt(columns))
        above = int(np.count_nonzero(values > edge * _excess(rows, columns)))
        if above <= out:
            return out, edge
        out = above


def _start_by_median(values: Array, shape: tuple[int, int]) -> int:
    """Return how many values are above the edge of a bulk that has the median of the others.

    Many equally strong directions hide in the sum of squares, but hardly move the median.
    """
    m, n = shape
    out = 0
    while min(m, n) - out >= FEWEST:
        quantiles, positions = _density(m - out, n - out)
        scale = float(np.median(values[out:])) / float(np.interp(0.5, quantiles, positions))
        above = int(np.count_nonzero(values > scale * positions[-1] * _excess(m - out, n - out)))
        if above <= out:
            break
        out = above
    return out


def _is_flat(values: Array, shape: tuple[int, int], out: int, edge: float) -> bool:
    """Return whether these values, the largest after `out` others, have the distribution of noise with this edge."""
    if not edge:
        return False
    m, n = (size - out for size in shape)
    quantiles, positions = _density(m, n)
    count = min(m, n)
    tolerance = TOLERANCE + TOLERANCE_OF_FEW / count if len(values) == count else TOLERANCE_OF_LEADING
    found = np.interp(values / edge, positions / positions[-1], quantiles)
    expected = 1 - (np.arange(len(values)) + 0.5) / count
    return bool(np.abs(found - expected).max() < tolerance)


@lru_cache(maxsize=16)
def _density(m: int, n: int) -> tuple[Array, Array]:
    """Return the cumulative distribution of the singular values of noise, on a grid of values in units of sigma.

    With c the ratio of the sides, the squares are 1 + c + 2 sqrt(c) cos(theta), and theta has a density proportional to
    sin(theta)^2 over the square.
    """
    c = min(m, n) / max(m, n)
    theta = np.linspace(0, np.pi, GRID)
    squares = np.maximum(1 + c + 2 * math.sqrt(c) * np.cos(theta), np.finfo(float).tiny)
    # At c = 1 and theta = pi it is 0 / 0, with the limit 1.
    density = np.where(squares > 1e-12, np.sin(theta) ** 2 / squares, 1.0 if c == 1 else 0.0)
    cumulative = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return (1 - cumulative / cumulative[-1])[::-1], math.sqrt(max(m, n)) * np.sqrt(squares)[::-1]


def _excess(m: int, n: int) -> float:
    """Return the ratio to the edge that the largest singular value stays below in 99 of 100 random matrices."""
    if min(m, n) < 2:
        return 1.0
    return _largest(m, n, TRACY_WIDOM_99) / (math.sqrt(m) + math.sqrt(n))


def excess_of_mean(m: int, n: int) -> float:
    """Return the ratio of the level that 99 of 100 random matrices stay below to the mean of their largest value."""
    return _largest(m, n, TRACY_WIDOM_99) / _largest(m, n, TRACY_WIDOM_MEAN)


def _largest(m: int, n: int, scatter: float) -> float:
    """Return the largest singular value of noise of standard deviation 1, at this value of the Tracy-Widom law."""
    a, b = math.sqrt(max(m, n) - 1), math.sqrt(min(m, n))
    center, scale = (a + b) ** 2, (a + b) * (1 / a + 1 / b) ** (1 / 3)
    return math.sqrt(center + scatter * scale)
