"""Plan of a reproduction: which runs it needs, what is left of them, and how long that takes here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankscope.errors import InputError
from rankscope.experiments import EXPERIMENTS
from rankscope.sweep import Job, RunFolder
from rankscope.sweep.cost import bytes_on_disk, seconds_for
from rankscope.validation import choice

#: Experiments with statements to check.
NAMES = tuple(name for name, experiment in EXPERIMENTS.items() if experiment.claims)


@dataclass(frozen=True)
class Part:
    """One run, and the experiments that are read from it.

    Attributes
    ----------
    name
        Experiment that names the run.
    experiments
        All experiments with these jobs.
    folder
        Folder of the run.
    jobs
        All jobs, the longest first.
    done
        Number of jobs with a result in the folder.
    left
        Number of jobs to run: those without a result that no earlier part has; 0 if it cannot be run.
    seconds
        Estimate for these.
    bytes
        Estimate of the disk space that these take.
    missing
        Why it cannot be run here; empty if it can.
    """

    name: str
    experiments: tuple[str, ...]
    folder: Path
    jobs: tuple[Job, ...]
    done: int
    left: int
    seconds: float
    bytes: int
    missing: str = ""

    def row(self) -> dict[str, Any]:
        """Return the part as plain values."""
        return {
            "run": self.name,
            "experiments": list(self.experiments),
            "networks": len(self.jobs),
            "done": self.done,
            "left": self.left,
            "seconds": float(f"{self.seconds:.2g}"),
            "bytes": self.bytes,
            "missing": self.missing,
        }


def make_plan(folder: Path, preset: str, workers: int, only: Iterable[str] = ()) -> list[Part]:
    """Return the runs of a reproduction, in order.

    Parameters
    ----------
    folder
        Of the reproduction; each run has a folder in it.
    preset
        "quick" or "paper".
    workers
        Number of processes.
    only
        Names of experiments; by default all.

    Raises
    ------
    InputError
        If an experiment is unknown, or a run in the folder is of another preset.
    """
    chosen = [choice("only", name, NAMES) for name in only] or list(NAMES)
    groups: dict[frozenset[str], tuple[list[str], list[Job]]] = {}
    for name in (name for name in NAMES if name in chosen):
        jobs = EXPERIMENTS[name].jobs(preset)
        same = frozenset(job.digest for job in jobs)
        names, before = groups.get(same, ([], []))
        groups[same] = [*names, name], _together(before, jobs)
    parts: list[Part] = []
    known: set[str] = set()
    for names, jobs in groups.values():
        store = RunFolder(folder / names[0])
        _check_preset(store, preset)
        missing = _missing(jobs)
        waiting = [job for job in jobs if not _is_done(store, job)]
        left = [job for job in waiting if job.digest not in known]
        needed = [] if missing else left
        seconds = seconds_for(needed, workers) if needed else 0.0
        ordered = sorted(jobs, key=lambda job: -seconds_for([job], 1))
        parts.append(
            Part(
                name=names[0],
                experiments=tuple(names),
                folder=store.path,
                jobs=tuple(ordered),
                done=len(jobs) - len(waiting),
                left=len(needed),
                seconds=seconds,
                bytes=bytes_on_disk(needed),
                missing=missing,
            )
        )
        if not missing:
            known |= {job.digest for job in jobs}
    return parts


def _together(jobs: list[Job], others: list[Job]) -> list[Job]:
    """Return the jobs with the measurements of the same jobs of another experiment, which both must name."""
    measured = {job.digest: job.measurements for job in jobs}
    return [_measured(job, measured.get(job.digest)) for job in others]


def _measured(job: Job, further: tuple[str, ...] | None) -> Job:
    if not further or job.measurements is None:
        return job
    return job.model_copy(update={"measurements": tuple(dict.fromkeys((*further, *job.measurements)))})


def _is_done(store: RunFolder, job: Job) -> bool:
    return store.path.is_dir() and store.is_done(job.digest)


def _check_preset(store: RunFolder, preset: str) -> None:
    if (store.path / "run.json").exists():
        found = store.manifest().description.get("preset")
        if found != preset:
            raise InputError(
                f"out must not hold the preset {found!r} of {store.path.name}, which {store.path} has; choose another "
                f"folder for {preset!r}"
            )


def _missing(jobs: list[Job]) -> str:
    """Return why the jobs cannot be run here, in one line."""
    try:
        jobs[0].check()
    except InputError as error:
        return " ".join(str(error).split())
    return ""
