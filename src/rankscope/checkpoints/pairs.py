"""Two checkpoints as a pair: which matrices of one belong to which of the other, and the change of each.

Names may differ by the components that wrappers insert, such as `module.` (DataParallel) or `_orig_mod.`
(torch.compile), and by one prefix that all of them have in one checkpoint and not in the other, such as `backbone.`.
Names that are ambiguous without these are not matched.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from rankscope.checkpoints.adapter import Adapter
from rankscope.checkpoints.kinds import ALL, Block, by, experts, matrix_shape, why_not
from rankscope.checkpoints.opening import CheckpointLike, halves, open_checkpoint, shortened
from rankscope.checkpoints.pieces import assembled
from rankscope.checkpoints.source import Source, Unreadable
from rankscope.errors import InputError
from rankscope.lowrank.change import BLOCK, Change, FactoredChange
from rankscope.validation import choice

PREFIXES = ("module.", "base_model.model.", "model.", "transformer.", "network.", "net.")
"""Of wrappers, and of the attribute that a model with a head keeps the model without one in."""

WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|_fpw_module)\.")
"""Components that torch.compile, activation checkpointing and FSDP insert anywhere in a name."""


class Skipped(NamedTuple):
    """A tensor, or a block of one, that is not compared, and the reason."""

    name: str
    reason: str


class Names(NamedTuple):
    """Names of one matrix before and after learning, or of a stack of matrices and the place in it."""

    before: str
    after: str
    expert: int | None = None

    @property
    def label(self) -> str:
        """The name before learning, with the number of the expert."""
        return self.before if self.expert is None else f"{self.before}[expert {self.expert}]"


class Pair(NamedTuple):
    """Checkpoints before and after learning; `before` is None for an adapter without its base."""

    before: Source | None
    after: Source

    def change(self, names: Names, block: Block | None = None) -> Change:
        """Return the change of a matrix or a block of it; raise `Unreadable` if it cannot be read or has no norm."""
        rows, columns = (block.rows, block.columns) if block else (ALL, ALL)

        def read(source: Source, name: str) -> Tensor:
            tensor = source.tensor(name)
            matrix = tensor.reshape(matrix_shape(tensor.shape)) if names.expert is None else tensor[names.expert]
            return matrix[rows, columns]

        try:
            initial = None if self.before is None else read(self.before, names.before)
            if isinstance(self.after, Adapter) and names.after not in self.after.replaced:
                B, A = self.after.factors(names.after)
                norm = None if initial is None else _norm(initial)
                change: Change = FactoredChange(B[rows], A[:, columns], norm, self.after.dtype(names.after))
            else:
                assert initial is not None
                change = Change(initial, read(self.after, names.after))
        except InputError as error:
            raise Unreadable(str(error)) from error
        if not math.isfinite(change.norm) or (not change.norm and change.matrix.any()):
            raise Unreadable("its change is too large or too small to be squared")
        return change


class Matched(NamedTuple):
    """Names before and after learning in pairs, None where one is missing; and the prefix by which all differ."""

    pairs: list[tuple[str | None, str | None]]
    note: str | None


def match(before: Iterable[str], after: Iterable[str]) -> Matched:
    """Return which tensors of two checkpoints belong together, in the order of `before`."""
    old, new = list(before), list(after)
    same = set(old) & set(new)
    left = {_bare(name): name for name in _unambiguous(name for name in old if name not in same)}
    right = {_bare(name): name for name in _unambiguous(name for name in new if name not in same)}
    partner = {name: name for name in same} | {left[bare]: right[bare] for bare in left.keys() & right.keys()}
    left = {bare: name for bare, name in left.items() if bare not in right}
    right = {bare: name for bare, name in right.items() if name not in partner.values()}
    note = None
    for shorter, longer, where in ((left, right, "after"), (right, left, "before")):
        prefix = _prefix(shorter, longer)
        if prefix is not None:
            found = {name: longer[prefix + bare] for bare, name in shorter.items() if prefix + bare in longer}
            partner |= found if where == "after" else {a: b for b, a in found.items()}
            note = f"names {where} learning begin with {prefix!r}, which was ignored"
            break
    taken = set(partner.values())
    pairs: list[tuple[str | None, str | None]] = [(name, partner.get(name)) for name in old]
    pairs += [(None, name) for name in new if name not in taken]
    return Matched(pairs, note)


def _prefix(shorter: Collection[str], longer: Collection[str]) -> str | None:
    """Return the prefix with which most names of `shorter` are names of `longer`.

    None if it applies to less than half of the smaller collection, or if another one applies to as many names.
    """
    counts = Counter(
        name[:end]
        for name in longer
        for end in (dot.end() for dot in re.finditer(r"\.", name))
        if name[end:] in shorter
    )
    (prefix, most), (_, second) = [*counts.most_common(2), ("", 0), ("", 0)][:2]
    return prefix if most > second and 2 * most >= min(len(shorter), len(longer)) else None


def _unambiguous(names: Iterable[str]) -> list[str]:
    listed = list(names)
    counts = Counter(_bare(name) for name in listed)
    return [name for name in listed if counts[_bare(name)] == 1]


def _bare(name: str) -> str:
    name = WRAPPERS.sub("", name)
    while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
        name = name[len(prefix) :]
    return name


def open_pair(before: CheckpointLike, after: CheckpointLike | None) -> Pair:
    """Open two checkpoints, or one that holds the weights before and after learning."""
    old = open_checkpoint(before, "before")
    if after is None:
        if isinstance(old, Adapter):
            return Pair(None, old)
        both = halves(old)
        if both is None:
            raise InputError(
                f"after is missing: {old.label} holds one set of weights (only a file that holds a network before and "
                "after learning, or a LoRA adapter, can stand alone)"
            )
        return Pair(*map(assembled, both))
    if isinstance(old, Adapter):
        raise InputError(f"before must be the model that was adapted, got the adapter {old.label}; it goes in after")
    new = open_checkpoint(after, "after")
    trained = [both[1] if (both := halves(source)) else source for source in (old, new)]
    # An adapter holds factors, and weights that were replaced as a whole.
    return Pair(*(source if isinstance(source, Adapter) else assembled(source) for source in trained))


class Selection(NamedTuple):
    """The matrices to compare, in the order of the checkpoint; the tensors left out; what was done to the names."""

    matrices: list[Names]
    skipped: list[Skipped]
    note: str | None = None


def matrices_of(pair: Pair, named: Collection[str] = ()) -> Selection:
    """Return all matrices that can be compared, and the tensors that cannot.

    Parameters
    ----------
    named
        Embeddings that are matrices here, for example because they are the output layer too.
    """
    skipped = [Skipped(*one) for one in pair.after.skipped.items()] if isinstance(pair.after, Adapter) else []
    if pair.before is None:
        return _of_adapter(pair.after, skipped)
    new = pair.after
    matched = match(pair.before.entries, new.entries)
    if not any(a is not None and b is not None for a, b in matched.pairs):
        raise InputError(
            f"after must have weights named as in before: {pair.before.label} has {_some(pair.before)}, {new.label} "
            f"has {_some(new)}"
        )
    found: list[Names] = []
    for before, after in matched.pairs:
        if before is None:
            skipped.append(Skipped(after or "", f"only in {new.label}"))
        elif after is None:
            # An adapter does not change the weights that it does not name.
            if not isinstance(new, Adapter):
                skipped.append(Skipped(before, f"only in {pair.before.label}"))
        elif reason := _why_not(pair.before, before, new, after, before in named):
            skipped.append(Skipped(before, reason))
        else:
            whole = isinstance(new, Adapter) and after not in new.replaced
            count = None if whole else experts(after, new.entries[after].shape)
            found += [Names(before, after, i) for i in ([None] if count is None else range(count))]
    return Selection(found, skipped, matched.note)


def select(pair: Pair, layers: Iterable[str] | None) -> Selection:
    """Return the matrices that `layers` (keys or patterns) names; all for None. Embeddings must be named in full.

    Raises
    ------
    InputError
        If a name is unknown, or that of a tensor that is no matrix.
    """
    if isinstance(layers, str):
        raise InputError(f"layers must be a list of names, got the text {layers!r}; write [{layers!r}]")
    if layers is None:
        return matrices_of(pair)
    patterns = list(layers)
    found, skipped, note = matrices_of(pair, patterns)
    names = [one.before for one in found]
    wanted: set[str] = set()
    for pattern in patterns:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            reasons = [f"{one.name!r} is skipped: {one.reason}" for one in skipped if one.name == pattern]
            if reasons:
                raise InputError(f"layers must name matrices, but {reasons[0]}")
            choice("layers", pattern, names)
        wanted.update(fitting)
    left_out = [one for one in skipped if any(fnmatch.fnmatch(one.name, pattern) for pattern in patterns)]
    return Selection([one for one in found if one.before in wanted], left_out, note)


def _of_adapter(adapter: Source, skipped: list[Skipped]) -> Selection:
    assert isinstance(adapter, Adapter)
    found = []
    for name, entry in adapter.entries.items():
        whole = "replaced as a whole, there is nothing to compare it with" if name in adapter.replaced else None
        if reason := whole or why_not(name, entry, adapter.entries):
            skipped.append(Skipped(name, reason))
        else:
            found.append(Names(name, name))
    return Selection(found, skipped)


def _why_not(old: Source, before: str, new: Source, after: str, named: bool) -> str | None:
    """Return the reason why two tensors are not compared, or None."""
    first, second = old.entries[before], new.entries[after]
    reason = why_not(before, first, old.entries, named) or why_not(after, second, new.entries, named)
    if reason is None and first.shape != second.shape:
        reason = f"its shape is {by(first.shape)} before and {by(second.shape)} after"
    return reason


def _norm(matrix: Tensor) -> float:
    """Return the Frobenius norm, computed in double precision from blocks of rows."""
    step = max(1, BLOCK // max(1, matrix.shape[1]))
    blocks = (matrix[start : start + step] for start in range(0, len(matrix), step))
    square = math.fsum(float(torch.sum(block.double().square())) for block in blocks)
    if not math.isfinite(square):
        raise InputError("before must be finite, got entries that are not")
    return math.sqrt(square)


def _some(source: Source) -> str:
    return shortened([repr(name) for name in source.entries], 3) or "no tensors"
