"""Two checkpoints as a pair: which matrices of one belong to which of the other, and the change of each."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from rankscope.checkpoints.adapters import Adapter, AdapterDifference, without_factors
from rankscope.checkpoints.dequantize import by, rounding_level
from rankscope.checkpoints.kinds import ALL, Block, experts, matrix_shape, vocabulary_rows, why_not
from rankscope.checkpoints.names import Renaming, match
from rankscope.checkpoints.opening import CheckpointLike, halves, open_two, shortened
from rankscope.checkpoints.pieces import effective
from rankscope.checkpoints.source import Source, Unreadable
from rankscope.errors import InputError
from rankscope.lowrank.change import Change, FactoredChange
from rankscope.validation import choice


class Skipped(NamedTuple):
    """A tensor, or a block of one, that is not compared, and the reason."""

    name: str
    reason: str


class Names(NamedTuple):
    """Names of one matrix before and after learning, or of a stack of matrices and the place in it.

    `rows` is the number of rows that are compared, the first ones; None for all.
    """

    before: str
    after: str
    expert: int | None = None
    rows: int | None = None

    @property
    def label(self) -> str:
        """The name before learning, with the number of the expert."""
        return self.before if self.expert is None else f"{self.before}[expert {self.expert}]"


class Pair(NamedTuple):
    """Checkpoints before and after learning; `before` is None for an adapter without its base."""

    before: Source | None
    after: Source
    renaming: Renaming = Renaming()

    def release(self) -> None:
        """Close the files of both."""
        for source in (self.before, self.after):
            if source is not None:
                source.release()

    def is_known(self, name: str) -> bool:
        """Return whether the values of a weight before learning can be read."""
        return self.before is not None and isinstance(self.before.entries[name].dtype, torch.dtype)

    def change(self, names: Names, block: Block | None = None) -> Change:
        """Return the change of a matrix or a block of it; raise `Unreadable` if it cannot be read or has no norm."""
        rows, columns = (block.rows, block.columns) if block else (ALL, ALL)

        def read(source: Source, name: str, block: tuple[slice, slice]) -> Tensor:
            return matrix(source.tensor(name), block)

        def matrix(tensor: Tensor, block: tuple[slice, slice]) -> Tensor:
            whole = tensor.reshape(matrix_shape(tensor.shape)) if names.expert is None else tensor[names.expert]
            return whole[: names.rows][block]

        try:
            whole = None
            if self.before is not None and self.is_known(names.before):
                whole = read(self.before, names.before, (ALL, ALL))
            initial = None if whole is None else whole[rows, columns]
            if isinstance(self.after, Adapter) and self.after.is_update(names.after):
                B, A, level = self.after.factors(names.after, whole, names.expert)
                change: Change = FactoredChange(B[rows], A[:, columns], initial, self.after.dtype(names.after))
                change.rounding = max(change.rounding, level)
                if self.before is None:
                    change.initial_norm = self.after.reference_norm(names.after, names.expert, rows, columns)
            else:
                assert initial is not None
                change = Change(initial, read(self.after, names.after, (rows, columns)))
                spacing = self.after.spacing(names.after)
                if spacing is not None:
                    change.rounding = max(change.rounding, rounding_level(matrix(spacing, (rows, columns))))
        except InputError as error:
            raise Unreadable(str(error)) from error
        if not math.isfinite(change.norm) or (not change.norm and change.matrix.any()):
            raise Unreadable("its change is too large or too small to be squared")
        return change


def open_pair(
    before: CheckpointLike,
    after: CheckpointLike | None,
    prefix: str | None = None,
    rename: Mapping[str, str] | None = None,
    key: str | None = None,
) -> Pair:
    """Open two checkpoints, or one that holds the weights before and after learning."""
    renaming = Renaming.of(prefix, rename)
    old, new = open_two(before, after, key)
    if new is None:
        if isinstance(old, Adapter):
            return Pair(None, old)
        both = halves(old)
        if both is None:
            raise InputError(
                f"after is missing: {old.label} holds one set of weights (only a file that holds a network before and "
                "after learning, or a LoRA adapter, can stand alone)"
            )
        return Pair(effective(both[0]), effective(both[1]), renaming)
    if isinstance(old, Adapter):
        if not isinstance(new, Adapter):
            raise InputError(
                f"before must be the model that was adapted, got the adapter {old.label}; it goes in after"
            )
        return Pair(None, AdapterDifference(old, new))
    pair = Pair(_trained(old), _trained(new), renaming)
    if isinstance(new, Adapter):
        _fit(pair, new)
    return pair


def _fit(pair: Pair, adapter: Adapter) -> None:
    """Give an adapter the names and shapes of its base, where they are known."""
    assert pair.before is not None
    base = pair.before.entries
    adapter.resolve(base)
    matched = match(base, adapter.entries, pair.renaming).pairs
    adapter.fit({b: base[a].shape for a, b in matched if a is not None and b is not None and pair.is_known(a)})


def _trained(source: Source) -> Source:
    """Return a checkpoint with effective weights; of one with a network before and after learning, the one after."""
    if isinstance(source, Adapter):  # It holds factors, and weights that were replaced as a whole.
        return source
    both = halves(source)
    return effective(without_factors(both[1] if both else source))


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
    changed = pair.after if isinstance(pair.after, Adapter) else None
    if pair.before is None:
        return _of_adapter(pair.after, skipped)
    new = pair.after
    matched = match(pair.before.entries, new.entries, pair.renaming)
    skipped += [Skipped(name, "another tensor has its name without the prefix") for name in matched.hidden]
    if changed is not None and not changed.entries:
        return Selection([], skipped)
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
            if changed is None:
                skipped.append(Skipped(before, f"only in {pair.before.label}"))
        elif changed is not None and changed.is_update(after):
            # An embedding is measured if it is adapted. A change over codes that are not read is known all the same.
            known = pair.is_known(before)
            other = _why_not(pair.before, before, new, after, named=True) if known else changed.alone().get(after)
            count = changed.experts(after)
            if reason := changed.unfit.get(after) or other:
                skipped.append(Skipped(before, reason))
            else:
                found += [Names(before, after, i) for i in ([None] if count is None else range(count))]
        elif rows := _common_rows(pair.before, before, new, after, before in named):
            found.append(Names(before, after, rows=rows))
        elif reason := _why_not(pair.before, before, new, after, before in named):
            skipped.append(Skipped(before, reason))
        else:
            count = experts(after, new.entries[after].shape)
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
        return _noted(pair, matrices_of(pair))
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
    return _noted(pair, Selection([one for one in found if one.before in wanted], left_out, note))


def _noted(pair: Pair, selection: Selection) -> Selection:
    """Return a selection whose note names the matrices of which only some rows are compared."""
    notes = [
        f"{one.before!r} grew from {one.rows} rows to {pair.after.entries[one.after].shape[0]}; its first {one.rows} "
        "rows were compared"
        for one in selection.matrices
        if one.rows is not None
    ]
    unknown = [one.before for one in selection.matrices if pair.before is not None and not pair.is_known(one.before)]
    if unknown:
        assert pair.before is not None
        notes.append(
            f"columns relative to W0 are empty for {shortened(list(map(repr, unknown)), 3)}, which before learning is "
            f"{pair.before.entries[unknown[0]].dtype}"
        )
    return selection._replace(note="; ".join([*filter(None, [selection.note]), *notes]) or None)


def _of_adapter(adapter: Source, skipped: list[Skipped]) -> Selection:
    assert isinstance(adapter, Adapter)
    found: list[Names] = []
    needs_base = adapter.alone()
    for name, entry in adapter.entries.items():
        whole = "replaced as a whole, there is nothing to compare it with" if name in adapter.replaced else None
        if reason := whole or needs_base.get(name) or why_not(name, entry, adapter.entries, named=True):
            skipped.append(Skipped(name, reason))
        else:
            count = adapter.experts(name)
            found += [Names(name, name, i) for i in ([None] if count is None else range(count))]
    return Selection(found, skipped, adapter.note)


def _common_rows(old: Source, before: str, new: Source, after: str, named: bool) -> int | None:
    """Return the rows of a matrix of a vocabulary that grew; None for other tensors."""
    first, second = old.entries[before], new.entries[after]
    if why_not(before, first, old.entries, named) or why_not(after, second, new.entries, named):
        return None
    return vocabulary_rows(before, old.entries, after, new.entries)


def _why_not(old: Source, before: str, new: Source, after: str, named: bool) -> str | None:
    """Return the reason why two tensors are not compared, or None."""
    first, second = old.entries[before], new.entries[after]
    reason = why_not(before, first, old.entries, named) or why_not(after, second, new.entries, named)
    if reason is None and first.shape != second.shape:
        reason = f"its shape is {by(first.shape)} before and {by(second.shape)} after"
    return reason


def _some(source: Source) -> str:
    return shortened([repr(name) for name in source.entries], 3) or "no tensors"
