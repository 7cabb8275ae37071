"""Executors of the jobs of a run: local processes, or any `concurrent.futures.Executor` (Dask's, for example).

Local processes report progress and are replaced when one dies. An executor of the user manages its own workers.
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
from rankscope.sweep.job import Job
from rankscope.sweep.processes import WorkerPool
from rankscope.sweep.worker import Outcome, Settings, run_job, run_job_elsewhere

SECONDS_BETWEEN_COUNTS = 30.0
"""Interval at which the workers of a cluster are counted."""

logger = logging.getLogger(__name__)


class JobExecutor(Protocol):
    """Interface of the runner to its workers."""

    def submit(self, index: int, job: Job) -> Future[Outcome]:
        """Submit job number `index`; raise BrokenExecutor if a worker has died."""

    def reports(self) -> list[tuple[int, int, int, float]]:
        """Return the progress reported since the last call: (index, done, total, loss)."""

    def recover(self, error: BrokenExecutor) -> set[int]:
        """Start again after a worker has died; return the process numbers of the dead."""

    def close(self) -> None:
        """Stop after all work is done."""

    def abandon(self) -> None:
        """Stop now."""


class LocalProcesses:
    """`workers` processes on this machine.

    Raises
    ------
    InputError
        If a job cannot be sent to another process.
    """

    def __init__(self, settings: Settings, jobs: list[Job], workers: int) -> None:
        try:
            pickle.dumps(jobs[:1])
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InputError(
                f"task must be a name, or an object of a class of a module, to be sent to another process: {error}"
            ) from error
        self._work = partial(run_job, settings)
        self._workers = workers
        self._pool = WorkerPool(workers)

    def submit(self, index: int, job: Job) -> Future[Outcome]:
        """Submit job number `index`; raise BrokenExecutor if a worker has died."""
        return self._pool.submit(self._work, index, job)

    def reports(self) -> list[tuple[int, int, int, float]]:
        """Return the progress reported since the last call: (index, done, total, loss)."""
        return self._pool.reports()

    def recover(self, error: BrokenExecutor) -> set[int]:
        """Replace all processes, as the death of one may leave their queues locked; return the dead ones."""
        died = self._pool.close_broken() or self._pool.pids()
        self._pool = WorkerPool(self._workers)
        return died

    def close(self) -> None:
        """Stop after all work is done."""
        self._pool.close()

    def abandon(self) -> None:
        """Stop now."""
        self._pool.abandon()


class External:
    """An executor of the user, which keeps running at the end.

    A cluster may lose all its workers, or wait for its first. The user decides how long to wait; a warning is logged.
    """

    def __init__(self, settings: Settings, executor: Executor) -> None:
        self._settings = settings
        self._executor = executor
        self._numbers = itertools.count()
        self._pending: set[Future[Outcome]] = set()
        self._next_count = time.monotonic() + SECONDS_BETWEEN_COUNTS
        self._waiting = False

    def submit(self, index: int, job: Job) -> Future[Outcome]:
        """Submit a job."""
        parent = (locks.this_host(), os.getpid())
        try:
            future = self._executor.submit(run_job_elsewhere, self._settings, job, next(self._numbers), parent)
        except RuntimeError as error:
            raise executor_gone(error) from error
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def reports(self) -> list[tuple[int, int, int, float]]:
        """Return nothing, as no queue reaches other machines; warn if the cluster has no worker."""
        if time.monotonic() >= self._next_count:
            workers = _number_of_workers(self._executor)
            if workers == 0 and not self._waiting:
                logger.warning(
                    "the cluster has no worker; the run waits for one (it can be interrupted and run again: finished "
                    "jobs are kept)"
                )
            self._waiting = workers == 0
            self._next_count = time.monotonic() + SECONDS_BETWEEN_COUNTS
        return []

    def recover(self, error: BrokenExecutor) -> set[int]:
        """Raise `InputError`: only the user can make another executor."""
        raise executor_gone(error) from error

    def close(self) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Cancel what has not begun; running jobs are stored when they finish."""
        for future in list(self._pending):
            future.cancel()


def _number_of_workers(executor: Executor) -> int | None:
    """Return the number of workers of a Dask cluster; None for other executors, or without an answer."""
    try:
        # The executor has no interface for it, but its client has.
        return len(executor._client.scheduler_info()["workers"])  # type: ignore[attr-defined]
    except Exception:
        return None


def executor_gone(error: BaseException) -> InputError:
    """Return the error for an executor that has stopped."""
    got = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return InputError(
        f"executor must accept work until the run ends, got {got}; finished jobs are kept, start the run again to "
        "continue"
    )
