r"""The change dW = W - W0 of a weight matrix: its singular values, its norm, and its truncation to a rank.

The two matrices may be stored in any floating type.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.lowrank.rounding import Rounding, effective_type
from rankscope.validation import integer

Array = NDArray[np.float64]

BLOCK = 2**18
"""Entries of a block of rows: temporaries stay small beside a large matrix."""

DECOMPOSED_UP_TO = 1024
"""Size up to which a display in a notebook decomposes a matrix."""

DOUBLE_UP_TO = 2**24
"""Entries up to which dW is kept in double precision: 128 MB."""


class Change:
    """dW = W - W0 of one matrix, (post, pre).

    Computed in double precision, or in single precision where a matrix has more than 2^24 entries and is not stored in
    double precision.

    Attributes
    ----------
    matrix
        dW.
    norm, initial_norm
        Frobenius norms of dW and W0; `initial_norm` is None where W0 is not known.
    initial_product
        Sum of the products of the entries of dW and W0; None where W0 is not known.
    rounding
        The largest singular value of dW that the rounding of the stored weights can explain.
    stored_in_double
        Whether W or W0 is stored in double precision.
    """

    initial_norm: float | None
    initial_product: float | None

    def __init__(self, before: Tensor, after: Tensor) -> None:
        self._before, self._after = before, after
        self.stored_in_double = torch.float64 in (before.dtype, after.dtype)
        found = _subtract(before, after)
        self.norm, self.initial_norm, self.initial_product = found.norm, found.initial_norm, found.initial_product
        self.rounding = found.rounding
        self.matrix: Array = found.matrix.numpy()

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"{type(self).__name__}({rows} x {columns}, norm {self.norm:.4g})"

    def _repr_html_(self) -> str:
        from rankscope.plot import singular_values as plot_singular_values
        from rankscope.plot.html import card

        known = "svd" in vars(self) or min(self.shape) <= DECOMPOSED_UP_TO
        relative = {} if not self.initial_norm else {"norm / norm of W0": f"{self.norm / self.initial_norm:.3g}"}
        rows = {
            "shape": " x ".join(map(str, self.shape)),
            "norm": f"{self.norm:.4g}",
            **relative,
        }
        if not known:
            return card("Change dW = W - W0", rows)
        rows["largest singular values"] = ", ".join(f"{value:.3g}" for value in self.singular_values[:4])
        rows["directions with 95 % of |dW|²"] = str(int(np.searchsorted(self.variance_explained, 0.95)) + 1)
        return card("Change dW = W - W0", rows, [lambda ax: plot_singular_values(self, ax)])

    @property
    def shape(self) -> tuple[int, int]:
        """(post, pre)."""
        rows, columns = self.matrix.shape
        return rows, columns

    @cached_property
    def before(self) -> Array:
        """W0, (post, pre)."""
        before: Array = self._before.detach().cpu().double().numpy()
        return before

    @cached_property
    def after(self) -> Array:
        """W, (post, pre)."""
        after: Array = self._after.detach().cpu().double().numpy()
        return after

    @property
    def initial_cosine(self) -> float | None:
        """Cosine of the angle between dW and W0, -1 where W0 only shrank; None where W0 is zero or not known."""
        if self.initial_product is None or not self.initial_norm or not self.norm:
            return None
        return max(-1.0, min(1.0, self.initial_product / (self.initial_norm * self.norm)))

    def without_scaling(self) -> Array:
        """Return dW - c W0 with the c that leaves the smallest norm, (post, pre): what is no scaling of W0."""
        assert self.initial_product is not None
        assert self.initial_norm
        c = self.initial_product / self.initial_norm**2
        rest: Array = self.matrix - c * self.before.astype(self.matrix.dtype, copy=False)
        return rest

    @cached_property
    def svd(self) -> tuple[Array, Array, Array]:
        """U (post, k), s (k,), V^T (k, pre) with dW = U diag(s) V^T and k = min(post, pre)."""
        with threads_for(max(self.shape)):
            U, s, Vt = np.linalg.svd(self.matrix, full_matrices=False)
        return U, s, Vt

    @property
    def singular_values(self) -> Array:
        """Singular values of dW, largest first, (k,)."""
        return self.svd[1]

    @property
    def variance_explained(self) -> Array:
        """Fraction of the squared norm of dW in the first 1, 2, ... directions, (k,)."""
        return variance_explained(self.singular_values)

    @property
    def numerical_rank(self) -> int:
        """Number of singular values above the rounding of the weights and of the decomposition."""
        s = self.singular_values
        level = max(self.rounding, float(np.finfo(s.dtype).eps) * max(self.shape) * float(s[0]))
        return int(np.count_nonzero(s > level))

    def truncated(self, rank: int) -> Array:
        """Return the best approximation of dW of that rank, (post, pre)."""
        R = integer("rank", rank, minimum=0, maximum=len(self.singular_values))
        return self.directions(0, R)

    def directions(self, first: int, last: int) -> Array:
        """Return the sum of the directions `first` to `last` - 1 of dW, (post, pre)."""
        U, s, Vt = self.svd
        directions: Array = (U[:, first:last] * s[first:last]) @ Vt[first:last]
        return directions


class FactoredChange(Change):
    """A change given as a product dW = B A, as a LoRA adapter stores it.

    B (post, r) and A (r, pre) are in double precision, and were stored in `dtype`; W0 is `before`, or None if it is not
    known.
    """

    def __init__(self, B: Tensor, A: Tensor, before: Tensor | None, dtype: torch.dtype) -> None:
        if not all(bool(torch.isfinite(factor).all()) for factor in (B, A)):
            raise InputError("B and A must be finite, got entries that are not")
        self.B, self.A = B, A
        self.stored_in_double = dtype == torch.float64
        self.initial_norm = self.initial_product = None
        if before is not None:
            self._before = before
            self.initial_norm, self.initial_product = _initial(before, B, A)
        U, R = torch.linalg.qr(B)
        V, S = torch.linalg.qr(A.t())
        core = R @ S.t()
        square = float(core.square().sum())
        if not math.isfinite(square):
            raise InputError("B and A must have a product that can be squared, got a larger one")
        self.norm = math.sqrt(square)
        left, s, right = torch.linalg.svd(core, full_matrices=False)
        self.svd = (U @ left).numpy(), s.numpy(), (right @ V.t()).numpy()
        self.rounding = torch.finfo(dtype).eps * float(s[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(post, pre)."""
        return self.B.shape[0], self.A.shape[1]

    @cached_property
    def matrix(self) -> Array:  # type: ignore[override]
        """dW, (post, pre)."""
        product: Array = (self.B @ self.A).numpy()
        return product


def variance_explained(singular_values: ArrayLike) -> Array:
    """Return cumulative s^2 / sum s^2, (k,); all ones where there is no variance to explain."""
    s2 = np.square(np.asarray(singular_values, dtype=np.float64))
    total = s2.sum()
    return np.cumsum(s2) / total if total > 0 else np.ones_like(s2)


class _Difference(NamedTuple):
    """dW, the norms of dW and W0, the sum of the products of their entries, and the level of rounding."""

    matrix: Tensor
    norm: float
    initial_norm: float
    initial_product: float
    rounding: float


def _subtract(before: Tensor, after: Tensor) -> _Difference:
    """Return the difference of two matrices, in one pass over blocks of rows."""
    if before.ndim != 2 or before.shape != after.shape:
        raise InputError(f"after must have the shape of before, {tuple(before.shape)}, got {tuple(after.shape)}")
    rows, columns = before.shape
    single = before.numel() > DOUBLE_UP_TO and torch.float64 not in (before.dtype, after.dtype)
    dtype = torch.float32 if single else torch.float64
    matrix = torch.empty(rows, columns, dtype=dtype)
    change, initial, product = 0.0, 0.0, 0.0
    step = max(1, BLOCK // max(1, columns))
    rounding = Rounding(rows, columns, effective_type(after, step))
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        W0, W = (M[start:stop].detach().to("cpu", dtype) for M in (before, after))
        for name, values in (("before", W0), ("after", W)):
            _check_finite(name, values, start, rows)
        block = torch.sub(W, W0, out=matrix[start:stop])
        change += float(torch.sum(block.square(), dtype=torch.float64))
        initial += float(torch.sum(W0.square(), dtype=torch.float64))
        product += float(torch.sum(W0 * block, dtype=torch.float64))
        rounding.add(start, W, block)
    return _Difference(matrix, math.sqrt(change), math.sqrt(initial), product, rounding.level())


def _initial(before: Tensor, B: Tensor, A: Tensor) -> tuple[float, float]:
    """Return the norm of W0, and the sum of the products of the entries of W0 and B A, from blocks of rows."""
    rows, columns = before.shape
    square, product = 0.0, 0.0
    step = max(1, BLOCK // max(1, columns))
    for start in range(0, rows, step):
        W0 = before[start : start + step].detach().to("cpu", torch.float64)
        _check_finite("before", W0, start, rows)
        square += float(W0.square().sum())
        product += float(((W0 @ A.t()) * B[start : start + step]).sum())
    return math.sqrt(square), product


def _check_finite(name: str, values: Tensor, start: int, rows: int) -> None:
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        where = f" in rows {start} to {start + len(values) - 1}" if len(values) < rows else ""
        raise InputError(f"{name} must be finite, got {bad} entries that are not{where}")
