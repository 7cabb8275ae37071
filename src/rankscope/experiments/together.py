"""Cells that are alike, trained together on one device, and handed on to be measured.

The networks of an experiment differ in gain, seed and sample; all that are alike otherwise are trained at once, as many
as the memory holds. What a group leaves behind is, for each cell, the checkpoint that it would have left had it been
trained alone. From there the ordinary sweep goes on, on processes, while the device trains the next group: it finds the
training finished, measures, and stores. So everything about claims, results and failures is as in any other sweep, and
a run begun on a device may be finished on processes, and the other way round.

In the folder of a run, a group that is on its way is two files, checkpoints/together-GROUP.json with the digests of its
cells and checkpoints/together-GROUP.safetensors; and it holds the claims of its cells.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rankscope.errors import InputError
from rankscope.experiments.base import AnyCell
from rankscope.experiments.cell import Cell, generators_of, initial_network
from rankscope.experiments.measuring import measure_cell
from rankscope.io.atomic import replacing
from rankscope.sweep import RunFolder, SweepReport, locks, run_sweep
from rankscope.sweep.processes import SECONDS_BETWEEN_REPORTS, OnProgress
from rankscope.training import group_checkpoint
from rankscope.training.batched import bytes_of_one
from rankscope.training.cuda import free_bytes
from rankscope.training.together import check_alike, train_together
from rankscope.validation import integer

SHARE_OF_MEMORY = 0.7
"""How much of the free memory of a device a group may take: the estimate is one, and libraries need some."""
MAY_DIFFER = ("gain", "seed", "sample", "labels", "measurements")
OPTIONS = {
    "batch_size",
    "optimizer",
    "learning_rate",
    "clip_norm",
    "stop_below",
    "loss",
    "recorded_epochs",
    "singular_values",
    "eigenvalues",
    "record_weights",
}
"""Options of `train` that `train_together` has too."""
PREFIX = "together-"


@dataclass(frozen=True)
class Plan:
    """Which cells can be trained together.

    Attributes
    ----------
    kinds
        Cells that are alike, two or more.
    alone
        Digest -> why this cell is trained by itself, on a process.
    """

    kinds: tuple[tuple[Cell, ...], ...]
    alone: Mapping[str, str]


def plan(cells: Sequence[AnyCell]) -> Plan:
    """Find out which cells can be trained together; a network of each kind is drawn for it."""
    alone: dict[str, str] = {}
    alike: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        if not isinstance(cell, Cell):
            alone[cell.digest] = "it is not a rate network on a task"
        elif further := set(cell.training) - OPTIONS:
            alone[cell.digest] = f"networks that train together have no option {min(further)}"
        elif cell.task.fresh() is not cell.task:
            alone[cell.digest] = "its task draws from a pool of trials"
        else:
            described = {name: value for name, value in cell.describe().items() if name not in MAY_DIFFER}
            alike.setdefault(json.dumps(described, sort_keys=True), {})[cell.digest] = cell
    kinds = []
    for kind in alike.values():
        reason = "it is the only one of its kind" if len(kind) == 1 else _why_not(next(iter(kind.values())))
        if reason is None:
            kinds.append(tuple(kind.values()))
        else:
            alone |= dict.fromkeys(kind, reason)
    return Plan(tuple(kinds), alone)


def run_together(
    cells: Sequence[AnyCell],
    folder: str | os.PathLike[str],
    device: torch.device,
    *,
    description: Mapping[str, Any] | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    on_progress: OnProgress | None = None,
    most: int | None = None,
) -> SweepReport:
    """Run cells into a folder, those that are alike together on `device`; otherwise as `sweep.run_sweep`.

    Parameters
    ----------
    workers
        Processes that measure, and that train what cannot be trained together.
    most
        Networks in a group at most; by default as many as its memory holds, by `training.stack.bytes_of_one`.

    Raises
    ------
    InputError, KeyboardInterrupt
        As `run_sweep`. Interrupted, the group on its way is saved and goes on the next time.
    """
    wanted = list({cell.digest: cell for cell in cells}.values())
    if workers is not None:
        integer("workers", workers, minimum=1)
    store = RunFolder(folder)
    store.prepare([(cell.digest, cell.describe()) for cell in wanted], description)
    store.tidy()
    if retry_failed:
        for cell in wanted:
            store.forget_failure(cell.digest)
    telling = _Telling([cell.digest for cell in wanted], on_progress)
    reports: list[Future[SweepReport]] = []
    # One sweep at a time, in the order in which its cells are ready; the device goes on meanwhile.
    measuring = ThreadPoolExecutor(1, thread_name_prefix="measure")

    def measure(ready: Sequence[AnyCell]) -> None:
        if not ready:
            return
        on_their_progress = telling.of([cell.digest for cell in ready])
        sweep = measuring.submit(run_sweep, measure_cell, ready, folder, workers=workers, on_progress=on_their_progress)
        reports.append(sweep)

    try:
        unfinished = [c for c in wanted if not store.is_done(c.digest) and store.failure(c.digest) is None]
        groups = _groups(store, unfinished, device, most)
        grouped = {cell.digest for group in groups for cell in group.cells}
        # What others are at work on is waited for in the end.
        others = [cell for cell in unfinished if not locks.is_held(store.claim_path(cell.digest))]
        measure([cell for cell in others if cell.digest not in grouped])
        while groups:
            trained, smaller = _train(store, groups.pop(0), device, telling)
            groups = [*smaller, *groups]
            measure(trained)
            for sweep in reports:
                if sweep.done():
                    sweep.result()  # raises what it ended with: the disk may be full
        for sweep in reports:
            sweep.result()
    except BaseException:
        telling.stop()
        raise
    finally:
        measuring.shutdown(cancel_futures=True)
    for path in (store.path / "checkpoints").glob(f"{PREFIX}*.json"):
        if all(store.is_done(digest) for digest in _members(store, path.stem)):
            path.unlink(missing_ok=True)
            store.checkpoint_path(path.stem).unlink(missing_ok=True)
    # What is left: cells that others worked on, or that are failing.
    last = run_sweep(
        measure_cell,
        wanted,
        folder,
        description=description,
        workers=workers,
        on_progress=telling.of([cell.digest for cell in wanted]),
    )
    return _whole_report([sweep.result() for sweep in reports], last)


def disband_groups(folder: str | os.PathLike[str], cells: Sequence[AnyCell]) -> None:
    """Leave behind, of groups that nobody trains any more, the checkpoints of their cells, to go on from one by one.

    Parameters
    ----------
    cells
        Groups with other cells are left alone.
    """
    store = RunFolder(folder)
    for group in _interrupted(store, cells):
        with _claimed(store, group) as ours:
            if ours:
                _disband(store, group.name, ours)


@dataclass(frozen=True)
class _Group:
    """Cells to be trained together, and the name under which they are in the folder."""

    cells: tuple[Cell, ...]
    name: str

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> _Group:
        """Return the group of these cells, whose name follows from them and their order."""
        digests = "".join(cell.digest for cell in cells)
        return cls(tuple(cells), PREFIX + hashlib.sha256(digests.encode()).hexdigest()[:12])


class _Telling:
    """Tells one listener of the progress of cells that are worked on in several places."""

    def __init__(self, digests: Sequence[str], on_progress: OnProgress | None) -> None:
        self._index = {digest: index for index, digest in enumerate(digests)}
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._stopped = False
        self._last = 0.0

    def of(self, digests: Sequence[str]) -> OnProgress:
        """Return the `on_progress` of a sweep over these cells."""

        def on_progress(index: int, done: int, total: int, loss: float) -> None:
            self._tell([digests[index]], done, total, loss)

        return on_progress

    def together(self, cells: Sequence[Cell]) -> Callable[[int, int, float], None]:
        """Return the `progress` of a group: every network is as far as all."""

        def progress(done: int, total: int, loss: float) -> None:
            now = time.monotonic()
            if done == total or now - self._last >= SECONDS_BETWEEN_REPORTS:
                self._last = now
                # One more than there are epochs, as a network that is trained is not measured yet.
                self._tell([cell.digest for cell in cells], done, total + 1, loss)

        return progress

    def stop(self) -> None:
        """End the sweeps that tell us something."""
        self._stopped = True

    def _tell(self, digests: Sequence[str], done: int, total: int, loss: float) -> None:
        if self._stopped:
            raise KeyboardInterrupt
        if self._on_progress is not None:
            with self._lock:
                for digest in digests:
                    self._on_progress(self._index[digest], done, total, loss)


def _why_not(cell: Cell) -> str | None:
    try:
        check_alike([initial_network(cell)])
    except InputError as error:
        return str(error)
    return None


def _groups(store: RunFolder, cells: Sequence[AnyCell], device: torch.device, most: int | None) -> list[_Group]:
    """Return the groups to train: those that were interrupted as they were, and of the rest what is alike.

    Cells that have a checkpoint of their own go with others of the same epoch, as they must be at one epoch to be
    together; who finds no other is trained on a process.
    """
    unfinished = {cell.digest for cell in cells}
    groups = [
        _Group(tuple(cell for cell in group.cells if cell.digest in unfinished), group.name)
        for group in _interrupted(store, cells)
    ]
    taken = {cell.digest for group in groups for cell in group.cells}
    for kind in plan([cell for cell in cells if cell.digest not in taken]).kinds:
        by_epoch: dict[int, list[Cell]] = {}
        for cell in kind:
            path = store.checkpoint_path(cell.digest)
            at = group_checkpoint.standing(path)
            if at is None and path.exists():
                continue  # for a process to find out what is wrong with it
            if at is None or not at.status:
                by_epoch.setdefault(at.epoch if at else 0, []).append(cell)
        for together in by_epoch.values():
            size = _group_size(together[0], device) if most is None else most
            parts = math.ceil(len(together) / size)
            groups += [_Group.of(together[part::parts]) for part in range(parts)]
    return [group for group in groups if len(group.cells) > 1]


def _group_size(cell: Cell, device: torch.device) -> int:
    one = bytes_of_one(initial_network(cell), cell.task.steps, cell.training.get("batch_size", 32))
    return max(1, int(SHARE_OF_MEMORY * free_bytes(device) / one))


def _train(store: RunFolder, group: _Group, device: torch.device, telling: _Telling) -> tuple[list[Cell], list[_Group]]:
    """Train a group and leave behind the checkpoint of each of its cells.

    Returns
    -------
    The cells that are ready for the sweep; and smaller groups, which are not, if the group was too large. A group that
    fails is left to the sweep as it is, which tries each cell by itself and says what is wrong with it.
    """
    with _claimed(store, group) as ours:
        if len(ours) < 2:
            return ours, []
        if len(ours) < len(_members(store, group.name) or ours):
            _disband(store, group.name, ours)  # it is not the same group without those that others took or finished
            group = _Group.of(ours)
        path = store.checkpoint_path(group.name)
        for _ in range(2):
            resumed = path.exists()
            try:
                _train_all(store, group, device, telling.together(ours))
            except torch.OutOfMemoryError:
                # The estimate was too small, or somebody else uses the device.
                _disband(store, group.name, ours)
                return ([], [_Group.of(ours[part::2]) for part in range(2)]) if len(ours) > 3 else (ours, [])
            except Exception as error:
                if not resumed:
                    break
                # It may be the checkpoint that made it fail: once more, afresh.
                if path.exists():
                    store.set_aside(path, f"the networks failed going on from here: {error}")
            else:
                break
        _disband(store, group.name, ours)
    return ours, []


def _train_all(
    store: RunFolder, group: _Group, device: torch.device, progress: Callable[[int, int, float], None]
) -> None:
    """Train the cells of a group, which are ours, from where its checkpoint or theirs left them."""
    path = store.checkpoint_path(group.name)
    with replacing(_members_path(store, group.name)) as temporary:
        temporary.write_text(json.dumps([cell.digest for cell in group.cells]))
    own = [store.checkpoint_path(cell.digest) for cell in group.cells]
    if not path.exists() and all(one.exists() for one in own):
        group_checkpoint.put_together(path, own)
    first = group.cells[0]
    sources = [generators_of(cell) for cell in group.cells]
    train_together(
        [initial_network(cell) for cell in group.cells],
        first.task,
        first.epochs,
        [training for _, training, _ in sources],
        device=device,
        progress=progress,
        checkpoint=path,
        **first.training,
    )


def _disband(store: RunFolder, name: str, ours: Sequence[Cell]) -> None:
    """Leave behind the checkpoint of each cell of ours in a group, as training it alone would have; end the group."""
    path, digests = store.checkpoint_path(name), {cell.digest for cell in ours}
    targets = {
        number: store.checkpoint_path(digest)
        for number, digest in enumerate(_members(store, name))
        if digest in digests
    }
    if path.exists():
        try:
            group_checkpoint.take_out(path, targets)
        except InputError as error:
            store.set_aside(path, str(error))
    path.unlink(missing_ok=True)
    _members_path(store, name).unlink(missing_ok=True)


def _interrupted(store: RunFolder, cells: Sequence[AnyCell]) -> list[_Group]:
    """Return the groups that are in the folder, as far as they consist of `cells`, and have a checkpoint to go on from.

    Groups of which a part is finished have only the other part in `cells`; those of which nothing is are not returned.
    """
    known = {cell.digest: cell for cell in cells if isinstance(cell, Cell)}
    found = []
    for path in sorted((store.path / "checkpoints").glob(f"{PREFIX}*.json")):
        digests = _members(store, path.stem)
        left = [digest for digest in digests if not store.is_done(digest)]
        if left and all(digest in known for digest in left) and store.checkpoint_path(path.stem).exists():
            found.append(_Group(tuple(known[digest] for digest in left), path.stem))
    return found


def _members_path(store: RunFolder, name: str) -> Path:
    return store.path / "checkpoints" / f"{name}.json"


def _members(store: RunFolder, name: str) -> list[str]:
    """Return the digests of the cells of a group in the folder, in its order; none if it is not there."""
    try:
        digests = json.loads(_members_path(store, name).read_text())
    except (OSError, ValueError, RecursionError):
        return []
    return [str(digest) for digest in digests] if isinstance(digests, list) else []


@contextmanager
def _claimed(store: RunFolder, group: _Group) -> Iterator[list[Cell]]:
    """Hold the claims of a group and of its cells; yield those cells that are ours: not finished, and nobody's else."""
    with ExitStack() as held:
        ours: list[Cell] = []
        for digest, cell in ((group.name, None), *((cell.digest, cell) for cell in group.cells)):
            claim = locks.acquire(store.claim_path(digest))
            if claim is not None:
                held.enter_context(claim)
                if cell is not None and not store.is_done(digest):
                    ours.append(cell)
            elif cell is None:
                break  # somebody trains this group
        yield ours


def _whole_report(reports: Sequence[SweepReport], last: SweepReport) -> SweepReport:
    """Return the report of all sweeps as one: the last one has seen what the others finished as done before."""
    finished = {digest for report in reports for digest in report.finished}
    elsewhere = {digest for report in reports for digest in report.elsewhere}
    return SweepReport(
        finished=(*(d for d in last.already_done if d in finished), *last.finished),
        already_done=tuple(d for d in last.already_done if d not in finished | elsewhere),
        failed=last.failed,
        elsewhere=(*(d for d in last.already_done if d in elsewhere), *last.elsewhere),
        set_aside=(*(one for report in reports for one in report.set_aside), *last.set_aside),
    )
