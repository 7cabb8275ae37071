r"""Several checkpoints of one training: the change of each against the first, and the growth of its directions.

The leading singular vectors $u_j, v_j$ of the last change of a matrix are its k directions. At another checkpoint with
the change $\Delta W$, direction $j$ has the strength $u_j^T \Delta W v_j$, which ends at the singular value $s_j$. Its
match are the singular vectors $a, b$ of $\Delta W$ with the largest $|a \cdot u_j| |b \cdot v_j|$. The overlap is
$|A^T U|^2 / k$ for the k leading left singular vectors A of $\Delta W$ and U of the last change, and alike on the
right: the fraction of the last directions that are there, k / N for random ones among N dimensions. Singular vectors
below the rounding of the weights do not count. One matrix of one checkpoint is in memory at a time.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from rankscope.checkpoints.opening import CheckpointLike
from rankscope.checkpoints.pairs import Names, Pair, Skipped, open_pair, select
from rankscope.checkpoints.ranks import leading
from rankscope.checkpoints.source import Unreadable
from rankscope.checkpoints.table import write_rows
from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.lowrank.change import Change, FactoredChange
from rankscope.lowrank.noise_edges import Measures, measure
from rankscope.validation import integer

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int, str], None]
STEP = re.compile(r"(?:checkpoint|ckpt|global_?step|step|epoch|iteration|iter|ep|it)s?[-_=.]?(\d{1,12})(?!\d)", re.I)


@dataclass(frozen=True)
class Stage:
    """The change of one matrix from the first checkpoint to another one."""

    name: str
    checkpoint: str
    step: int | None  # number in the name of the checkpoint
    norm: float  # |dW|, Frobenius
    relative_norm: float | None  # |dW| / |W0|; None where there is no W0, or it is zero
    strengths: tuple[float, ...]  # u_j^T dW v_j of the k directions of the last change
    cosines: tuple[float, ...]  # |a.u_j| |b.v_j| of the matched singular vectors
    places: tuple[int, ...]  # and their places, 1 for the leading ones; 0 without a change
    left_overlap: float  # of the subspaces of the k leading directions, here and in the last change
    right_overlap: float
    measures: Measures | None  # None without a change

    def row(self) -> dict[str, Any]:
        """Return everything as one flat mapping."""
        own = {key: value for key, value in vars(self).items() if key != "measures"}
        # Equal in both, but known without a change too.
        rest = {} if self.measures is None else asdict(self.measures)
        return own | {key: value for key, value in rest.items() if key != "norm"}


@dataclass(frozen=True)
class Growth:
    """Stages, matrix by matrix and in the order of the checkpoints; tensors left out, with the reasons."""

    checkpoints: tuple[str, ...]  # labels; the first one is what the others are compared with
    stages: tuple[Stage, ...]
    skipped: tuple[Skipped, ...]
    note: str | None = None

    def write_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write one row for each matrix and checkpoint."""
        return write_rows(path, [stage.row() for stage in self.stages])

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row for each matrix and checkpoint; skipped tensors are in `attrs["skipped"]`."""
        import pandas as pd

        frame = pd.DataFrame([stage.row() for stage in self.stages])
        if len(frame):
            frame = frame.set_index(["name", "checkpoint"])
        frame.attrs["skipped"] = [one._asdict() for one in self.skipped]
        frame.attrs["note"] = self.note
        return frame


class _Last(NamedTuple):
    """The k directions of the last change: U (rows, k), Vt (k, columns)."""

    U: Tensor
    Vt: Tensor


def compare_along(
    checkpoints: Sequence[CheckpointLike],
    *,
    labels: Sequence[str] | None = None,
    layers: Iterable[str] | None = None,
    key: str | None = None,
    prefix: str | None = None,
    rename: Mapping[str, str] | None = None,
    directions: int = 8,
    exact: bool = False,
    on_progress: Progress | None = None,
) -> Growth:
    """Compare each of several checkpoints with the first one, and follow the directions of the last change.

    Parameters
    ----------
    checkpoints
        Three or more in the order of training, as in `open_checkpoint`.
    labels
        Names of the checkpoints; by default those of their files, with the number in it as `step`.
    layers
        Keys of weights, or patterns such as ``"*.q_proj.weight"``; by default all matrices.
    key, prefix, rename
        As in `compare`.
    directions
        Largest number k of directions to follow in a matrix. There are fewer where fewer stand out of the noise of the
        last change, or, without a flat bulk of noise, have 90 % of its squared norm.
    exact
        Compute all singular values of large matrices.
    on_progress
        Gets (done, total, name) before each matrix of each checkpoint.

    Raises
    ------
    InputError
        If there are fewer than three checkpoints, one of them is none, or a layer is unknown.
    """
    given = list(checkpoints)
    if len(given) < 3:
        raise InputError(f"checkpoints must be three or more, got {len(given)}; compare takes two")
    most = integer("directions", directions, minimum=1)
    names, steps = _named(given, labels)
    pairs = [open_pair(given[0], one, prefix, rename, key) for one in given[1:]]
    chosen = list(layers) if layers is not None and not isinstance(layers, str) else layers
    selected = [select(pair, chosen) for pair in pairs]
    skipped = list(selected[-1].skipped)
    work = selected[-1].matrices
    found = [{one.label: one for one in selection.matrices} for selection in selected]
    stages: list[Stage] = []
    for done, last in enumerate(work):
        lacking = [names[i + 1] for i, matrices in enumerate(found) if last.label not in matrices]
        if lacking:
            skipped.append(Skipped(last.label, f"not to be compared in {', '.join(lacking[:3])}"))
            continue
        several = [matrices[last.label] for matrices in found]

        def progress(index: int, label: str = last.label, done: int = done) -> None:
            if on_progress is not None:
                on_progress(done * len(pairs) + index, len(work) * len(pairs), label)

        try:
            stages += _stages(pairs, several, names[1:], steps[1:], most, exact, progress)
        except Unreadable as error:
            skipped.append(Skipped(last.label, str(error)))
    for pair in pairs:
        pair.release()
    notes = dict.fromkeys(selection.note for selection in selected if selection.note)
    return Growth(tuple(names), tuple(stages), tuple(skipped), "; ".join(notes) or None)


def _stages(
    pairs: Sequence[Pair],
    several: Sequence[Names],
    names: Sequence[str],
    steps: Sequence[int | None],
    most: int,
    exact: bool,
    progress: Callable[[int], None],
) -> Iterator[Stage]:
    """Yield the stages of one matrix, the last of which is read first."""
    progress(0)
    change = _read(pairs[-1], several[-1], names[-1])
    with threads_for(min(change.shape)):
        if not change.norm:
            raise Unreadable(f"the same in {names[-1]} as in the first checkpoint: there are no directions to follow")
        measures = measure(change, exact)
        last = _directions(change, measures, most)
        final = _stage(change, several[-1].label, names[-1], steps[-1], last, measures)
        del change
        for index, pair in enumerate(pairs[:-1]):
            progress(index + 1)
            earlier = _read(pair, several[index], names[index])
            found = measure(earlier, exact) if earlier.norm else None
            yield _stage(earlier, several[-1].label, names[index], steps[index], last, found)
            del earlier
    yield final


def _read(pair: Pair, names: Names, label: str) -> Change:
    try:
        change = pair.change(names)
    except Unreadable as error:
        raise Unreadable(f"{label}: {error}") from error
    pair.release()
    return change


def _directions(change: Change, measures: Measures, most: int) -> _Last:
    """Return the leading directions of the last change that are followed."""
    count = measures.standing_out if measures.standing_out is not None else measures.rank_90_bounds[0]
    U, s, Vt = leading(change, min(most, max(count, 1)))
    k = min(most, max(count, 1), len(s))
    return _Last(U[:, :k].double(), Vt[:k].double())


def _stage(change: Change, name: str, label: str, step: int | None, last: _Last, measures: Measures | None) -> Stage:
    k = len(last.Vt)
    relative = change.norm / change.initial_norm if change.initial_norm else None
    if measures is None:
        zeros = (0.0,) * k
        return Stage(name, label, step, change.norm, relative, zeros, zeros, (0,) * k, 0.0, 0.0, None)
    # A direction that ends among the first k may begin far behind them.
    U, s, Vt = (factor.double() for factor in leading(change, 4 * k))
    known = max(1, int((s > measures.rounding_noise).sum()))
    U, Vt = U[:, :known], Vt[:known]
    left, right = (last.U.t() @ U).abs(), (last.Vt @ Vt.t()).abs()
    cosines, places = (left * right).max(1)
    return Stage(
        name=name,
        checkpoint=label,
        step=step,
        norm=change.norm,
        relative_norm=relative,
        strengths=_strengths(change, last),
        cosines=tuple(cosines.tolist()),
        places=tuple((places + 1).tolist()),
        left_overlap=float(left[:, :k].square().sum() / k),
        right_overlap=float(right[:, :k].square().sum() / k),
        measures=measures,
    )


def _strengths(change: Change, last: _Last) -> tuple[float, ...]:
    """Return u_j^T dW v_j of each direction j."""
    if isinstance(change, FactoredChange):
        products = (last.U.t() @ change.B) * (change.A @ last.Vt.t()).t()
    else:
        matrix = torch.from_numpy(change.matrix)
        products = (last.U.t().to(matrix.dtype) @ matrix).double() * last.Vt
    return tuple(products.sum(1).tolist())


def _named(given: Sequence[CheckpointLike], labels: Sequence[str] | None) -> tuple[list[str], list[int | None]]:
    """Return a label of each checkpoint, all different, and the number in it."""
    if labels is not None:
        names = [str(label) for label in labels]
        if isinstance(labels, str) or len(names) != len(given) or len(set(names)) < len(names):
            raise InputError(f"labels must be {len(given)} different names, one a checkpoint, got {labels!r}")
        return names, [_step(name) for name in names]
    paths = [Path(one) if isinstance(one, (str, os.PathLike)) else None for one in given]
    found = [_label(path, index) for index, path in enumerate(paths)]
    counts = Counter(found)
    names = [name if counts[name] == 1 else f"{index}: {name}" for index, name in enumerate(found)]
    return names, [_step(name) for name in found]


def _label(path: Path | None, index: int) -> str:
    """Return the last component of a path with a number of a step in it, or its last component."""
    if path is None:
        return f"checkpoint {index}"
    components = [path.stem if path.is_file() else path.name, *reversed(path.absolute().parts[1:-1][-2:])]
    return next((one for one in components if STEP.search(one)), components[0])


def _step(label: str) -> int | None:
    found = STEP.findall(label)
    return int(found[-1]) if found else None
