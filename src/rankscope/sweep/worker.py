"""Running one job of a run, in a local process or on a machine of a cluster.

The lock is acquired first, then the folder is checked again, then the job is run and stored, and only then is the lock
released. So at every moment a job is unlocked, locked by a living process, or finished.
"""

from __future__ import annotations

import errno
import logging
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import torch

from rankscope.errors import InputError
from rankscope.networks.use import collected_warnings
from rankscope.sweep import locks
from rankscope.sweep.growth import begin_from, keep_state
from rankscope.sweep.job import Job
from rankscope.sweep.result_file import measurements_of
from rankscope.sweep.store import RunFolder

logger = logging.getLogger(__name__)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
Report = Callable[[int, int, float], None]
"""report(done, total, loss)"""


class Ending(Enum):
    """How an attempt to run a job ended."""

    FINISHED = "finished"
    ALREADY_DONE = "already done"
    FAILED = "failed"
    LOCKED = "locked"  # another process works on it
    NO_STORAGE = "no storage"  # the folder cannot be written to any more


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, and the error if there was one."""

    ending: Ending
    message: str = ""


@dataclass(frozen=True)
class Settings:
    """What a worker needs besides the job: the folder, whether weights are kept, and which result a job continues."""

    folder: RunFolder
    keep_weights: bool = True
    continued: Mapping[str, str] = field(default_factory=dict)


def run_job(settings: Settings, job: Job, report: Report) -> Outcome:
    """Run a job unless it is done or locked, and store its result or its error.

    Raises nothing: errors are in the outcome.
    """
    folder = settings.folder
    try:
        if not (folder.path / "run.json").exists():
            message = f"a worker does not see {folder.path}; the folder must be shared by all machines"
            return Outcome(Ending.NO_STORAGE, message)
        settled = _settled(folder, job)
        if settled is not None:
            return settled
        lock = locks.acquire(folder.lock_path(job.digest))
        if lock is None:
            return Outcome(Ending.LOCKED)
        with lock:
            # Another process may have finished it between the check and the lock.
            return _settled(folder, job) or _run_and_store(settings, job, report)
    except (OSError, InputError) as error:
        return Outcome(Ending.NO_STORAGE, str(error))


def run_job_elsewhere(settings: Settings, job: Job, number: int, parent: tuple[str, int]) -> Outcome:
    """`run_job` on an executor of the user.

    Parameters
    ----------
    number
        Differs from call to call, so that no executor takes a second attempt for the first.
    parent
        Host and process number of the run.
    """
    if parent != (locks.this_host(), os.getpid()) and torch.get_num_threads() != 1:
        # As in local processes, so that the results are identical.
        torch.set_num_threads(1)
    return run_job(settings, job, lambda done, total, loss: None)


def begin(settings: Settings, digest: str) -> None:
    """Write the state file of a job that continues a shorter one, unless the job has one already."""
    folder, shorter = settings.folder, settings.continued.get(digest)
    state = folder.state_path(digest)
    if shorter is not None and not state.exists() and not folder.is_done(digest):
        try:
            begin_from(folder, shorter, state)
        except InputError as error:
            logger.warning("job %s is trained from the beginning: %s", digest, error)


def missing_measurements(folder: RunFolder, job: Job) -> tuple[str, ...]:
    """Return the measurements that a job names and its finished result lacks."""
    stored = measurements_of(folder.result(job.digest))
    return tuple(name for name in job.measurements or () if name not in stored)


def _settled(folder: RunFolder, job: Job) -> Outcome | None:
    if folder.is_done(job.digest) and not missing_measurements(folder, job):
        return Outcome(Ending.ALREADY_DONE)
    failure = folder.failure(job.digest)
    return None if failure is None else Outcome(Ending.FAILED, f"{failure.error}: {failure.message}")


def _run_and_store(settings: Settings, job: Job, report: Report) -> Outcome:
    folder, digest = settings.folder, job.digest
    state = folder.state_path(digest)
    begin(settings, digest)
    resumed = state.exists()
    done = None
    try:
        with collected_warnings():  # issued by the step before the run, and stored with the result
            if folder.is_done(digest):
                folder.add_measurements(job, missing_measurements(folder, job))
            else:
                done = job.run(report, state)
    except Exception as error:  # whatever a task, a network or a measurement raises is recorded
        if _disk_is_full(error):
            return Outcome(Ending.NO_STORAGE, str(error))
        folder.fail(digest, type(error).__name__, str(error), traceback.format_exc())
        if resumed and state.exists():
            # The state file may be the cause; the next attempt begins without it.
            folder.set_aside(state, f"the job failed continuing from here: {error}")
        return Outcome(Ending.FAILED, f"{type(error).__name__}: {error}")
    if done is not None:

        def keep(result: Path) -> None:
            if settings.keep_weights and state.exists():
                keep_state(state, result)

        folder.save(done, settings.keep_weights, keep)
    state.unlink(missing_ok=True)
    return Outcome(Ending.FINISHED)


def _disk_is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
