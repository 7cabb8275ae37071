"""The changes of chosen layers as singular triplets, ready to be cut at any rank."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rankscope.checkpoints.adapter import Adapter, spread
from rankscope.checkpoints.compare import pairs
from rankscope.checkpoints.difference import Difference, difference
from rankscope.checkpoints.kinds import ALL, Part, gates, matrix_shape
from rankscope.checkpoints.measures import COMPLETE_UP_TO
from rankscope.checkpoints.source import Source, Unreadable
from rankscope.errors import InputError
from rankscope.linalg import leading_triplets
from rankscope.validation import choice

BRACKETS = re.compile(r"(.+)\[([^\[\]]+)\]")
"""A layer and one of its gates."""


class Chosen(NamedTuple):
    """A matrix by its names before and after, or a gate of one."""

    before: str
    after: str
    gate: Part | None = None

    @property
    def name(self) -> str:
        """What to call it: the key before learning, with the gate in brackets."""
        return self.before if self.gate is None else f"{self.before}[{self.gate.label}]"


class Layer(NamedTuple):
    """dW = U diag(s) Vt of one layer, or of a block of rows of it that belongs to a gate.

    Attributes
    ----------
    name
        Its key before learning; of a gate, with the gate in brackets.
    shape
        As stored; dW itself is unfolded.
    U, s, Vt
        (rows, k), (k,), (k, columns), largest first.
    numerical_rank
        How many of `s` are more than rounding.
    tensor
        Its key before learning.
    rows
        Which rows of the tensor it has.
    """

    name: str
    shape: tuple[int, ...]
    U: Tensor
    s: Tensor
    Vt: Tensor
    numerical_rank: int
    tensor: str
    rows: slice

    def truncated(self, rank: int) -> Tensor:
        """Return the best approximation of dW of that rank, in the shape of the weight."""
        return ((self.U[:, :rank] * self.s[:rank]) @ self.Vt[:rank]).reshape(self.shape)


def chosen(old: Source | None, new: Source, layers: Iterable[str] | None, with_gates: bool = False) -> list[Chosen]:
    """Return the matrices that `layers` names, in the order of the checkpoint, each followed by its gates.

    Parameters
    ----------
    layers
        Keys, or patterns of keys such as "*.q_proj.weight"; None for every matrix.
    with_gates
        Also understand gates of recurrent weights in brackets, such as "rnn.weight_hh_l0[z]", or "[*]" for each.

    Raises
    ------
    InputError
        If one of them fits no matrix that can be compared.
    """
    if isinstance(layers, str):
        raise InputError(f"layers must be a list of names, got the text {layers!r}; write [{layers!r}]")
    together, skipped = pairs(old, new)
    whole = [Chosen(before, after) for before, after in together]
    if layers is None:
        return whole
    everything = [part for one in whole for part in (one, *_gates_of(one, old or new))]
    names = [one.before for one in whole]
    wanted: set[str] = set()
    for pattern in layers:
        fitting = fnmatch.filter(names, pattern)
        bracket = BRACKETS.fullmatch(pattern) if with_gates and not fitting else None
        if bracket:
            fitting = [
                one.name
                for one in everything
                if one.gate
                and fnmatch.fnmatchcase(one.before, bracket[1])
                and fnmatch.fnmatchcase(one.gate.label, bracket[2])
            ]
            known = [one.name for one in everything if one.gate]
            if not fitting and not known:
                raise InputError(f"layers must name matrices, got {pattern!r}, but no matrix has gates")
            if not fitting:
                choice("layers", pattern, known)
        if not fitting:
            reasons = [f"{one.name!r} is left out: {one.reason}" for one in skipped if one.name == pattern]
            if reasons:
                raise InputError(f"layers must name matrices, but {reasons[0]}")
            choice("layers", pattern, names)
        wanted.update(fitting)
    return [one for one in everything if one.name in wanted]


def decomposed(old: Source | None, new: Source, names: Iterable[Chosen], leading: int | None = None) -> Iterator[Layer]:
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
    for one in names:
        try:
            dW = change_of(old, new, one.before, one.after, one.gate)
        except Unreadable as error:
            raise InputError(f"layers must not have {one.name!r}: {error}") from error
        if not math.isfinite(dW.norm):
            raise InputError(f"layers must not have {one.name!r}: its change is too large to be squared, or not finite")
        if not dW.norm:
            continue
        if leading is not None and min(dW.matrix.shape) > max(COMPLETE_UP_TO, 4 * leading):
            U, s, Vt, _ = leading_triplets(dW.matrix, leading)
        else:
            U, s, Vt = torch.linalg.svd(dW.matrix, full_matrices=False)
        floor = max(dW.rounding, torch.finfo(s.dtype).eps * max(dW.matrix.shape) * float(s[0]))
        rows = ALL if one.gate is None else one.gate.rows
        shape = new.entries[one.after].shape if one.gate is None else tuple(dW.matrix.shape)
        yield Layer(one.name, shape, U, s, Vt, int((s > floor).sum()), one.before, rows)


def _gates_of(one: Chosen, source: Source) -> list[Chosen]:
    name = one.before if one.before in source.entries else one.after
    return [one._replace(gate=gate) for gate in gates(name, source.entries)]


def change_of(old: Source | None, new: Source, before: str, after: str, part: Part | None = None) -> Difference:
    """Return dW of one matrix or a block of its rows, whether `new` holds weights or an adapter's factors."""
    if isinstance(new, Adapter) and after not in new.replaced:
        shape = new.entries[after].shape
        matrix = spread(new.factors(after), matrix_shape(shape))[part.rows if part else ALL]
        norm = float(torch.linalg.matrix_norm(matrix))
        return Difference(matrix, norm, float("nan"), torch.finfo(new.dtype(after)).eps * norm)
    assert old is not None
    return difference((old, before), (new, after), part)
