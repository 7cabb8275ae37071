"""`run`: many jobs side by side, each stored as soon as it is finished; run again, it does what is left.

All state is in the folder. A job is finished if its result exists, failed if its error is recorded, and running if its
lock is held. So a run may be killed at any moment, and several processes, on one machine or many, may work on one
folder.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from rankscope.errors import InputError
from rankscope.io.atomic import make_folder
from rankscope.networks.use import collected_warnings, issue
from rankscope.notebook import run_bar
from rankscope.sweep import locks
from rankscope.sweep.calls import Recorder
from rankscope.sweep.cost import bytes_on_disk
from rankscope.sweep.executors import External, JobExecutor, LocalProcesses
from rankscope.sweep.growth import Growth, plan
from rankscope.sweep.job import Done, Job, Progress
from rankscope.sweep.leftovers import remove_leftovers
from rankscope.sweep.processes import OnProgress, available_cores
from rankscope.sweep.result_file import MEASUREMENTS
from rankscope.sweep.schedule import Schedule
from rankscope.sweep.store import RunFolder, SetAside
from rankscope.sweep.together import ProgressOf, chosen_device, train_groups
from rankscope.sweep.worker import Ending, Settings, begin, missing_measurements
from rankscope.validation import integer

SUBMITTED_AHEAD = 2
"""Jobs submitted beyond one a worker, so that no worker waits for its next."""

EXTERNAL_WORKERS = 1000
"""Largest number of jobs submitted to an executor of unknown size."""

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
        Number of results in the folder that are not of these jobs.
    alone
        With a device, the jobs that were not trained together, and why.
    continued
        Jobs that continued the training of a result with fewer epochs, and its digest. That result is in earlier/.
    anew
        Jobs that were trained from the beginning although there was such a result, and why.
    folder
        Folder of the results.
    """

    finished: tuple[str, ...]
    already_done: tuple[str, ...]
    failed: Mapping[str, str]
    elsewhere: tuple[str, ...]
    set_aside: tuple[SetAside, ...]
    others: int
    alone: Mapping[str, str]
    continued: Mapping[str, str] = field(default_factory=dict)
    anew: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()

    def _repr_html_(self) -> str:
        from rankscope.sweep.display import result_html

        return result_html(self)


def run(
    jobs: Iterable[Job],
    folder: str | os.PathLike[str],
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    device: str | None = None,
    retry_failed: bool = False,
    keep_weights: bool = True,
    add: bool = False,
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
        Store the network before and after training and the state of its optimizer; without it, nothing can be measured
        later, and more epochs begin anew.
    add
        Add the jobs to a folder with results of other jobs; without it, such a folder is refused.
    on_progress
        on_progress(index, done, total, loss), called in this process: the progress of job number `index` (not from
        executors of your own), and (index, 1, 1, nan) for each job that is finished or failed. By default a bar in
        notebooks, else nothing.
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
    growth = plan(store, distinct, add)
    check_jobs([job for job in distinct if not store.is_done(job.digest)])
    store.prepare(distinct, description, _abandoned(store, distinct, growth, add))
    for digest, reason in growth.anew.items():
        logger.warning("job %s is trained from the beginning: %s", digest, reason)
    remove_leftovers(store)
    done, aside = store.set_aside_damaged(job.digest for job in distinct)
    if retry_failed:
        for job in distinct:
            store.forget_failure(job.digest)
    trained = set(done)
    complete = {job.digest for job in distinct if job.digest in trained and not missing_measurements(store, job)}
    untrained = [job for job in distinct if job.digest not in trained]
    _announce_size(store, untrained, keep_weights)
    if on_progress is None and distinct:
        on_progress = run_bar(len(distinct))
    where = chosen_device(device)
    alone: dict[str, str] = {}
    settings = Settings(store, keep_weights, growth.continued)
    most = _number_of_workers(executor, workers, len(distinct))
    kind = str(where or ("processes" if executor is None else "executor"))
    recorder = Recorder(store.path, most, kind) if len(complete) < len(distinct) else None
    if where is not None:
        for job in untrained:
            begin(settings, job.digest)
        alone = train_groups(untrained, store, where, _progress_of(distinct, on_progress))
    if recorder is not None:
        on_progress = recorder.while_reporting(on_progress)
    workforce: JobExecutor = (
        LocalProcesses(settings, distinct, most) if executor is None else External(settings, executor)
    )
    try:
        outcomes = Schedule(store, workforce, distinct, most + SUBMITTED_AHEAD, on_progress).run(complete)
        workforce.close()
    except BaseException:
        workforce.abandon()
        raise
    finally:
        if recorder is not None:
            recorder.write()
        for shorter, longer in growth.superseded.items():
            if store.is_done(longer) and store.measurements_path(shorter).exists():
                store.retire(shorter)
        remove_leftovers(store)

    def ended(ending: Ending) -> list[str]:
        return [digest for digest, outcome in outcomes.items() if outcome.ending is ending]

    return RunResult(
        finished=tuple(ended(Ending.FINISHED)),
        already_done=tuple(digest for digest in done if digest in complete),
        failed={digest: outcomes[digest].message for digest in ended(Ending.FAILED)},
        elsewhere=tuple(ended(Ending.ALREADY_DONE)),
        set_aside=tuple(aside),
        others=len(growth.others),
        alone=alone,
        continued=growth.continued,
        anew=growth.anew,
        folder=store.path,
    )


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
        raise store.without_results()
    check_jobs(jobs)
    return run(jobs, folder, workers=workers, executor=executor, retry_failed=True, on_progress=on_progress)


def run_into(
    job: Job, folder: str | os.PathLike[str], progress: Progress | None = None, overwrite: bool = False
) -> tuple[Done, list[Path]]:
    """Run one job into a folder of its own; interrupted, the same call continues it.

    Returns
    -------
    The finished job, and the paths of its files.

    Raises
    ------
    InputError
        If the folder cannot be written to or already holds results, or the job cannot be run.
    """
    root = make_folder(folder)
    if (root / MEASUREMENTS).exists() and not overwrite:
        raise InputError(f"out must be a folder without results, got {folder}; choose another or say --overwrite")
    state = root / f"state-{job.digest}.safetensors"
    done = job.run(progress, state)
    files = done.save(root)
    state.unlink(missing_ok=True)
    return done, files


def check_jobs(jobs: Sequence[Job]) -> None:
    """Build task and network of each different job, and train one job of each kind for one step.

    Jobs are of one kind if they differ in numbers only; the smallest is trained.

    Raises
    ------
    InputError
        If a job cannot be run here.
    """
    kinds = {}
    for job in jobs:
        described = {name: value for name, value in job.description.items() if name not in ("seed", "labels")}
        kinds[json.dumps([described, job.measurements], sort_keys=True)] = job
    smallest: dict[str, Job] = {}
    for job in sorted(kinds.values(), key=lambda job: job.description["network"].get("hidden_size", 0), reverse=True):
        described = {name: job.description[name] for name in ("network", "training")}
        smallest[json.dumps([job.description["task"], _without_numbers(described)], sort_keys=True)] = job
    with collected_warnings() as warned:
        for job in kinds.values():
            job.check(step=any(job is one for one in smallest.values()))
    for text in warned:
        issue(text)


def _abandoned(store: RunFolder, jobs: Sequence[Job], growth: Growth, add: bool) -> set[str]:
    """Return the listed jobs that belong to the run no more: trained longer, or of a sweep that left no results."""
    wanted = {job.digest for job in jobs}
    try:
        listed = set() if add else set(store.manifest().jobs) - wanted
    except InputError:
        listed = set()
    without = {d for d in listed if not store.measurements_path(d).exists() and not locks.is_held(store.lock_path(d))}
    return without | (set(growth.superseded) - wanted)


def _without_numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_numbers(one) for name, one in value.items()}
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else value


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
    logger.info("%d jobs will take about %s in %s", len(jobs), decimal(needed), store.path)
    if needed > free:
        logger.warning(
            "%s needs about %s and has %s free; keep_weights=False takes less",
            store.path,
            decimal(needed),
            decimal(free),
        )


def _number_of_workers(executor: Executor | None, workers: int | None, jobs: int) -> int:
    if workers is not None:
        most = workers
    elif executor is None:
        most = available_cores()
    else:
        most = getattr(executor, "_max_workers", EXTERNAL_WORKERS)
    return max(1, min(most, jobs))
