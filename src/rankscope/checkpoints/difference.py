r"""dW = W - W0 of one matrix, and how much of it may be no more than the rounding of what was stored.

Both files are read a block of rows at a time, so that apart from dW itself little is in memory. Every entry that a
file holds was rounded to the numbers its type has; a type with the machine epsilon $\epsilon$ leaves an error of up to
$\epsilon |w| / 2$, and of at most $\epsilon |w| / \sqrt{12}$ in the mean square. These errors are as good as
independent of each other, so that together they are a random matrix, and one whose entries have the variances $v_{ij}$
has no singular value far above $\max_i \sqrt{\sum_j v_{ij}} + \max_j \sqrt{\sum_i v_{ij}}$ (Bandeira & van Handel
2016). What is above that was not made by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rankscope.checkpoints.kinds import ALL, Part, matrix_shape
from rankscope.checkpoints.source import Source, Unreadable

BLOCK = 2**18
"""Entries in a block of rows."""

DOUBLE_UP_TO = 2**24
"""Entries up to which dW is kept in double precision: 128 MB."""


class Difference(NamedTuple):
    """dW and what goes with it.

    Attributes
    ----------
    matrix
        dW, (rows, columns), unfolded; in double precision unless it is large.
    norm, initial_norm
        |dW| and |W0|.
    rounding
        The largest singular value that the rounding of the stored weights can explain.
    """

    matrix: Tensor
    norm: float
    initial_norm: float
    rounding: float


def difference(before: tuple[Source, str], after: tuple[Source, str], part: Part | None = None) -> Difference:
    """Return the change from one tensor to another of the same shape, or of a part of them.

    Raises
    ------
    Unreadable
        If the values are damaged, or not all finite.
    """
    dtypes = [source.entries[name].dtype for source, name in (before, after)]
    assert all(isinstance(dtype, torch.dtype) for dtype in dtypes)
    rows, columns = matrix_shape(before[0].entries[before[1]].shape)
    first, last, _ = (part.rows if part else ALL).indices(rows)
    across = part.columns if part else ALL
    width = len(range(columns)[across])
    entries = (last - first) * width
    kind = torch.float64 if entries <= DOUBLE_UP_TO or torch.float64 in dtypes else torch.float32
    matrix = torch.empty(last - first, width, dtype=kind)
    squares = {"change": 0.0, "initial": 0.0}
    in_rows = torch.empty(last - first, dtype=torch.float64)
    in_columns = torch.zeros(width, dtype=torch.float64)
    largest = 0.0
    for start, stop in _blocks(first, last, columns):
        W0, W = (
            source.rows(name, start, stop).reshape(stop - start, columns)[:, across].to(kind)
            for source, name in (before, after)
        )
        for which, values in (("before", W0), ("after", W)):
            if not bool(torch.isfinite(values).all()):
                bad = int((~torch.isfinite(values)).sum())
                raise Unreadable(f"values {which} are not finite ({bad} in rows {start} to {stop - 1})")
        block = torch.sub(W, W0, out=matrix[start - first : stop - first])
        squares["change"] += float(torch.sum(block.square(), dtype=torch.float64))
        squares["initial"] += float(torch.sum(W0.square(), dtype=torch.float64))
        variances = _error_squared(W0, dtypes[0]) + _error_squared(W, dtypes[1])
        in_rows[start - first : stop - first] = variances.sum(1, dtype=torch.float64)
        in_columns += variances.sum(0, dtype=torch.float64)
        largest = max(largest, float(variances.max()))
        del W0, W
    for source, _ in (before, after):
        source.release()
    edge = math.sqrt(float(in_rows.max())) + math.sqrt(float(in_columns.max())) + 4 * math.sqrt(largest)
    # No singular value is above the norm, no error above half a unit in the last place, sqrt(3) of its mean square, and
    # those of W0 and W together not above sqrt(2) of both. In tiny matrices this says more.
    rounding = min(edge, math.sqrt(6 * float(in_rows.sum())))
    return Difference(matrix, math.sqrt(squares["change"]), math.sqrt(squares["initial"]), rounding)


def norm_of(source: Source, name: str, part: Part | None = None) -> float:
    """Return the Frobenius norm of a tensor or a part of it.

    Raises
    ------
    Unreadable
        If the values are damaged, or not all finite.
    """
    rows, columns = matrix_shape(source.entries[name].shape)
    first, last, _ = (part.rows if part else ALL).indices(rows)
    total = 0.0
    for start, stop in _blocks(first, last, columns):
        block = source.rows(name, start, stop).reshape(stop - start, columns)[:, part.columns if part else ALL]
        total += float(torch.sum(block.double().square()))
    source.release()
    if not math.isfinite(total):
        raise Unreadable("values before are not finite")
    return math.sqrt(total)


def _blocks(first: int, last: int, columns: int) -> Iterator[tuple[int, int]]:
    step = max(1, BLOCK // max(1, columns))
    for start in range(first, last, step):
        yield start, min(start + step, last)


def _error_squared(values: Tensor, dtype: torch.dtype | str) -> Tensor:
    """Return the mean square of the rounding error of each value."""
    assert isinstance(dtype, torch.dtype)
    info = torch.finfo(dtype)
    # Below the smallest normal number the spacing stays what it is there.
    return values.abs().clamp_min(info.tiny).square_().mul_(info.eps**2 / 12)
