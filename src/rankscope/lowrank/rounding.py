r"""The level of a change that the rounding of stored weights can explain.

W0 is where the training began, so it is exact as it is stored. W was rounded when it was stored: where the numbers of a
type are $h$ apart, the error is up to $h / 2$, and $h / \sqrt{12}$ in the root mean square. These errors are close to
independent, so together they are a random matrix. One whose entries have the variances $v_{ij}$ has no singular value
far above $\max_i \sqrt{\sum_j v_{ij}} + \max_j \sqrt{\sum_i v_{ij}}$ (Bandeira & van Handel 2016). Singular values of
dW above this level were not made by rounding. As an error is part of the change that is found, no row or column has
more of it than its own norm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

COARSER = {
    torch.float64: (torch.bfloat16, torch.float16, torch.float32),
    torch.float32: (torch.bfloat16, torch.float16),
}
"""Types whose numbers are often stored in a wider type, narrowest first."""

FEWEST = 16
"""Entries that are not 0 from which it is no coincidence that all of them are numbers of a narrower type."""


def effective_type(values: Tensor, step: int) -> torch.dtype:
    """Return the narrowest type that holds all values exactly: bfloat16 numbers are often stored as float32.

    Parameters
    ----------
    values
        A matrix, of which `step` rows are read at a time.
    """
    left = list(COARSER.get(values.dtype, ()))
    nonzero = 0
    for start in range(0, len(values), step):
        if not left:
            break
        block = values[start : start + step].detach()
        left = [kind for kind in left if torch.equal(block.to(kind).to(block.dtype), block)]
        nonzero += int(torch.count_nonzero(block))
    return left[0] if left and nonzero >= FEWEST else values.dtype


class Rounding:
    """Sums of the mean square errors of W, row by row and column by column, from blocks of rows.

    Parameters
    ----------
    rows, columns
        Shape of the matrix.
    dtype
        Type of the numbers of W.
    """

    def __init__(self, rows: int, columns: int, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._rows, self._found_rows = (torch.zeros(rows, dtype=torch.float64) for _ in range(2))
        self._columns, self._found_columns = (torch.zeros(columns, dtype=torch.float64) for _ in range(2))
        self._largest = 0.0

    def add(self, first: int, after: Tensor, change: Tensor) -> None:
        """Add the rows of W and dW that begin with row `first`."""
        rows = slice(first, first + len(after))
        squares = change.square()
        self._found_rows[rows] = squares.sum(1, dtype=torch.float64)
        self._found_columns += squares.sum(0, dtype=torch.float64)
        if not self._dtype.is_floating_point:
            return
        info = torch.finfo(self._dtype)
        # Below the smallest normal number the spacing stays what it is there.
        _, exponents = torch.frexp(after.abs().clamp_min(info.tiny))
        variances = torch.exp2(exponents.to(after.dtype)).mul_(info.eps / 2).square_().div_(12)
        self._rows[rows] = variances.sum(1, dtype=torch.float64)
        self._columns += variances.sum(0, dtype=torch.float64)
        self._largest = max(self._largest, float(variances.max()))

    def level(self) -> float:
        """Return the largest singular value of dW that rounding can explain."""
        rows, columns = (
            math.sqrt(float(torch.minimum(errors, found).max()))
            for errors, found in ((self._rows, self._found_rows), (self._columns, self._found_columns))
        )
        # No singular value is above the norm, and no error above half a unit in the last place, sqrt(3) of its root
        # mean square. For tiny matrices this bound is the smaller one.
        return min(rows + columns + 4 * math.sqrt(self._largest), math.sqrt(3 * float(self._rows.sum())))
