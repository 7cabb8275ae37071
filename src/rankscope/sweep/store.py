"""The folder a sweep writes to: one netCDF file a cell, and nothing that needs a lock.

    FOLDER/run.json                        what the sweep is, and the list of its cells
    FOLDER/cells/DIGEST.nc                 the result of a cell; it is there whole or not at all
    FOLDER/failed/DIGEST.json              why a cell failed
    FOLDER/claims/DIGEST                   who is at work on a cell
    FOLDER/checkpoints/DIGEST.safetensors  where an interrupted cell goes on
    FOLDER/set-aside/                      damaged files, each with the reason beside it

The digest of a cell stands for everything that determines its content, so a file of that name is its result, whoever
computed it. It is repeated inside the file, which tells a foreign file.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from typing import Any

import xarray as xr

from rankscope.errors import InputError
from rankscope.io.atomic import make_folder, replacing
from rankscope.sweep import locks
from rankscope.sweep.manifest import DIGEST, Manifest, merge_manifest, read_manifest
from rankscope.sweep.netcdf import damage, encode_result, read_netcdf

ROOMS = ("cells", "failed", "claims", "checkpoints", "set-aside")
SECONDS_A_DAY = 86400.0


@dataclass(frozen=True)
class SetAside:
    """A damaged file: its name in the run folder, what was wrong, and where it is now."""

    name: str
    reason: str
    moved_to: Path

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Failure:
    """Why a cell failed: the type of the error, its message and its traceback, and where and when that was."""

    error: str
    message: str
    traceback: str
    host: str
    time: str


@dataclass(frozen=True)
class Counts:
    """How many cells run.json lists, and how many of them are finished, failed, being worked on, or none of it."""

    total: int
    done: int
    failed: int
    running: int
    waiting: int


@dataclass(frozen=True)
class RunFolder:
    """A run folder. Making this object touches nothing; `prepare` makes the folder.

    Attributes
    ----------
    path
        Where it is.
    """

    path: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Workers may have another current folder.
        object.__setattr__(self, "path", Path(path).absolute())

    def path_of(self, digest: str) -> Path:
        """Return where the result of a cell is, or will be."""
        return self.path / "cells" / f"{digest}.nc"

    def checkpoint_path(self, digest: str) -> Path:
        """Return where a cell may keep a checkpoint."""
        return self.path / "checkpoints" / f"{digest}.safetensors"

    def claim_path(self, digest: str) -> Path:
        """Return the file that says who is at work on a cell."""
        return self.path / "claims" / digest

    def prepare(
        self, cells: Sequence[tuple[str, Mapping[str, Any]]] = (), description: Mapping[str, Any] | None = None
    ) -> Manifest:
        """Make the folder, check that it can be written to, and add (digest, description) `cells` to run.json.

        Raises
        ------
        InputError
            If the folder cannot be made or written to, holds a foreign run.json, or a digest cannot name a file.
        """
        for digest, _ in cells:
            if not DIGEST.fullmatch(digest):
                raise InputError(f"digest must be up to 100 letters, digits, - and _, got {digest!r}")
        for room in (".", *ROOMS):
            make_folder(self.path / room)
        try:
            return merge_manifest(self.path / "run.json", self.claim_path("run.json"), cells, description)
        except OSError as error:
            raise InputError(f"cannot write in {self.path}: {error.strerror}") from error

    def manifest(self) -> Manifest:
        """Return what run.json says.

        Raises
        ------
        InputError
            If there is none, or it is not ours.
        """
        manifest = read_manifest(self.path / "run.json")
        if manifest is None:
            raise InputError(f"folder must be the folder of a sweep, got {self.path}, which has no run.json")
        return manifest

    def is_done(self, digest: str) -> bool:
        """Return whether the cell has a result that looks whole. Cheap: only its seal is read."""
        path = self.path_of(digest)
        return path.exists() and damage(path, digest) is None

    def done(self) -> list[str]:
        """Return the digests of all results there are, whether run.json lists them or not."""
        return sorted(path.stem for path in (self.path / "cells").glob("*.nc") if not path.name.startswith("."))

    def sift(self, digests: Iterable[str]) -> tuple[list[str], list[SetAside]]:
        """Return which of `digests` are done, and move those results aside that are damaged. All of each is read."""
        done, aside = [], []
        for digest in digests:
            path = self.path_of(digest)
            if not path.exists():
                continue
            if damage(path, digest, thorough=True) is None:
                done.append(digest)
            else:
                claim = locks.acquire(self.claim_path(digest))
                if claim is None:
                    continue  # Somebody is about to replace it.
                with claim:
                    reason = damage(path, digest, thorough=True)
                    if reason is not None:
                        aside.append(self.set_aside(path, reason))
        return done, aside

    def set_aside(self, path: Path, reason: str) -> SetAside:
        """Move a file of this folder to set-aside/ and write the reason beside it."""
        target = self.path / "set-aside" / f"{path.stem}.{secrets.token_hex(4)}{path.suffix}"
        path.replace(target)
        name = str(path.relative_to(self.path))
        with replacing(target.with_suffix(".txt")) as temporary:
            temporary.write_text(f"{name}: {reason}\n")
        return SetAside(name, reason, target)

    def save(self, digest: str, result: xr.Dataset | bytes) -> Path:
        """Write the result of a cell.

        Raises
        ------
        OSError, InputError
            If the file system does not let us, for example because it is full.
        """
        content = encode_result(result, digest) if isinstance(result, xr.Dataset) else result
        with replacing(self.path_of(digest)) as temporary:
            temporary.write_bytes(content)
        return self.path_of(digest)

    def read(self, digest: str) -> xr.Dataset:
        """Return the result of a cell, loaded.

        Raises
        ------
        InputError
            If there is none, or it is damaged.
        """
        path = self.path_of(digest)
        if not path.exists():
            raise InputError(f"digest must be that of a finished cell, got {digest!r}, which is not in {path.parent}")
        reason = damage(path, digest)
        try:
            if reason is None:
                return read_netcdf(path)
        except ValueError as error:
            reason = str(error)
        raise InputError(f"{path} is damaged ({reason}); remove it and run the sweep again")

    def fail(self, digest: str, error: str, message: str, traceback: str = "") -> None:
        """Record that a cell failed: the type of the error, its message and its traceback.

        Raises
        ------
        OSError, InputError
            If the file system does not let us.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        failure = Failure(error, message, traceback, gethostname(), now)
        with replacing(self._failure_path(digest)) as temporary:
            temporary.write_text(json.dumps(asdict(failure), indent=1))

    def failure(self, digest: str) -> Failure | None:
        """Return why a cell failed, or None."""
        try:
            failure = Failure(**json.loads(self._failure_path(digest).read_text()))
            if not all(isinstance(value, str) for value in vars(failure).values()):
                raise TypeError
            return failure
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, RecursionError):
            return Failure("unknown", "the record of this failure is damaged", "", "", "")

    def failures(self) -> dict[str, Failure]:
        """Return why cells failed, by digest. A cell that was finished since is not among them."""
        found = {digest: self.failure(digest) for digest in self._failed()}
        return {digest: failure for digest, failure in found.items() if failure and not self.is_done(digest)}

    def forget_failure(self, digest: str) -> None:
        """Remove the record of a failure, if there is one."""
        self._failure_path(digest).unlink(missing_ok=True)

    def counts(self) -> Counts:
        """Return how far the listed cells are.

        Raises
        ------
        InputError
            If this is not the folder of a sweep.
        """
        listed = set(self.manifest().cells)
        done = {digest for digest in listed if self.is_done(digest)}
        failed = set(self._failed()) & listed - done
        claimed = {path.name for path in (self.path / "claims").glob("*")} & listed - done - failed
        running = {digest for digest in claimed if locks.is_held(self.claim_path(digest))}
        waiting = listed - done - failed - running
        return Counts(len(listed), len(done), len(failed), len(running), len(waiting))

    def tidy(self) -> None:
        """Remove dead claims, the half-written files that killed processes left, and the checkpoints of finished cells.

        Files of a cell are written only by whoever holds its claim. Such a file is looked for first and its claim
        after that: without a claim then, its writer has finished or died. Other files are given a day.
        """
        locks.remove_dead(self.path / "claims")
        for path in (self.path / "checkpoints").glob("[!.]*.safetensors"):
            # Its writer was killed between the two, or had stood still for so long that somebody else finished.
            if self.is_done(path.stem) and not locks.is_held(self.claim_path(path.stem)):
                path.unlink(missing_ok=True)
        for path in [path for room in (".", *ROOMS) for path in (self.path / room).glob(".*")]:
            digest = path.name[1:].split(".")[0]
            mine = path.parent.name in ("cells", "checkpoints") and path.suffix == ".part"
            with suppress(OSError):
                old = time.time() - path.stat().st_mtime > SECONDS_A_DAY
                if (mine and not locks.is_held(self.claim_path(digest))) or (old and path.is_file()):
                    path.unlink()

    def _failed(self) -> list[str]:
        return sorted(path.stem for path in (self.path / "failed").glob("[!.]*.json"))

    def _failure_path(self, digest: str) -> Path:
        return self.path / "failed" / f"{digest}.json"
