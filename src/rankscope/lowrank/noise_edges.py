r"""Ranks of a change from its singular values, and the levels of noise that they are compared with.

A singular value is compared with three levels:

- *rounding*: what the number format of the weights can explain (`change.py`);
- *a random change of the same size and norm*: an m x n matrix of independent entries with the variance $\sigma^2$ has
  its largest singular value at the edge $\sigma (\sqrt m + \sqrt n)$ (Marchenko & Pastur 1967). With
  $|\Delta W|^2 = m n \sigma^2$, strong directions raise the edge that they are compared with;
- *the noise without them*: the values above the edge are removed, $\sigma$ is estimated from the rest, and this is
  repeated until no further value is above the edge. The largest singular value of a random matrix scatters around the
  edge, so the level is the one that one in a hundred random matrices exceeds (Johnstone 2001).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.linalg import leading_triplets
from rankscope.lowrank.change import Change, FactoredChange

EXACT_UP_TO = 1024
"""Smaller side up to which all singular values are computed to rounding, in half a second."""

COMPLETE_UP_TO = 2048
"""Smaller side up to which all are computed, to 1e-8 of the largest: the leading ones alone would take as long."""

LISTED = 64
"""Number of singular values that are returned, and computed where not all are."""

FRACTIONS = (90, 95, 99)
TRACY_WIDOM_99 = 2.0234
"""The 99 % quantile of the Tracy-Widom law of real random matrices."""

Array = NDArray[np.float64]
Bounds = tuple[int, int]


class Spectrum(NamedTuple):
    """Singular values of a matrix, largest first: all of them, or the leading ones."""

    shape: tuple[int, int]
    values: Array
    complete: bool  # all values that are not listed are zero
    square: float  # sum of the squares of all of them
    error: float  # each of the `LISTED` values is within this of one of the matrix
    method: str  # "exact", "gram" (from the smaller product of the matrix with itself), "factors" or "randomized"


@dataclass(frozen=True)
class Measures:
    """Measures of one change. A rank that is not known exactly is None; its bounds are always known."""

    norm: float  # |dW|, Frobenius
    stable_rank: float  # |dW|^2 / s1^2
    rank_90: int | None  # number of leading singular values with that percentage of |dW|^2
    rank_95: int | None
    rank_99: int | None
    rank_90_bounds: Bounds
    rank_95_bounds: Bounds
    rank_99_bounds: Bounds
    numerical_rank: int | None  # number of singular values above the level of rounding
    numerical_rank_bounds: Bounds
    rounding_noise: float  # this level
    random_edge: float  # edge of a random matrix of the same size and norm
    above_random_edge: int | None
    noise_edge: float  # edge of the noise without the values that stand out
    standing_out: int | None  # number of these, all above the level of rounding
    singular_values: tuple[float, ...]  # the leading ones
    singular_value_error: float
    method: str


def spectrum_of(change: Change, exact: bool = False) -> Spectrum:
    """Return the singular values of a change: all of them where that is fast or `exact`, else the leading ones."""
    m, n = change.shape
    eps = float(np.finfo(float).eps)
    if isinstance(change, FactoredChange):
        values, relative_error, method = change.singular_values, eps * max(m, n), "factors"
    elif min(m, n) <= EXACT_UP_TO and change.matrix.dtype == np.float64:
        values = torch.linalg.svdvals(torch.from_numpy(change.matrix)).numpy()
        relative_error, method = eps * max(m, n), "exact"
    elif min(m, n) <= COMPLETE_UP_TO or exact:
        gram = _gram(torch.from_numpy(change.matrix))
        values = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0).sqrt().numpy()
        relative_error, method = math.sqrt(eps), "gram"
    else:
        found = leading_triplets(torch.from_numpy(change.matrix), LISTED)
        error = float(found.error.max())
        return Spectrum((m, n), found.s.double().numpy(), False, change.norm**2, error, "randomized")
    return Spectrum((m, n), values, True, float(np.sum(values**2)), relative_error * values[0], method)


def measure(change: Change, exact: bool = False) -> Measures:
    """Return the measures of a change that is not zero; `exact` computes all singular values of large matrices too."""
    return measures_of(spectrum_of(change, exact), change.rounding)


def measures_of(spectrum: Spectrum, rounding: float) -> Measures:
    """Return the measures of a spectrum, with the level of rounding of the weights."""
    s = spectrum.values
    # Smaller values cannot be told from zero: the rounding of the weights, and of the computation.
    noise = max(rounding, spectrum.error if spectrum.complete else 1e-5 * float(s[0]))
    ranks = {f: _rank_for(spectrum, f / 100) for f in FRACTIONS}
    numerical = _count(spectrum, noise)
    edge = math.sqrt(spectrum.square) * sum(1 / math.sqrt(size) for size in spectrum.shape)
    noise_edge, standing_out = _standing_out(spectrum, noise)
    return Measures(
        norm=math.sqrt(spectrum.square),
        stable_rank=spectrum.square / float(s[0]) ** 2,
        rank_90=_known(ranks[90]),
        rank_95=_known(ranks[95]),
        rank_99=_known(ranks[99]),
        rank_90_bounds=ranks[90],
        rank_95_bounds=ranks[95],
        rank_99_bounds=ranks[99],
        numerical_rank=_known(numerical),
        numerical_rank_bounds=numerical,
        rounding_noise=noise,
        random_edge=edge,
        above_random_edge=_known(_count(spectrum, edge)),
        noise_edge=noise_edge,
        standing_out=_known(standing_out),
        singular_values=tuple(s[:LISTED].tolist()),
        singular_value_error=float(spectrum.error),
        method=spectrum.method,
    )


def _gram(matrix: Tensor) -> Tensor:
    """Return the smaller of A A^T and A^T A in double precision, without a double copy of A."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    gram = torch.zeros(len(wide), len(wide), dtype=torch.float64)
    for start in range(0, wide.shape[1], 1024):
        columns = wide[:, start : start + 1024].double()
        gram.addmm_(columns, columns.t())
    return gram


def _known(bounds: Bounds) -> int | None:
    return bounds[0] if bounds[0] == bounds[1] else None


def _count(spectrum: Spectrum, level: float) -> Bounds:
    """Return bounds of the number of singular values above a level."""
    above = int(np.count_nonzero(spectrum.values > level))
    unseen = not spectrum.complete and above == len(spectrum.values)
    return above, min(spectrum.shape) if unseen else above


def _rank_for(spectrum: Spectrum, fraction: float) -> Bounds:
    """Return bounds of the number of leading singular values with this fraction of the sum of squares."""
    s2 = spectrum.values**2
    # A sum in another order may end a few roundings short.
    wanted = fraction * spectrum.square * (1 - 1e-12)
    reached = np.flatnonzero(np.cumsum(s2) >= wanted)
    if reached.size:
        return int(reached[0]) + 1, int(reached[0]) + 1
    seen = len(s2)
    if spectrum.complete:
        return seen, seen
    rest, unseen = spectrum.square - float(s2.sum()), min(spectrum.shape) - seen
    missing = wanted - float(s2.sum())
    # The squares of the unseen values sum to `rest`. The fewest are needed if each is as large as the last seen value,
    # the most if all are equal, as larger ones come first.
    least = seen + math.ceil(missing / (float(spectrum.values[-1]) + spectrum.error) ** 2)
    most = seen + min(unseen, math.ceil(missing / (rest / unseen)))
    return min(least, most), most


def _standing_out(spectrum: Spectrum, rounding: float) -> tuple[float, Bounds]:
    """Return the edge of the noise, and bounds of the number of singular values above it."""
    m, n = spectrum.shape
    s, s2 = spectrum.values, spectrum.values**2
    excess = _excess(m, n)
    out = 0
    while True:
        rest = float(s2[out:].sum()) if spectrum.complete else max(spectrum.square - float(s2[:out].sum()), 0.0)
        freedom = (m - out) * (n - out)
        edge = math.sqrt(rest / freedom) * (math.sqrt(m) + math.sqrt(n)) if freedom else 0.0
        above = int(np.count_nonzero(s > max(edge * excess, rounding)))
        if above <= out:
            return edge, _count(spectrum, max(edge * excess, rounding))
        out = above


def _excess(m: int, n: int) -> float:
    """Return the ratio to the edge that the largest singular value stays below in 99 of 100 random matrices."""
    if min(m, n) < 2:
        return 1.0
    a, b = math.sqrt(max(m, n) - 1), math.sqrt(min(m, n))
    center, scale = (a + b) ** 2, (a + b) * (1 / a + 1 / b) ** (1 / 3)
    return math.sqrt(center + TRACY_WIDOM_99 * scale) / (math.sqrt(m) + math.sqrt(n))
