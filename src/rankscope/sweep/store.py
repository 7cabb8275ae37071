"""The folder of a run.

    RUN/run.json                                  what the run is, and the list of its jobs
    RUN/jobs/DIGEST/network.safetensors           the network before and after training
    RUN/jobs/DIGEST/measurements.safetensors      everything measured, and the description of the job
    RUN/jobs/DIGEST/training.safetensors          where the training continues to more epochs
    RUN/earlier/DIGEST                            results of jobs that were trained longer since
    RUN/failed/DIGEST.json                        why a job failed
    RUN/locks/DIGEST                              which process works on a job
    RUN/state/DIGEST.safetensors                  where an interrupted training continues
    RUN/calls/*.jsonl                             when, where and with how many workers the run was worked on
    RUN/set-aside/                                damaged results, each with the reason beside it

The folder of a job is written under another name and renamed, so it exists completely or not at all. Its name is the
digest of everything that determines its content, so it is the result of that job whichever process computed it; the
digest is repeated in the files, which identifies foreign ones.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from rankscope import measurements as measuring
from rankscope.errors import InputError
from rankscope.io.atomic import force_to_disk, make_folder, replacing
from rankscope.io.dataset_file import StoredDataset
from rankscope.networks import kept_epochs, load_networks
from rankscope.networks.protocol import with_weights
from rankscope.sweep import locks
from rankscope.sweep.failures import Failure, read_failure, write_failure
from rankscope.sweep.job import Done, Job
from rankscope.sweep.manifest import DIGEST, Manifest, merge_manifest, read_manifest
from rankscope.sweep.result_file import (
    MEASUREMENTS,
    NETWORK,
    TRAINING,
    damage,
    measurements_of,
    open_result,
    write_result,
)
from rankscope.user_code import is_reference

FOLDERS = ("jobs", "failed", "locks", "state", "set-aside")
EARLIER = "earlier"


@dataclass(frozen=True)
class SetAside:
    """A damaged result: its name in the run folder, what was wrong, and its new place."""

    name: str
    reason: str
    moved_to: Path

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Counts:
    """Number of jobs listed in run.json, and how many are finished, failed, running, or waiting."""

    total: int
    done: int
    failed: int
    running: int
    waiting: int


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run. Creating this object touches no file; `prepare` makes the folder.

    Attributes
    ----------
    path
        Absolute path of the folder.
    """

    path: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Workers may have another current folder.
        object.__setattr__(self, "path", Path(path).absolute())

    def measurements_path(self, digest: str) -> Path:
        """Return the path of the measurements of a job."""
        return self.path / "jobs" / digest / MEASUREMENTS

    def network_path(self, digest: str) -> Path:
        """Return the path of the networks of a job."""
        return self.path / "jobs" / digest / NETWORK

    def training_path(self, digest: str) -> Path:
        """Return the path of the training state that is kept with the result of a job."""
        return self.path / "jobs" / digest / TRAINING

    def state_path(self, digest: str) -> Path:
        """Return the path of the state file of a job's training."""
        return self.path / "state" / f"{digest}.safetensors"

    def lock_path(self, digest: str) -> Path:
        """Return the path of the lock of a job."""
        return self.path / "locks" / digest

    def prepare(
        self, jobs: Sequence[Job] = (), description: Mapping[str, Any] | None = None, dropped: Collection[str] = ()
    ) -> Manifest:
        """Make the folder, check that it can be written to, add `jobs` to run.json, and remove those `dropped`.

        Raises
        ------
        InputError
            If the folder cannot be made or written to, or holds a foreign run.json.
        """
        for folder in (".", *FOLDERS):
            make_folder(self.path / folder)
        try:
            return merge_manifest(self.path / "run.json", self.lock_path("run.json"), jobs, description, dropped)
        except OSError as error:
            raise InputError(f"cannot write in {self.path}: {error.strerror}") from error

    def manifest(self) -> Manifest:
        """Return the content of run.json.

        Raises
        ------
        InputError
            If there is none, or it is not that of a run.
        """
        manifest = read_manifest(self.path / "run.json")
        if manifest is None:
            got = f"{self.path}, which {self.hint('has no run.json')}"
            raise InputError(f"folder must be the folder of a run, got {got}")
        return manifest

    def without_results(self) -> InputError:
        """Return the error of a folder without finished jobs."""
        return InputError(f"folder must hold finished jobs, got {str(self.path)!r}, which {self.hint('has none yet')}")

    def hint(self, missing: str) -> str:
        """Return `missing`, or what the folder is instead of a run."""
        if not (self.path / MEASUREMENTS).exists():
            return missing
        return (
            f"holds one job, not a run; open its network with RateRNN.load or GatedRNN.load ({NETWORK}) and its "
            f"measurements with rankscope.io.dataset_file.open_dataset ({MEASUREMENTS}), or train with `rankscope run`"
        )

    def done(self) -> list[str]:
        """Return the digests of all results, whether run.json lists them or not."""
        return sorted(path.name for path in (self.path / "jobs").glob("*") if DIGEST.fullmatch(path.name))

    def is_done(self, digest: str) -> bool:
        """Return whether a job has a result; only the headers of its files are read."""
        return self.damage(digest) is None

    def damage(self, digest: str, thorough: bool = False) -> str | None:
        """Return what is wrong with the result of a job, or None, as `rankscope.sweep.result_file.damage`."""
        return damage(self.path / "jobs" / digest, digest, thorough)

    def result(self, digest: str) -> StoredDataset:
        """Return the measurements of a job; its scalars are in memory.

        Raises
        ------
        InputError
            If the job is not finished, or its file is damaged.
        """
        return open_result(self.measurements_path(digest))

    def networks(self, digest: str, epoch: int | None = None) -> tuple[nn.Module, nn.Module]:
        """Return the network of a job before and after training.

        Parameters
        ----------
        epoch
            Return the network after this number of epochs, of which the job kept a copy, instead of the trained one.

        Raises
        ------
        InputError
            If the job is not finished, was run without keeping its weights, kept no copy, or a file is damaged.
        """
        result = self.result(digest)
        if result.metadata.get("network") != "kept":
            raise InputError(f"job {digest} of {self.path} must have its network, but ran with keep_weights=False")
        before, after = load_networks(self.network_path(digest), epoch)
        if isinstance(before, nn.Module) and isinstance(after, nn.Module):
            return before, after
        job = Job.from_json(result.metadata["job"])
        if not isinstance(before, dict) or not isinstance(after, dict) or not is_reference(job.network["kind"]):
            raise InputError(f"job {digest} of {self.path} must have a network of its kind, before and after training")
        network = job.initial_network()
        return with_weights(network, before), with_weights(network, after)

    def save(
        self, done: Done, keep_weights: bool = True, complete: Callable[[Path], None] = lambda folder: None
    ) -> Path:
        """Write the result of a job and return its folder.

        Parameters
        ----------
        complete
            Called with the folder before it gets its name, to write further files.

        Raises
        ------
        OSError, InputError
            If the file system refuses, for example because the disk is full.
        """
        digest = done.job.digest
        target = self.path / "jobs" / digest
        if target.exists() and not self.is_done(digest):
            self.set_aside(target, "damaged, and computed again")
        temporary = target.with_name(f".{digest}.{secrets.token_hex(4)}.part")
        try:
            done.save(temporary, keep_weights)
            complete(temporary)
            try:
                temporary.rename(target)
            except OSError:
                if not self.is_done(digest):
                    raise
            force_to_disk(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def add_measurements(self, job: Job, names: Sequence[str]) -> None:
        """Measure the finished network of a job further and add the results to its file, atomically.

        Raises
        ------
        InputError
            If the network was not kept, or a measurement does not apply.
        """
        result = self.result(job.digest)
        before, after = self.networks(job.digest)
        stored = result.load()
        epochs = kept_epochs(self.network_path(job.digest))
        kept = {epoch: self.networks(job.digest, epoch)[1] for epoch in epochs}
        measured = job.measure(before, after, stored, tuple(names), kept)
        measuring.check_dimensions({str(result.path): stored, ", ".join(names): measured})
        merged = stored.merge(measured, compat="override", join="exact", combine_attrs="override")
        every = (*measurements_of(result), *names)
        write_result(self.measurements_path(job.digest), merged, job, every, result.metadata.get("network") == "kept")

    def set_aside_damaged(self, digests: Iterable[str]) -> tuple[list[str], list[SetAside]]:
        """Return which of `digests` are done, and move damaged results aside. All files are read completely."""
        done, aside = [], []
        for digest in digests:
            folder = self.path / "jobs" / digest
            if not folder.exists():
                continue
            if self.damage(digest, thorough=True) is None:
                done.append(digest)
                continue
            lock = locks.acquire(self.lock_path(digest))
            if lock is None:
                continue  # Another process is about to replace it.
            with lock:
                reason = self.damage(digest, thorough=True)
                if reason is not None and folder.exists():
                    aside.append(self.set_aside(folder, reason))
        return done, aside

    def set_aside(self, path: Path, reason: str) -> SetAside:
        """Move a file or folder of this run to set-aside/ and write the reason beside it."""
        target = self.path / "set-aside" / f"{path.stem}.{secrets.token_hex(4)}{path.suffix}"
        path.replace(target)
        name = path.relative_to(self.path).as_posix()
        with replacing(target.with_suffix(".txt")) as temporary:
            temporary.write_text(f"{name}: {reason}\n", encoding="utf-8")
        return SetAside(name, reason, target)

    def retire(self, digest: str) -> None:
        """Move the result of a job that was trained longer since to earlier/."""
        target = make_folder(self.path / EARLIER) / digest
        if target.exists():
            target = target.with_name(f"{digest}.{secrets.token_hex(4)}")
        (self.path / "jobs" / digest).rename(target)

    def fail(self, digest: str, error: str, message: str, traceback: str = "") -> None:
        """Record why a job failed.

        Raises
        ------
        OSError, InputError
            If the file system refuses.
        """
        write_failure(self._failure_path(digest), error, message, traceback)

    def failure(self, digest: str) -> Failure | None:
        """Return why a job failed, or None."""
        return read_failure(self._failure_path(digest))

    def failures(self) -> dict[str, Failure]:
        """Return why jobs failed, by digest. Jobs that have finished since are not included."""
        found = {digest: self.failure(digest) for digest in self._failed()}
        return {digest: failure for digest, failure in found.items() if failure and not self.is_done(digest)}

    def forget_failure(self, digest: str) -> None:
        """Remove the record of a failure, if there is one."""
        self._failure_path(digest).unlink(missing_ok=True)

    def counts(self) -> Counts:
        """Return the progress of the listed jobs.

        Raises
        ------
        InputError
            If this is not the folder of a run.
        """
        listed = set(self.manifest().jobs)
        done = {digest for digest in listed if self.is_done(digest)}
        failed = set(self._failed()) & listed - done
        locked = {path.name for path in (self.path / "locks").glob("*")} & listed - done - failed
        running = {digest for digest in locked if locks.is_held(self.lock_path(digest))}
        waiting = listed - done - failed - running
        return Counts(len(listed), len(done), len(failed), len(running), len(waiting))

    def _failed(self) -> list[str]:
        return sorted(path.stem for path in (self.path / "failed").glob("[!.]*.json"))

    def _failure_path(self, digest: str) -> Path:
        return self.path / "failed" / f"{digest}.json"
