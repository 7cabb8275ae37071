"""Measurement of one matrix of a pair of checkpoints, here or in another process.

Matrices are independent of each other. Another process opens the files itself and keeps them open for the next matrix.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from threadpoolctl import threadpool_limits

from rankscope.checkpoints.attention import HeadOptions, heads_of
from rankscope.checkpoints.comparison import ComparedMatrix
from rankscope.checkpoints.kinds import ALL, Block, matrix_shape
from rankscope.checkpoints.opening import CheckpointLike
from rankscope.checkpoints.pairs import Names, Pair, Skipped, open_pair
from rankscope.checkpoints.source import Unreadable
from rankscope.linalg.threads import threads_for
from rankscope.lowrank.matrices import gates_of
from rankscope.lowrank.noise_edges import measure

IDENTICAL = "the same before and after"


@dataclass(frozen=True)
class Opening:
    """Two checkpoints and how their names are matched, as in `compare`."""

    before: CheckpointLike
    after: CheckpointLike | None
    prefix: str | None
    rename: tuple[tuple[str, str], ...]
    key: str | None

    def open(self) -> Pair:
        """Open the two."""
        return open_pair(self.before, self.after, self.prefix, dict(self.rename), self.key)


class Options(NamedTuple):
    """What is measured of each matrix, as in `compare`."""

    gates: bool
    heads: HeadOptions | None
    exact: bool
    device: str
    intruders: bool = False


class Measured(NamedTuple):
    """A matrix and its blocks, and those that are left out."""

    matrices: list[ComparedMatrix]
    skipped: list[Skipped]


def measure_matrix(pair: Pair, names: Names, options: Options) -> Measured:
    """Measure a matrix and its blocks."""
    matrices: list[ComparedMatrix] = []
    skipped: list[Skipped] = []
    for label, block in _blocks(names, pair, options, skipped):
        try:
            matrices.append(_compared(label, block, pair, names, options))
        except Unreadable as error:
            skipped.append(Skipped(label, str(error)))
            if block is None:
                break
    return Measured(matrices, skipped)


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """Yield an executor of so many processes with one thread each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_use_one_thread) as executor:
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def submit_all(executor: Executor, opening: Opening, work: list[Names], options: Options) -> list[Future[Measured]]:
    """Let an executor measure all matrices, the largest first; return the results in the order of `work`."""
    pair = opening.open()
    sizes = {names: math.prod(pair.after.entries[names.after].shape) for names in work}
    pair.release()
    futures = {
        names: executor.submit(_measure_elsewhere, opening, names, options)
        for names in sorted(work, key=lambda names: -sizes[names])
    }
    return [futures[names] for names in work]


def _measure_elsewhere(opening: Opening, names: Names, options: Options) -> Measured:
    return measure_matrix(_opened(opening), names, options)


@functools.lru_cache(maxsize=1)
def _opened(opening: Opening) -> Pair:
    return opening.open()


def _use_one_thread() -> None:
    threadpool_limits(1)
    torch.set_num_threads(1)


def _blocks(names: Names, pair: Pair, options: Options, skipped: list[Skipped]) -> Iterator[tuple[str, Block | None]]:
    """Yield a whole matrix and its blocks, with their names."""
    known = pair.before is not None and pair.is_known(names.before)
    name, source = (names.before, pair.before) if known and pair.before else (names.after, pair.after)
    yield names.label, None
    shapes = {key: entry.shape for key, entry in source.entries.items()}
    blocks = [Block(gate, rows, ALL) for gate, rows in gates_of(name, shapes).items()] if options.gates else []
    if options.heads is not None:
        try:
            blocks += heads_of(name, source.entries, options.heads)
        except ValueError as error:
            skipped.append(Skipped(f"{name}[heads]", str(error)))
    for block in blocks:
        yield f"{names.before}[{block.label}]", block


def _compared(label: str, block: Block | None, pair: Pair, names: Names, options: Options) -> ComparedMatrix:
    """Measure one matrix or a block of it."""
    entry = pair.after.entries[names.after]
    rows, columns = matrix_shape(entry.shape)
    if block is not None:
        rows, columns = len(range(rows)[block.rows]), len(range(columns)[block.columns])
    with threads_for(min(rows, columns)):
        change = pair.change(names, block)
        if not change.norm:
            raise Unreadable(IDENTICAL)
        measures = measure(change, options.exact, options.device, options.intruders)
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
