"""The jobs of a run on their way through an executor: submitted, collected, and submitted again after a death."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait

from rankscope.errors import InputError
from rankscope.sweep import locks
from rankscope.sweep.executors import JobExecutor, executor_gone
from rankscope.sweep.job import Job
from rankscope.sweep.processes import SECONDS_BETWEEN_REPORTS, OnProgress
from rankscope.sweep.store import RunFolder
from rankscope.sweep.worker import Ending, Outcome

DEATHS_ALLOWED = 2
"""Number of workers that may die running a job before it counts as failed."""

SECONDS_BETWEEN_CHECKS = 0.5
"""Interval at which jobs locked by other processes are checked."""


class Schedule:
    """The jobs of a run: waiting, submitted, locked by other processes, or settled."""

    def __init__(
        self, store: RunFolder, executor: JobExecutor, jobs: list[Job], most: int, on_progress: OnProgress | None
    ) -> None:
        self._store = store
        self._executor = executor
        self._jobs = jobs
        self._most = most
        self._on_progress = on_progress
        self._waiting: deque[int] = deque()
        self._pending: dict[Future[Outcome], int] = {}
        self._locked: list[int] = []
        self._deaths: Counter[int] = Counter()
        self._unexplained = 0
        self._next_check = 0.0
        self._settled: dict[str, Outcome] = {}

    def run(self, already_done: set[str]) -> dict[str, Outcome]:
        """Work until every job is settled; return the outcomes of those not done before, in order."""
        for index, job in enumerate(self._jobs):
            if job.digest in already_done:
                self._report(index, 1, 1, math.nan)
            else:
                self._waiting.append(index)
        while self._waiting or self._pending or self._locked:
            try:
                self._submit()
                self._collect()
            except BrokenExecutor as error:
                self._recover(error)
            self._check_locked()
        return {job.digest: self._settled[job.digest] for job in self._jobs if job.digest in self._settled}

    def _submit(self) -> None:
        # No more than there are workers: other processes may finish the rest first.
        while self._waiting and len(self._pending) < self._most:
            future = self._executor.submit(self._waiting[0], self._jobs[self._waiting[0]])
            self._pending[future] = self._waiting.popleft()

    def _collect(self) -> None:
        if not self._pending:
            time.sleep(SECONDS_BETWEEN_REPORTS)
            return
        finished, _ = wait(self._pending, timeout=SECONDS_BETWEEN_REPORTS, return_when=FIRST_COMPLETED)
        for report in self._executor.reports():
            self._report(*report)
        for future in finished:
            self._settle(self._pending[future], self._outcome_of(future))
            del self._pending[future]

    def _outcome_of(self, future: Future[Outcome]) -> Outcome:
        try:
            return future.result()
        except BrokenExecutor:
            raise
        except CancelledError as error:
            raise executor_gone(error) from error
        except Exception as error:
            # Workers return their errors; this one occurred on the way there, or the executor gave the job up.
            return self._fail(self._pending[future], type(error).__name__, str(error))

    def _settle(self, index: int, outcome: Outcome) -> None:
        self._unexplained = 0
        if outcome.ending is Ending.NO_STORAGE:
            raise InputError(
                f"cannot continue to write in {self._store.path}: {outcome.message}; finished jobs are kept, start "
                "the run again once that is solved"
            )
        if outcome.ending is Ending.LOCKED:
            self._locked.append(index)
            return
        self._settled[self._jobs[index].digest] = outcome
        self._report(index, 1, 1, math.nan)

    def _recover(self, error: BrokenExecutor) -> None:
        """Continue after a worker has died: find the job it died of, and submit again what was lost."""
        died = self._executor.recover(error)
        pending, self._pending = self._pending, {}
        lost = []
        for future, index in pending.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                self._settle(index, future.result())
            else:
                lost.append(index)
        blamed = [index for index in lost if self._was_locked_by(index, died)]
        self._deaths.update(blamed)
        for index in blamed:
            if self._deaths[index] > DEATHS_ALLOWED:
                lost.remove(index)
                times = self._deaths[index]
                self._settle(index, self._fail(index, "WorkerDied", f"{times} processes died working on this job"))
        self._waiting.extendleft(reversed(lost))
        self._unexplained = 0 if blamed else self._unexplained + 1
        if self._unexplained > DEATHS_ALLOWED:
            raise InputError(
                "worker processes must be able to start, got several that died before they began; a script that "
                "starts a run must do so below `if __name__ == '__main__':`"
            ) from error

    def _was_locked_by(self, index: int, pids: set[int]) -> bool:
        owner = locks.owner(self._store.lock_path(self._jobs[index].digest))
        return owner is not None and owner.host == locks.this_host() and owner.pid in pids

    def _fail(self, index: int, error: str, message: str) -> Outcome:
        self._store.fail(self._jobs[index].digest, error, message)
        return Outcome(Ending.FAILED, f"{error}: {message}")

    def _check_locked(self) -> None:
        """Submit jobs again whose locks were released: they are done, or their owner died."""
        if self._waiting or not self._locked or time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + SECONDS_BETWEEN_CHECKS
        free = [i for i in self._locked if not locks.is_held(self._store.lock_path(self._jobs[i].digest))]
        self._locked = [index for index in self._locked if index not in free]
        self._waiting.extend(free)

    def _report(self, index: int, done: int, total: int, loss: float) -> None:
        if self._on_progress is not None:
            self._on_progress(index, done, total, loss)
