"""Two checkpoints, matrix by matrix: what changed, and how many directions the change has.

One pair of tensors is looked at at a time. Whatever is wrong with one (a shape that differs, values that are not
finite, a type that cannot be read) is its own entry in a second list, and the others go on.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from rankscope.checkpoints.adapter import Adapter, Factors
from rankscope.checkpoints.difference import difference, norm_of
from rankscope.checkpoints.kinds import Part, gates, heads, matrix_shape, why_not
from rankscope.checkpoints.matching import match
from rankscope.checkpoints.measures import Measures, factors_spectrum, measure, spectrum
from rankscope.checkpoints.opening import CheckpointLike, halves, open_checkpoint
from rankscope.checkpoints.source import Source, Unreadable
from rankscope.errors import InputError
from rankscope.io.atomic import replacing
from rankscope.linalg.threads import threads_for
from rankscope.validation import integer

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int, str], None]
IDENTICAL = "the same before and after"


@dataclass(frozen=True)
class ComparedMatrix:
    """One matrix or a part of one.

    Attributes
    ----------
    name
        Its key; of a part, the key with the part in brackets.
    tensor, part
        The key, and what is measured of it: a gate, a head, or None for the whole.
    shape
        As stored. A convolution is measured as the matrix (out, in k k).
    dtype
        As stored, after learning.
    initial_norm, relative_norm
        |W0| and |dW| / |W0|; None where there is no W0, or it is zero.
    measures
        What its singular values say.
    """

    name: str
    tensor: str
    part: str | None
    shape: tuple[int, ...]
    dtype: str
    initial_norm: float | None
    relative_norm: float | None
    measures: Measures

    def row(self) -> dict[str, Any]:
        """Return everything as one flat mapping."""
        own = {key: value for key, value in vars(self).items() if key != "measures"}
        return own | asdict(self.measures)


class Skipped(NamedTuple):
    """A tensor or a part of one that was not measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What was measured and what was not, in the order of the checkpoint."""

    matrices: tuple[ComparedMatrix, ...]
    skipped: tuple[Skipped, ...]

    def write_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a row a matrix, atomically; bounds as two columns, and the ten leading singular values as s1, s2, ...

        Raises
        ------
        InputError
            If the folder cannot be written to.
        """
        rows = [_flat(matrix.row()) for matrix in self.matrices]
        headings = list(dict.fromkeys(key for row in rows for key in row)) or ["name"]
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, headings)
            writer.writeheader()
            writer.writerows(rows)
        return Path(path)

    def to_frame(self) -> pd.DataFrame:
        """Return a row a matrix, with its name as the index; what was skipped is in `attrs["skipped"]`."""
        import pandas as pd

        columns = ["name", *ROW]
        frame = pd.DataFrame([matrix.row() for matrix in self.matrices], columns=columns).set_index("name")
        # A rank that is not known keeps the others from being whole numbers otherwise.
        frame = frame.astype(dict.fromkeys((c for c in ROW if c in WHOLE), "Int64"))
        frame.attrs["skipped"] = [one._asdict() for one in self.skipped]
        return frame


ROW = ("tensor", "part", "shape", "dtype", "initial_norm", "relative_norm", *Measures.__dataclass_fields__)
WHOLE = ("rank_90", "rank_95", "rank_99", "numerical_rank", "above_random_edge", "standing_out")


def compare(
    before: CheckpointLike,
    after: CheckpointLike | None = None,
    *,
    gates: bool = True,
    heads: int | None = None,
    exact: bool = False,
) -> pd.DataFrame:
    """Return what learning wrote into the matrices of a model, a row each.

    Parameters
    ----------
    before, after
        State dicts, modules or paths, as in `open_checkpoint`. `after` may be a LoRA adapter's folder; it may be left
        out where `before` is such a folder, or a file of ours that holds both networks.
    gates
        Also measure the gates of recurrent weights one by one.
    heads
        Also measure the heads of attention one by one; this is how many there are.
    exact
        Compute all singular values of large matrices too, which takes minutes a matrix of 8192 x 8192.

    Returns
    -------
    pandas.DataFrame
        Columns as in `ComparedMatrix` and `Measures`, indexed by name. `attrs["skipped"]` lists what was not measured,
        with reasons.

    Raises
    ------
    InputError
        If one of the two is no checkpoint, or nothing in them goes together.
    """
    return inspect(before, after, gates=gates, heads=heads, exact=exact).to_frame()


def inspect(
    before: CheckpointLike,
    after: CheckpointLike | None = None,
    *,
    gates: bool = True,
    heads: int | None = None,
    exact: bool = False,
    on_progress: Progress | None = None,
) -> Comparison:
    """Return what `compare` does, as plain objects.

    Parameters
    ----------
    on_progress
        Called as (done, total, name) before each tensor.
    """
    if heads is not None:
        integer("heads", heads, minimum=1)
    old, new = open_pair(before, after)
    matrices: list[ComparedMatrix] = []
    skipped: list[Skipped] = []
    work, left_out = pairs(old, new)
    skipped.extend(left_out)
    for done, (name, changed) in enumerate(work):
        if on_progress is not None:
            on_progress(done, len(work), name)
        for label, part in _parts(name, old or new, gates, heads, skipped):
            try:
                with threads_for(min(_shape(new.entries[changed].shape, part))):
                    matrices.append(_compared(label, part, old, name if old else None, new, changed, exact))
            except Unreadable as error:
                skipped.append(Skipped(label, str(error)))
                if part is None:
                    break
    return Comparison(tuple(matrices), tuple(skipped))


def open_pair(before: CheckpointLike, after: CheckpointLike | None) -> tuple[Source | None, Source]:
    """Return the checkpoints before and after; the first is None where an adapter stands by itself.

    Raises
    ------
    InputError
        If they are no such pair.
    """
    old = open_checkpoint(before, "before")
    if after is None:
        if isinstance(old, Adapter):
            return None, old
        both = halves(old)
        if both is None:
            raise InputError(
                f"after is missing: {old.label} holds one set of weights (only a file that holds a network before and "
                "after learning, or a LoRA adapter, can stand alone)"
            )
        return both
    if isinstance(old, Adapter):
        raise InputError(f"before must be the model that was adapted, got the adapter {old.label}; it goes in after")
    new = open_checkpoint(after, "after")
    trained = [both[1] if (both := halves(source)) else source for source in (old, new)]
    return trained[0], trained[1]


def pairs(old: Source | None, new: Source) -> tuple[list[tuple[str, str]], list[Skipped]]:
    """Return the names before and after of all matrices that can be compared, and what cannot.

    Raises
    ------
    InputError
        If no name of one is in the other.
    """
    together: list[tuple[str, str]] = []
    skipped: list[Skipped] = []
    if isinstance(new, Adapter):
        skipped.extend(Skipped(name, reason) for name, reason in new.skipped.items())
    if old is None:
        for name, entry in new.entries.items():
            assert isinstance(new, Adapter)
            whole = "replaced as a whole, there is nothing to compare it with" if name in new.replaced else None
            if alone := whole or why_not(name, entry, new.entries):
                skipped.append(Skipped(name, alone))
            else:
                together.append((name, name))
        return together, skipped
    matched = match(old.entries, new.entries)
    if not any(a is not None and b is not None for a, b in matched):
        raise InputError(
            f"after must have weights named as in before: {old.label} has {_some(old)}, {new.label} has {_some(new)}"
        )
    for before, after in matched:
        if before is None or after is None:
            # An adapter leaves everything alone that it does not name.
            if before is None or not isinstance(new, Adapter):
                skipped.append(Skipped(before or after or "", f"only in {(new if before is None else old).label}"))
            continue
        first, second = old.entries[before], new.entries[after]
        reason = why_not(before, first, old.entries) or why_not(after, second, new.entries)
        if reason is None and first.shape != second.shape:
            shapes = (" x ".join(map(str, entry.shape)) for entry in (first, second))
            reason = "its shape is {} before and {} after".format(*shapes)
        if reason is None:
            together.append((before, after))
        else:
            skipped.append(Skipped(before, reason))
    return together, skipped


def _parts(
    name: str, source: Source, with_gates: bool, count: int | None, skipped: list[Skipped]
) -> Iterator[tuple[str, Part | None]]:
    """Yield the whole and the parts of a matrix, with what to call them."""
    yield name, None
    parts = gates(name, source.entries) if with_gates else []
    if count is not None:
        try:
            parts += heads(name, source.entries, count)
        except ValueError as error:
            skipped.append(Skipped(f"{name}[heads]", str(error)))
    for part in parts:
        yield f"{name}[{part.label}]", part


def _compared(
    label: str, part: Part | None, old: Source | None, before: str | None, new: Source, after: str, exact: bool
) -> ComparedMatrix:
    """Measure one matrix or a part of it."""
    entry = new.entries[after]
    initial: float | None
    if isinstance(new, Adapter) and after not in new.replaced:
        factors = _restricted(new.factors(after), part)
        if not all(bool(torch.isfinite(factor).all()) for factor in factors):
            raise Unreadable("its factors are not finite")
        initial = None if old is None or before is None else norm_of(old, before, part)
        found = factors_spectrum(factors)
        norm = float(found.square) ** 0.5
        if not norm:
            raise Unreadable("its factors give no change")
        rounding = torch.finfo(new.dtype(after)).eps * float(found.values[0])
    else:
        assert old is not None
        assert before is not None
        dW = difference((old, before), (new, after), part)
        norm, initial, rounding = dW.norm, dW.initial_norm, dW.rounding
        if not math.isfinite(norm) or (not norm and bool(dW.matrix.any())):
            raise Unreadable("its change is too large or too small to be squared")
        if not norm:
            raise Unreadable(IDENTICAL)
        found = spectrum(dW.matrix, norm, exact)
    return ComparedMatrix(
        name=label,
        tensor=before or after,
        part=None if part is None else part.label,
        shape=entry.shape if part is None else _shape(entry.shape, part),
        dtype=str(entry.dtype).removeprefix("torch."),
        initial_norm=initial,
        relative_norm=norm / initial if initial else None,
        measures=measure(found, rounding),
    )


def _restricted(factors: Factors, part: Part | None) -> Factors:
    return factors if part is None else Factors(factors.B[part.rows], factors.A[:, part.columns])


def _shape(shape: tuple[int, ...], part: Part | None) -> tuple[int, int]:
    rows, columns = matrix_shape(shape)
    if part is None:
        return rows, columns
    return len(range(rows)[part.rows]), len(range(columns)[part.columns])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose every value is one cell."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("_bounds"):
            flat |= {key.replace("_bounds", "_least"): value[0], key.replace("_bounds", "_most"): value[1]}
        elif key == "singular_values":
            flat |= {f"s{index}": value[index - 1] if index <= len(value) else None for index in range(1, 11)}
        else:
            flat[key] = "x".join(map(str, value)) if key == "shape" else value
    return flat


def _some(source: Source) -> str:
    names = list(source.entries)
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "no tensors"
