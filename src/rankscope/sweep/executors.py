"""Who works on the cells of a sweep: processes of our own, or any executor, such as that of a Dask cluster.

Ours tell how far they are, and are replaced when one dies. Another executor looks after its workers itself.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import time
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from typing import Protocol

from rankscope.errors import InputError
from rankscope.sweep import locks
from rankscope.sweep.processes import WorkerPool
from rankscope.sweep.store import RunFolder
from rankscope.sweep.worker import Attempt, Cell, Work, attempt, attempt_elsewhere

SECONDS_BETWEEN_COUNTS = 30.0
"""How often we look whether a cluster has any worker."""

logger = logging.getLogger(__name__)


class Team(Protocol):
    """What a sweep needs of those who work for it."""

    def submit(self, index: int, cell: Cell) -> Future[Attempt]:
        """Have cell number `index` attempted; raises BrokenExecutor if a worker has died."""

    def reports(self) -> list[tuple[int, int, int, float]]:
        """Return what was reported since the last call: (index, done, total, loss)."""

    def recover(self, error: BrokenExecutor) -> set[int]:
        """Begin anew after a worker has died; return the process numbers that died by themselves."""

    def close(self) -> None:
        """End after all work is done."""

    def abandon(self) -> None:
        """End now."""


class OurProcesses:
    """`workers` processes on this machine.

    Raises
    ------
    InputError
        If `work` cannot be sent to another process.
    """

    def __init__(self, work: Work, folder: RunFolder, workers: int) -> None:
        try:
            pickle.dumps(work)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InputError(f"work must be a function of a module, got {work!r}: {error}") from error
        self._attempt = partial(attempt, work, folder)
        self._workers = workers
        self._pool = WorkerPool(workers)

    def submit(self, index: int, cell: Cell) -> Future[Attempt]:
        """Have cell number `index` attempted; raises BrokenExecutor if a worker has died."""
        return self._pool.submit(self._attempt, index, cell)

    def reports(self) -> list[tuple[int, int, int, float]]:
        """Return what was reported since the last call: (index, done, total, loss)."""
        return self._pool.reports()

    def recover(self, error: BrokenExecutor) -> set[int]:
        """Replace all processes, since the death of one may leave their queues locked; return which died."""
        died = self._pool.close_broken() or self._pool.pids()
        self._pool = WorkerPool(self._workers)
        return died

    def close(self) -> None:
        """End after all work is done."""
        self._pool.close()

    def abandon(self) -> None:
        """End now."""
        self._pool.abandon()


class Elsewhere:
    """An executor that is not ours. It is left running at the end.

    A cluster may lose all its workers, or wait for its first. For how long is for its owner to judge; we only say so.
    """

    def __init__(self, work: Work, folder: RunFolder, executor: Executor) -> None:
        self._work = work
        self._folder = folder
        self._executor = executor
        self._numbers = itertools.count()
        self._pending: set[Future[Attempt]] = set()
        self._next_count = time.monotonic() + SECONDS_BETWEEN_COUNTS
        self._waits = False

    def submit(self, index: int, cell: Cell) -> Future[Attempt]:
        """Have a cell attempted."""
        here = (locks.this_host(), os.getpid())
        arguments = (self._work, self._folder, cell, next(self._numbers), here)
        try:
            future = self._executor.submit(attempt_elsewhere, *arguments)
        except RuntimeError as error:
            raise executor_gone(error) from error
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def reports(self) -> list[tuple[int, int, int, float]]:
        """Return nothing, as there is no queue to other machines; say so if there is nobody to work."""
        if time.monotonic() >= self._next_count:
            workers = _number_of_workers(self._executor)
            if workers == 0 and not self._waits:
                logger.warning(
                    "the cluster has no worker; the sweep waits for one (it can be interrupted and run again: what was "
                    "finished is kept)"
                )
            self._waits = workers == 0
            self._next_count = time.monotonic() + SECONDS_BETWEEN_COUNTS
        return []

    def recover(self, error: BrokenExecutor) -> set[int]:
        """Give up: only its owner can make another executor."""
        raise executor_gone(error) from error

    def close(self) -> None:
        """Leave the executor to its owner."""

    def abandon(self) -> None:
        """Take back what has not begun; what has begun is saved when it is done."""
        for future in list(self._pending):
            future.cancel()


def _number_of_workers(executor: Executor) -> int | None:
    """Return how many workers a Dask cluster has; None if the executor is another, or does not answer."""
    try:
        # The executor does not say how to ask; its client does.
        return len(executor._client.scheduler_info()["workers"])  # type: ignore[attr-defined]
    except Exception:
        return None


def executor_gone(error: BaseException) -> InputError:
    """Return the error that says that an executor does not work any more."""
    got = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return InputError(
        f"executor must take work until the sweep ends, got {got}; what was finished is kept, run the sweep again to "
        "go on"
    )
