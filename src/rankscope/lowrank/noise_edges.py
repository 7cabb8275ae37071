r"""Ranks of a change from its singular values, and the levels of noise that they are compared with.

A singular value is compared with three levels:

- *rounding*: what the number format of the weights can explain (`change.py`);
- *a random change of the same size and norm*: an m x n matrix of independent entries with the variance $\sigma^2$ has
  its largest singular value at the edge $\sigma (\sqrt m + \sqrt n)$ (Marchenko & Pastur 1967). With
  $|\Delta W|^2 = m n \sigma^2$, strong directions raise the edge that they are compared with;
- *the noise without them*: the edge of the flat bulk that the other singular values form, if they do (`bulk.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.linalg import leading_triplets
from rankscope.lowrank.anatomy.intruders import intruders_between
from rankscope.lowrank.anatomy.visibility import visibility
from rankscope.lowrank.bulk import FEWEST, flat_bulk
from rankscope.lowrank.change import Change, FactoredChange
from rankscope.lowrank.sign_flips import stand_out_of_errors

EXACT_UP_TO = 1024
"""Smaller side up to which all singular values are computed to rounding, in half a second, of matrices in double
precision."""

EXACT_OF_ROUNDED_UP_TO = 256
"""The same of matrices in a narrower type, whose rounding is larger than 1e-8 of the largest value."""

COMPLETE_UP_TO = 4096
"""Smaller side up to which all are computed, to 1e-8 of the largest: the leading ones alone would take as long."""

LISTED = 64
"""Number of singular values that are returned, and computed where not all are."""

FRACTIONS = (90, 95, 99)
ALONG = 0.1
"""Cosine of the angle between dW and W0 from which the ranks of dW without its component along W0 are computed."""


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
    flat_bulk: bool | None  # whether the other values form a flat bulk; None if too few values are known to tell
    noise_edge: float | None  # edge of this bulk; None without one
    standing_out: int | None  # number of values above it; None without one
    initial_cosine: float | None  # cosine of the angle between dW and W0, -1 where W0 only shrank
    scaling: float | None  # c of dW = c W0 + rest, by least squares
    rest_norm: float | None  # |dW - c W0| with the best c, None where W0 is zero or not known
    rest_rank_90: int | None  # ranks of dW - c W0; None where less than 1 % of |dW|^2 lies along W0
    rest_rank_95: int | None
    rest_rank_99: int | None
    initial_edge: float | None  # edge of noise of the size and norm of W0; None where W0 is not known
    visible: int | None  # directions strong enough to be seen in W alone, if W0 is noise; None if more than are listed
    intruders: int | None  # leading singular vectors of W that none of W0 resembles; None unless asked for
    intruder_share: float | None  # their share of |W|^2
    singular_values: tuple[float, ...]  # the leading ones
    singular_value_error: float
    method: str


def spectrum_of(change: Change, exact: bool = False, device: str = "cpu") -> Spectrum:
    """Return the singular values of a change: all of them where that is fast or `exact`, else the leading ones."""
    if isinstance(change, FactoredChange):
        values = change.singular_values
        error = float(np.finfo(float).eps) * max(change.shape) * values[0]
        return Spectrum(change.shape, values, True, float(np.sum(values**2)), error, "factors")
    return _spectrum_of_matrix(change.matrix, change.stored_in_double, exact, device)


def _spectrum_of_matrix(matrix: Array, precise: bool, exact: bool, device: str) -> Spectrum:
    m, n = matrix.shape
    eps = float(np.finfo(float).eps)
    A = torch.from_numpy(matrix).to(device)
    if min(m, n) <= (EXACT_UP_TO if precise else EXACT_OF_ROUNDED_UP_TO):
        values = torch.linalg.svdvals(A.double()).cpu().numpy()
        relative_error, method = eps * max(m, n), "exact"
    elif min(m, n) <= COMPLETE_UP_TO or exact:
        values = torch.linalg.eigvalsh(_gram(A)).flip(0).clamp_min(0).sqrt().cpu().numpy()
        relative_error, method = math.sqrt(eps), "gram"
    else:
        found = leading_triplets(A, LISTED)
        square = float(torch.sum(A.square(), dtype=torch.float64))
        return Spectrum((m, n), found.s.double().cpu().numpy(), False, square, float(found.error.max()), "randomized")
    return Spectrum((m, n), values, True, float(np.sum(values**2)), relative_error * values[0], method)


def measure(change: Change, exact: bool = False, device: str = "cpu", intruders: bool = False) -> Measures:
    """Return the measures of a change that is not zero.

    Parameters
    ----------
    exact
        Compute all singular values of large matrices too.
    device
        Where decompositions are computed, as torch names it.
    intruders
        Count the intruder dimensions, which takes a decomposition of W0.
    """
    spectrum = spectrum_of(change, exact, device)
    measures = measures_of(spectrum, change.rounding)
    if change.initial_norm is not None:
        measures = replace(measures, **_beside_initial(change, change.initial_norm, spectrum, intruders, device))
    # Errors of rounding are larger where weights are, unlike those of the flat bulk of noise.
    rounded = np.median(spectrum.values) < change.rounding and measures.noise_edge != measures.rounding_noise
    if rounded and min(spectrum.shape) >= FEWEST:
        bulk = stand_out_of_errors(change, device)
        measures = replace(measures, flat_bulk=bulk.flat, noise_edge=bulk.edge, standing_out=bulk.above)
    cosine = change.initial_cosine
    if cosine is None:
        return measures
    assert change.initial_norm
    scaling = cosine * change.norm / change.initial_norm
    norm = change.norm * math.sqrt(1 - cosine**2)
    if abs(cosine) < ALONG:
        return replace(measures, initial_cosine=cosine, scaling=scaling, rest_norm=norm)
    rest = _spectrum_of_matrix(change.without_scaling(), change.stored_in_double, exact, device)
    # A rest of rounding errors has no directions.
    empty = rest.values[0] <= measures.rounding_noise
    ranks = [0 if empty else _known(_rank_for(rest, f / 100)) for f in FRACTIONS]
    return replace(
        measures,
        initial_cosine=cosine,
        scaling=scaling,
        rest_norm=math.sqrt(rest.square),
        rest_rank_90=ranks[0],
        rest_rank_95=ranks[1],
        rest_rank_99=ranks[2],
    )


def _beside_initial(
    change: Change, initial_norm: float, spectrum: Spectrum, intruders: bool, device: str
) -> dict[str, Any]:
    """Return what is seen of a change in W: the edge of W0, visible directions, intruder dimensions."""
    found = visibility(spectrum.values, spectrum.shape, initial_norm)
    visible = int(np.count_nonzero(found.visible & (spectrum.values > change.rounding)))
    unseen = not spectrum.complete and visible == len(spectrum.values)
    measured: dict[str, Any] = {"initial_edge": found.edge, "visible": None if unseen else visible}
    if intruders:
        W0 = torch.from_numpy(change.before).to(device)
        counted = intruders_between(W0, W0 + torch.from_numpy(change.matrix).to(W0))
        measured |= {"intruders": counted.number, "intruder_share": counted.share}
    return measured


def measures_of(spectrum: Spectrum, rounding: float) -> Measures:
    """Return the measures of a spectrum, with the level of rounding of the weights; nothing is known of W0."""
    s = spectrum.values
    # Smaller values cannot be told from zero: the rounding of the weights, and of the computation.
    noise = max(rounding, spectrum.error if spectrum.complete else 1e-5 * float(s[0]))
    ranks = {f: _rank_for(spectrum, f / 100) for f in FRACTIONS}
    numerical = _count(spectrum, noise)
    edge = math.sqrt(spectrum.square) * sum(1 / math.sqrt(size) for size in spectrum.shape)
    bulk = flat_bulk(s, spectrum.shape, spectrum.square, spectrum.complete, noise)
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
        flat_bulk=bulk.flat,
        noise_edge=bulk.edge,
        standing_out=bulk.above,
        initial_cosine=None,
        scaling=None,
        rest_norm=None,
        rest_rank_90=None,
        rest_rank_95=None,
        rest_rank_99=None,
        initial_edge=None,
        visible=None,
        intruders=None,
        intruder_share=None,
        singular_values=tuple(s[:LISTED].tolist()),
        singular_value_error=float(spectrum.error),
        method=spectrum.method,
    )


def _gram(matrix: Tensor) -> Tensor:
    """Return the smaller of A A^T and A^T A in double precision, without a double copy of A."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    gram = torch.zeros(len(wide), len(wide), dtype=torch.float64, device=matrix.device)
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
