"""A sweep: many cells worked on side by side, each saved as it is finished; started again, it does what is left.

Nothing is remembered but what is in the folder. A cell is finished if its file is there, failed if its error is
there, and being worked on if its claim is held; so a sweep may be killed at any moment, and several may run on one
folder, on one machine or many.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from typing import Any

from rankscope.errors import InputError
from rankscope.sweep import locks
from rankscope.sweep.executors import Elsewhere, OurProcesses, Team, executor_gone
from rankscope.sweep.processes import SECONDS_BETWEEN_REPORTS, OnProgress, available_cores
from rankscope.sweep.store import RunFolder, SetAside
from rankscope.sweep.worker import Attempt, Cell, Ending, Work
from rankscope.validation import integer

SUBMITTED_AHEAD = 2
"""Cells handed out beyond one a worker, so that none waits for the next."""

WORKERS_ELSEWHERE = 1000
"""Cells at most handed to an executor that is not ours and does not say how many workers it has."""

DEATHS_ALLOWED = 2
"""How many workers may die of a cell before it counts as failed."""

SECONDS_BETWEEN_LOOKS = 0.5
"""How often we look whether others have finished what they hold."""


@dataclass(frozen=True)
class SweepReport:
    """What became of the cells of a sweep, by their digests.

    Attributes
    ----------
    finished
        Computed by this sweep.
    already_done
        There before it began.
    failed
        The error of each cell that failed, now or, without `retry_failed`, before.
    elsewhere
        Finished meanwhile by others, or by a worker that died before it could say so.
    set_aside
        Damaged result files that were found. Their cells were computed again.
    """

    finished: tuple[str, ...]
    already_done: tuple[str, ...]
    failed: Mapping[str, str]
    elsewhere: tuple[str, ...]
    set_aside: tuple[SetAside, ...]


def run_sweep(
    work: Work,
    items: Iterable[Cell],
    folder: str | os.PathLike[str],
    *,
    description: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    on_progress: OnProgress | None = None,
) -> SweepReport:
    """Compute all cells that are not in `folder` yet, in the order given.

    Parameters
    ----------
    work
        work(item, report, checkpoint_path) -> xarray.Dataset, a picklable function. It may call
        report(done, total, loss), and may keep a checkpoint to go on from after an interruption.
    items
        The cells. Each has a `digest`, a name for everything that determines its result, and `describe()`; one that
        is named twice counts once.
    folder
        Where results go; made if needed. With an executor of your own, all its machines must see it.
    description
        What the sweep is, as JSON values, for run.json.
    executor
        Who does the work; by default, processes of our own with one torch thread each.
    workers
        Number of processes, by default one a core; for an executor of your own, how many cells it is given at once.
    retry_failed
        Try cells again that failed in an earlier sweep; otherwise they are left alone.
    on_progress
        on_progress(index, done, total, loss), called in this process: what item number `index` reports, the latter
        only from processes of our own, and (index, 1, 1, nan) for each that is settled.

    Raises
    ------
    InputError
        Before any work, if the folder or an argument cannot work. Later, if the folder cannot be written to any more
        (the disk is full), or the executor is gone; everything finished is kept.
    KeyboardInterrupt, SystemExit
        As they come; our processes are ended at once and everything finished is kept.
    """
    cells = list({item.digest: item for item in items}.values())
    store = RunFolder(folder)
    most = _number_of_workers(executor, workers, len(cells))
    team: Team = OurProcesses(work, store, most) if executor is None else Elsewhere(work, store, executor)
    store.prepare([(cell.digest, cell.describe()) for cell in cells], description)
    store.tidy()
    done, aside = store.sift(cell.digest for cell in cells)
    if retry_failed:
        for cell in cells:
            store.forget_failure(cell.digest)
    sweep = _Sweep(store, team, cells, most + SUBMITTED_AHEAD, on_progress)
    try:
        sweep.run(already_done=set(done))
        team.close()
    except BaseException:
        team.abandon()
        raise
    finally:
        store.tidy()
    return sweep.report(done, aside)


class _Sweep:
    """The cells of a sweep on their way: waiting, handed out, held by others, settled."""

    def __init__(
        self, store: RunFolder, team: Team, cells: list[Cell], most: int, on_progress: OnProgress | None
    ) -> None:
        self._store = store
        self._team = team
        self._cells = cells
        self._most = most
        self._on_progress = on_progress
        self._waiting: deque[int] = deque()
        self._pending: dict[Future[Attempt], int] = {}
        self._held: list[int] = []
        self._deaths: Counter[int] = Counter()
        self._unexplained = 0
        self._next_look = 0.0
        self._settled: dict[str, Attempt] = {}

    def run(self, already_done: set[str]) -> None:
        """Work until every cell is settled."""
        for index, cell in enumerate(self._cells):
            if cell.digest in already_done:
                self._tell(index, 1, 1, math.nan)
            else:
                self._waiting.append(index)
        while self._waiting or self._pending or self._held:
            try:
                self._hand_out()
                self._collect()
            except BrokenExecutor as error:
                self._recover(error)
            self._look_at_held()

    def report(self, done: list[str], aside: list[SetAside]) -> SweepReport:
        """Return what became of the cells, given what was found before."""
        ended: dict[Ending, list[str]] = {ending: [] for ending in Ending}
        for digest in (cell.digest for cell in self._cells):
            if digest in self._settled:
                ended[self._settled[digest].ending].append(digest)
        return SweepReport(
            finished=tuple(ended[Ending.FINISHED]),
            already_done=tuple(done),
            failed={digest: self._settled[digest].message for digest in ended[Ending.FAILED]},
            elsewhere=tuple(ended[Ending.ALREADY]),
            set_aside=tuple(aside),
        )

    def _hand_out(self) -> None:
        # Not more than there are workers for: what a cell is may be large, and others may finish it first.
        while self._waiting and len(self._pending) < self._most:
            future = self._team.submit(self._waiting[0], self._cells[self._waiting[0]])
            self._pending[future] = self._waiting.popleft()

    def _collect(self) -> None:
        if not self._pending:
            time.sleep(SECONDS_BETWEEN_REPORTS)
            return
        finished, _ = wait(self._pending, timeout=SECONDS_BETWEEN_REPORTS, return_when=FIRST_COMPLETED)
        for report in self._team.reports():
            self._tell(*report)
        for future in finished:
            self._note(self._pending[future], self._attempt_of(future))
            del self._pending[future]

    def _attempt_of(self, future: Future[Attempt]) -> Attempt:
        try:
            return future.result()
        except BrokenExecutor:
            raise
        except CancelledError as error:
            raise executor_gone(error) from error
        except Exception as error:
            # Attempts return their errors; this one arose on the way to a worker, or the executor gave the cell up.
            return self._fail(self._pending[future], type(error).__name__, str(error))

    def _note(self, index: int, attempt: Attempt) -> None:
        self._unexplained = 0
        if attempt.ending is Ending.NO_STORAGE:
            raise InputError(
                f"cannot go on writing in {self._store.path}: {attempt.message}; what was finished is kept, "
                f"run the sweep again once that is mended"
            )
        if attempt.ending is Ending.HELD:
            self._held.append(index)
            return
        self._settled[self._cells[index].digest] = attempt
        self._tell(index, 1, 1, math.nan)

    def _recover(self, error: BrokenExecutor) -> None:
        """Go on after a worker has died: find the cell it died of, and hand out again what was lost."""
        died = self._team.recover(error)
        pending, self._pending = self._pending, {}
        lost = []
        for future, index in pending.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                self._note(index, future.result())
            elif self._store.is_done(self._cells[index].digest):
                self._note(index, Attempt(Ending.FINISHED))
            else:
                lost.append(index)
        blamed = [index for index in lost if self._was_held_by(index, died)]
        self._deaths.update(blamed)
        for index in blamed:
            if self._deaths[index] > DEATHS_ALLOWED:
                lost.remove(index)
                times = self._deaths[index]
                self._note(index, self._fail(index, "WorkerDied", f"{times} processes died working on this cell"))
        self._waiting.extendleft(reversed(lost))
        self._unexplained = 0 if blamed else self._unexplained + 1
        if self._unexplained > DEATHS_ALLOWED:
            raise InputError(
                "worker processes must be able to start, got several that died before they began; "
                "a script that starts a sweep must do so below `if __name__ == '__main__':`"
            ) from error

    def _was_held_by(self, index: int, pids: set[int]) -> bool:
        owner = locks.owner(self._store.claim_path(self._cells[index].digest))
        return owner is not None and owner.host == locks.this_host() and owner.pid in pids

    def _fail(self, index: int, error: str, message: str) -> Attempt:
        self._store.fail(self._cells[index].digest, error, message)
        return Attempt(Ending.FAILED, f"{error}: {message}")

    def _look_at_held(self) -> None:
        """Hand out what others held and hold no more: it is done, or they died. Only once all else is handed out."""
        if self._waiting or not self._held or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
        free = [i for i in self._held if not locks.is_held(self._store.claim_path(self._cells[i].digest))]
        self._held = [index for index in self._held if index not in free]
        self._waiting.extend(free)

    def _tell(self, index: int, done: int, total: int, loss: float) -> None:
        if self._on_progress is not None:
            self._on_progress(index, done, total, loss)


def _number_of_workers(executor: Executor | None, workers: int | None, cells: int) -> int:
    if workers is not None:
        most = integer("workers", workers, minimum=1)
    elif executor is None:
        most = available_cores()
    else:
        most = getattr(executor, "_max_workers", WORKERS_ELSEWHERE)
    return max(1, min(most, cells))
