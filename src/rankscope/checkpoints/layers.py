"""The changes of chosen layers as singular triplets, ready to be cut at any rank."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rankscope.arguments import choice
from rankscope.checkpoints.adapter import Adapter, spread
from rankscope.checkpoints.compare import pairs
from rankscope.checkpoints.difference import Difference, difference
from rankscope.checkpoints.kinds import matrix_shape
from rankscope.checkpoints.measures import COMPLETE_UP_TO
from rankscope.checkpoints.source import Source, Unreadable
from rankscope.errors import InputError
from rankscope.linalg import leading_triplets


class Layer(NamedTuple):
    """dW = U diag(s) Vt of one layer.

    Attributes
    ----------
    name
        Its key before learning.
    shape
        As stored; dW itself is unfolded.
    U, s, Vt
        (rows, k), (k,), (k, columns), largest first.
    numerical_rank
        How many of `s` are more than rounding.
    """

    name: str
    shape: tuple[int, ...]
    U: Tensor
    s: Tensor
    Vt: Tensor
    numerical_rank: int

    def truncated(self, rank: int) -> Tensor:
        """Return the best approximation of dW of that rank, in the shape of the weight."""
        return ((self.U[:, :rank] * self.s[:rank]) @ self.Vt[:rank]).reshape(self.shape)


def chosen(old: Source | None, new: Source, layers: Iterable[str] | None) -> list[tuple[str, str]]:
    """Return the names before and after of the matrices that `layers` names.

    Parameters
    ----------
    layers
        Keys, or patterns of keys such as "*.q_proj.weight"; None for every matrix.

    Raises
    ------
    InputError
        If one of them fits no matrix that can be compared.
    """
    if isinstance(layers, str):
        raise InputError(f"layers must be a list of names, got the text {layers!r}; write [{layers!r}]")
    together, skipped = pairs(old, new)
    if layers is None:
        return together
    names = [before for before, _ in together]
    wanted: set[str] = set()
    for pattern in layers:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            reasons = [f"{one.name!r} is left out: {one.reason}" for one in skipped if one.name == pattern]
            if reasons:
                raise InputError(f"layers must name matrices, but {reasons[0]}")
            choice("layers", pattern, names)
        wanted.update(fitting)
    return [pair for pair in together if pair[0] in wanted]


def decomposed(
    old: Source | None, new: Source, names: Iterable[tuple[str, str]], leading: int | None = None
) -> Iterator[Layer]:
    """Yield the changes of these layers; those that did not change are left out.

    Parameters
    ----------
    leading
        Compute only so many triplets of large matrices.

    Raises
    ------
    InputError
        If the values of one are damaged, or not finite.
    """
    for before, after in names:
        try:
            dW = change_of(old, new, before, after)
        except Unreadable as error:
            raise InputError(f"layers must not have {before!r}: {error}") from error
        if not math.isfinite(dW.norm):
            raise InputError(f"layers must not have {before!r}: its change is too large to be squared, or not finite")
        if not dW.norm:
            continue
        if leading is not None and min(dW.matrix.shape) > max(COMPLETE_UP_TO, 4 * leading):
            U, s, Vt, _ = leading_triplets(dW.matrix, leading)
        else:
            U, s, Vt = torch.linalg.svd(dW.matrix, full_matrices=False)
        floor = max(dW.rounding, torch.finfo(s.dtype).eps * max(dW.matrix.shape) * float(s[0]))
        yield Layer(before, new.entries[after].shape, U, s, Vt, int((s > floor).sum()))


def change_of(old: Source | None, new: Source, before: str, after: str) -> Difference:
    """Return dW of one matrix, whether `new` holds weights or an adapter's factors."""
    if isinstance(new, Adapter) and after not in new.replaced:
        shape = new.entries[after].shape
        matrix = spread(new.factors(after), matrix_shape(shape))
        norm = float(torch.linalg.matrix_norm(matrix))
        return Difference(matrix, norm, float("nan"), torch.finfo(new.dtype(after)).eps * norm)
    assert old is not None
    return difference((old, before), (new, after))
