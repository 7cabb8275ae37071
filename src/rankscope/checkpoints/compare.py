"""Comparison of two checkpoints, matrix by matrix: norm, ranks and singular values of each change.

One pair of tensors is read at a time. A tensor that cannot be compared (another shape, values that are not finite, a
type that cannot be read) is listed with the reason, and does not stop the others.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.checkpoints.kinds import ALL, Block, heads, matrix_shape
from rankscope.checkpoints.opening import CheckpointLike
from rankscope.checkpoints.pairs import Names, Pair, Skipped, open_pair, select
from rankscope.checkpoints.source import Unreadable
from rankscope.io.atomic import replacing
from rankscope.linalg.threads import threads_for
from rankscope.lowrank.matrices import gates_of
from rankscope.lowrank.noise_edges import FRACTIONS, Measures, measure
from rankscope.validation import integer

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int, str], None]
IDENTICAL = "the same before and after"


@dataclass(frozen=True)
class ComparedMatrix:
    """Measures of the change of one matrix, or of a block of it."""

    name: str  # key of the tensor; for a block, with the block in brackets
    tensor: str
    block: str | None  # gate or head; None for the whole matrix
    shape: tuple[int, ...]  # as stored; a convolution is measured as the matrix (out, in k k)
    dtype: str  # as stored, after learning
    initial_norm: float | None  # |W0|; None where there is no W0
    relative_norm: float | None  # |dW| / |W0|; None where there is no W0, or it is zero
    measures: Measures

    def row(self) -> dict[str, Any]:
        """Return everything as one flat mapping."""
        own = {key: value for key, value in vars(self).items() if key != "measures"}
        return own | asdict(self.measures)


@dataclass(frozen=True)
class Comparison:
    """Measured matrices and skipped tensors, in the order of the checkpoint; how names were matched, if not exactly."""

    matrices: tuple[ComparedMatrix, ...]
    skipped: tuple[Skipped, ...]
    note: str | None = None

    def write_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write one row for each matrix; bounds are two columns, and ten leading singular values s1, s2, ..."""
        rows = [_flat(matrix.row()) for matrix in self.matrices]
        headings = list(dict.fromkeys(key for row in rows for key in row)) or ["name"]
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, headings)
            writer.writeheader()
            writer.writerows(rows)
        return Path(path)

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row for each matrix, indexed by name; skipped tensors are in `attrs["skipped"]`."""
        import pandas as pd

        columns = ["name", *ROW]
        frame = pd.DataFrame([matrix.row() for matrix in self.matrices], columns=columns).set_index("name")
        # A nullable type keeps the known ranks whole numbers beside an unknown one.
        frame = frame.astype(dict.fromkeys(WHOLE, "Int64") | dict.fromkeys(MAYBE, float))
        frame.attrs["skipped"] = [one._asdict() for one in self.skipped]
        frame.attrs["note"] = self.note
        return frame


ROW = ("tensor", "block", "shape", "dtype", "initial_norm", "relative_norm", *Measures.__dataclass_fields__)
RANKS = tuple(f"{which}rank_{share}" for which in ("", "rest_") for share in FRACTIONS)
WHOLE = (*RANKS, "numerical_rank", "above_random_edge", "standing_out")
MAYBE = ("initial_norm", "relative_norm", "noise_edge", "initial_cosine", "rest_norm")
"""Numbers that not every matrix has."""


def compare(
    before: CheckpointLike,
    after: CheckpointLike | None = None,
    *,
    gates: bool = True,
    heads: int | None = None,
    layers: Iterable[str] | None = None,
    key: str | None = None,
    prefix: str | None = None,
    rename: Mapping[str, str] | None = None,
    exact: bool = False,
) -> pd.DataFrame:
    """Return the change of each weight matrix of a model between two checkpoints, one row each.

    Parameters
    ----------
    before, after
        State dicts, modules or paths, as in `open_checkpoint`. `after` may be a LoRA adapter's folder; it may be left
        out where `before` is such a folder, or a file of ours that holds both networks.
    gates
        Also measure the gates of recurrent weights one by one.
    heads
        Number of attention heads, to measure them one by one too.
    layers
        Keys of weights, or patterns such as ``"*.q_proj.weight"``; by default all matrices. An embedding is measured
        only if its key is here.
    key
        Name of the state dict in a file that holds several, such as "state_dict_ema" or "actor", with dots for one
        inside another. It applies to each of the two that has it.
    prefix
        Text that is removed where a name begins with it, in both checkpoints, before names are matched.
    rename
        Texts and their replacements, anywhere in the names of both, before they are matched: ``{"h.": "layers."}``.
    exact
        Compute all singular values of large matrices too; a matrix of 8192 x 8192 takes minutes.

    Returns
    -------
    pandas.DataFrame
        Columns as in `ComparedMatrix` and `Measures`, indexed by name. `attrs["skipped"]` lists skipped tensors and
        the reasons; `attrs["note"]` says how names were matched, if they differ.

    Raises
    ------
    InputError
        If one of the two is no checkpoint, they have no names in common, or a layer is unknown.
    """
    return inspect(
        before, after, gates=gates, heads=heads, layers=layers, key=key, prefix=prefix, rename=rename, exact=exact
    ).to_dataframe()


def inspect(
    before: CheckpointLike,
    after: CheckpointLike | None = None,
    *,
    gates: bool = True,
    heads: int | None = None,
    layers: Iterable[str] | None = None,
    key: str | None = None,
    prefix: str | None = None,
    rename: Mapping[str, str] | None = None,
    exact: bool = False,
    on_progress: Progress | None = None,
) -> Comparison:
    """Return what `compare` returns, as plain objects; `on_progress` gets (done, total, name) before each tensor."""
    if heads is not None:
        integer("heads", heads, minimum=1)
    pair = open_pair(before, after, prefix, rename, key)
    work, skipped, note = select(pair, layers)
    matrices: list[ComparedMatrix] = []
    for done, names in enumerate(work):
        if on_progress is not None:
            on_progress(done, len(work), names.label)
        for label, block in _blocks(names, pair, gates, heads, skipped):
            try:
                matrices.append(_compared(label, block, pair, names, exact))
            except Unreadable as error:
                skipped.append(Skipped(label, str(error)))
                if block is None:
                    break
    pair.release()
    return Comparison(tuple(matrices), tuple(skipped), note)


def _blocks(
    names: Names, pair: Pair, with_gates: bool, count: int | None, skipped: list[Skipped]
) -> Iterator[tuple[str, Block | None]]:
    """Yield a whole matrix and its blocks, with their names."""
    known = pair.before is not None and pair.is_known(names.before)
    name, source = (names.before, pair.before) if known and pair.before else (names.after, pair.after)
    yield names.label, None
    shapes = {key: entry.shape for key, entry in source.entries.items()}
    blocks = [Block(gate, rows, ALL) for gate, rows in gates_of(name, shapes).items()] if with_gates else []
    if count is not None:
        try:
            blocks += heads(name, source.entries, count)
        except ValueError as error:
            skipped.append(Skipped(f"{name}[heads]", str(error)))
    for block in blocks:
        yield f"{names.before}[{block.label}]", block


def _compared(label: str, block: Block | None, pair: Pair, names: Names, exact: bool) -> ComparedMatrix:
    """Measure one matrix or a block of it."""
    entry = pair.after.entries[names.after]
    rows, columns = matrix_shape(entry.shape)
    if block is not None:
        rows, columns = len(range(rows)[block.rows]), len(range(columns)[block.columns])
    with threads_for(min(rows, columns)):
        change = pair.change(names, block)
        if not change.norm:
            raise Unreadable(IDENTICAL)
        measures = measure(change, exact)
    return ComparedMatrix(
        name=label,
        tensor=names.before,
        block=None if block is None else block.label,
        shape=entry.shape if block is None and names.expert is None and names.rows is None else change.shape,
        dtype=_stored(pair, names),
        initial_norm=change.initial_norm,
        relative_norm=change.norm / change.initial_norm if change.initial_norm else None,
        measures=measures,
    )


def _stored(pair: Pair, names: Names) -> str:
    """Return how a matrix is stored after learning, and before if it was quantized."""
    entry = pair.after.entries[names.after]
    after = pair.after.stored(names.after) or str(entry.dtype).removeprefix("torch.")
    before = None if pair.before is None else pair.before.stored(names.before)
    return after if before in (None, after) else f"{after} (before: {before})"


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with one value in each column."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("_bounds"):
            flat |= {key.replace("_bounds", "_least"): value[0], key.replace("_bounds", "_most"): value[1]}
        elif key == "singular_values":
            flat |= {f"s{index}": value[index - 1] if index <= len(value) else None for index in range(1, 11)}
        else:
            flat[key] = "x".join(map(str, value)) if key == "shape" else value
    return flat
