"""`run`: many jobs side by side, each stored as soon as it is finished; run again, it does what is left.

All state is in the folder. A job is finished if its result exists, failed if its error is recorded, and running if its
lock is held. So a run may be killed at any moment, and several processes, on one machine or many, may work on one
folder.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from typing import Any

from rankscope.errors import InputError
from rankscope.sweep import locks
from rankscope.sweep.cost import bytes_on_disk
from rankscope.sweep.executors import External, JobExecutor, LocalProcesses, executor_gone
from rankscope.sweep.job import Job, Progress
from rankscope.sweep.processes import SECONDS_BETWEEN_REPORTS, OnProgress, available_cores
from rankscope.sweep.store import RunFolder, SetAside
from rankscope.sweep.together import ProgressOf, chosen_device, train_groups
from rankscope.sweep.worker import Ending, Outcome, Settings, missing_measurements
from rankscope.validation import integer

SUBMITTED_AHEAD = 2
"""Jobs submitted beyond one a worker, so that no worker waits for its next."""

EXTERNAL_WORKERS = 1000
"""Largest number of jobs submitted to an executor of unknown size."""

DEATHS_ALLOWED = 2
"""Number of workers that may die running a job before it counts as failed."""

SECONDS_BETWEEN_CHECKS = 0.5
"""Interval at which jobs locked by other processes are checked."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What happened to the jobs of a run, by their digests.

    Attributes
    ----------
    finished
        Run by this call.
    already_done
        Finished before it began.
    failed
        The error of each job that failed, now or, without `retry_failed`, earlier.
    elsewhere
        Finished meanwhile by other processes, or by a worker that died before it could report.
    set_aside
        Damaged results that were found; their jobs were run again.
    others
        Number of jobs of other runs in the same folder.
    alone
        With a device, the jobs that were not trained together, and why.
    """

    finished: tuple[str, ...]
    already_done: tuple[str, ...]
    failed: Mapping[str, str]
    elsewhere: tuple[str, ...]
    set_aside: tuple[SetAside, ...]
    others: int
    alone: Mapping[str, str]


def run(
    jobs: Iterable[Job],
    folder: str | os.PathLike[str],
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    device: str | None = None,
    retry_failed: bool = False,
    keep_weights: bool = True,
    on_progress: OnProgress | None = None,
    description: Mapping[str, Any] | None = None,
) -> RunResult:
    """Run all jobs that are not finished in `folder` yet, in the order given.

    Parameters
    ----------
    jobs
        The jobs; equal ones are run once. A finished job that names further measurements is only measured.
    folder
        Folder of the results, made if needed. With an executor of your own, all its machines must see it.
    workers
        Number of processes, by default one a core; with an executor, how many jobs are submitted at once.
    executor
        Any `concurrent.futures.Executor`; by default local processes with one thread each.
    device
        "cuda" or "cpu": train alike jobs together there; "auto": "cuda" if there is a GPU. Experimental, not yet run
        on a GPU. By default every job is trained by a process.
    retry_failed
        Run jobs again that failed earlier.
    keep_weights
        Store the network before and after training; without it, nothing can be measured later.
    on_progress
        on_progress(index, done, total, loss), called in this process: the progress of job number `index` (not from
        executors of your own), and (index, 1, 1, nan) for each job that is finished or failed.
    description
        What the run is, as JSON values, for run.json.

    Raises
    ------
    InputError
        Before any work, if the folder, a job or an argument is unsuitable. Later, if the folder cannot be written to
        any more (the disk is full), or the executor has stopped; finished jobs are kept.
    KeyboardInterrupt, SystemExit
        Local processes are ended at once; finished jobs are kept, interrupted ones continue in the next run.
    """
    distinct = list({job.digest: job for job in jobs}.values())
    store = RunFolder(folder)
    if workers is not None:
        integer("workers", workers, minimum=1)
    if device is not None and executor is not None:
        raise InputError(f"device must be None beside an executor, got {device!r}: one or the other does the work")
    check_jobs([job for job in distinct if not store.is_done(job.digest)])
    others = len(store.prepare(distinct, description).jobs) - len(distinct)
    if others:
        logger.warning("%s also lists %d jobs of other runs; open_run returns all of them together", folder, others)
    store.tidy()
    done, aside = store.set_aside_damaged(job.digest for job in distinct)
    if retry_failed:
        for job in distinct:
            store.forget_failure(job.digest)
    complete = {job.digest for job in distinct if job.digest in set(done) and not missing_measurements(store, job)}
    _announce_size(store, [job for job in distinct if job.digest not in done], keep_weights)
    where = chosen_device(device)
    alone: dict[str, str] = {}
    if where is not None:
        left = [job for job in distinct if job.digest not in done]
        alone = train_groups(left, store, where, _progress_of(distinct, on_progress))
    most = _number_of_workers(executor, workers, len(distinct))
    settings = Settings(store, keep_weights)
    workforce: JobExecutor = (
        LocalProcesses(settings, distinct, most) if executor is None else External(settings, executor)
    )
    active = _Run(store, workforce, distinct, most + SUBMITTED_AHEAD, on_progress)
    try:
        active.run(already_done=complete)
        workforce.close()
    except BaseException:
        workforce.abandon()
        raise
    finally:
        store.tidy()
    return active.result([digest for digest in done if digest in complete], aside, others, alone)


def measure_run(
    folder: str | os.PathLike[str],
    names: Sequence[str],
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    on_progress: OnProgress | None = None,
) -> RunResult:
    """Make further measurements on all finished jobs of a run, without training.

    Each measurement draws from a random stream of its own, so the numbers are those that the run would have had from
    the beginning. Arguments as in `run`.

    Raises
    ------
    InputError
        If a measurement is unknown or does not apply, or the networks were not kept.
    """
    if isinstance(names, str) or not names:
        raise InputError(f"names must be a list of measurements such as ['spectra'], got {names!r}")
    store = RunFolder(folder)
    jobs = []
    for digest in store.done():
        job = Job.from_json(store.result(digest).metadata["job"])
        jobs.append(job.model_copy(update={"measurements": tuple(dict.fromkeys((*(job.measurements or ()), *names)))}))
    if not jobs:
        raise InputError(f"folder must hold finished jobs, got {str(folder)!r}, which has none")
    check_jobs(jobs)
    return run(jobs, folder, workers=workers, executor=executor, retry_failed=True, on_progress=on_progress)


def check_jobs(jobs: Sequence[Job]) -> None:
    """Build task and network of one job of each kind.

    Raises
    ------
    InputError
        If a job cannot be run here.
    """
    kinds = {}
    for job in jobs:
        described = {name: value for name, value in job.description.items() if name not in ("seed", "labels")}
        kinds[json.dumps([described, job.measurements], sort_keys=True)] = job
    for job in kinds.values():
        job.check()


class _Run:
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

    def run(self, already_done: set[str]) -> None:
        """Work until every job is settled."""
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

    def result(self, done: list[str], aside: list[SetAside], others: int, alone: Mapping[str, str]) -> RunResult:
        """Return what happened, given what was found before."""
        ended: dict[Ending, list[str]] = {ending: [] for ending in Ending}
        for digest in (job.digest for job in self._jobs):
            if digest in self._settled:
                ended[self._settled[digest].ending].append(digest)
        return RunResult(
            finished=tuple(ended[Ending.FINISHED]),
            already_done=tuple(done),
            failed={digest: self._settled[digest].message for digest in ended[Ending.FAILED]},
            elsewhere=tuple(ended[Ending.ALREADY_DONE]),
            set_aside=tuple(aside),
            others=others,
            alone=alone,
        )

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


def _progress_of(jobs: Sequence[Job], on_progress: OnProgress | None) -> ProgressOf | None:
    """Return a function that reports the progress of a group as that of each of its jobs."""
    if on_progress is None:
        return None
    number_of = {job.digest: index for index, job in enumerate(jobs)}

    def progress_of(group: Sequence[Job]) -> Progress:
        def report(done: int, total: int, loss: float) -> None:
            for job in group:
                on_progress(number_of[job.digest], done, total, loss)

        return report

    return progress_of


def _announce_size(store: RunFolder, jobs: Sequence[Job], keep_weights: bool) -> None:
    """Log how many bytes the results will take, and warn if the disk has less."""
    needed = bytes_on_disk(jobs, keep_weights)
    free = shutil.disk_usage(store.path).free
    logger.info("%d jobs will take about %.3g GB in %s", len(jobs), needed / 1e9, store.path)
    if needed > free:
        logger.warning(
            "%s needs about %.3g GB and has %.3g GB free; keep_weights=False takes less",
            store.path,
            needed / 1e9,
            free / 1e9,
        )


def _number_of_workers(executor: Executor | None, workers: int | None, jobs: int) -> int:
    if workers is not None:
        most = workers
    elif executor is None:
        most = available_cores()
    else:
        most = getattr(executor, "_max_workers", EXTERNAL_WORKERS)
    return max(1, min(most, jobs))
