"""Progress and results of a run folder as plain values, while other processes write to it.

Result files are never changed in place, so each is read once. Links that lead out of the folder are not followed.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rankscope.errors import InputError
from rankscope.explore.curves import listed, rounded
from rankscope.sweep import RunFolder, locks
from rankscope.sweep.manifest import DIGEST
from rankscope.sweep.netcdf import opened

Values = dict[str, Any]

BATCH = 40  # new results per snapshot, so that a page of hundreds of networks fills gradually
CURVE_POINTS, DETAIL_POINTS = 100, 400
MAX_SINGULAR_VALUES = 40
MAX_TEXT = 2000
#: Entries of a job's description that name its network.
NAMING = ("task", "gain", "hidden_size", "sample")


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment.

    Attributes
    ----------
    counts
        `total`, `done`, `failed`, `running`, `waiting`: jobs that run.json lists.
    running, failed
        By digest: `labels`, and of failed jobs also `error` and `message`.
    networks
        By digest, of every finished job: `labels`, `measured` (scalars), `status`, `epoch` and `loss`.
    complete
        Whether all finished jobs have been read; otherwise the next snapshot reads more.
    """

    counts: Mapping[str, int]
    running: Mapping[str, Values]
    failed: Mapping[str, Values]
    networks: Mapping[str, Values]
    complete: bool


@dataclass
class LiveRun:
    """A run folder that is read repeatedly; thread-safe.

    Raises
    ------
    InputError
        If there is no such folder, or it is not a run folder.
    """

    folder: str | os.PathLike[str]
    _networks: dict[str, Values] = field(default_factory=dict, init=False)
    _files: dict[str, tuple[int, int]] = field(default_factory=dict, init=False)
    _damaged: dict[str, tuple[int, int]] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._run = RunFolder(self.folder)
        if not self._run.path.is_dir():
            raise InputError(f"run must be the folder of a run, got {str(self.folder)!r}, which is not there")
        self._root = self._run.path.resolve()
        self._run.manifest()

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self._run.path.name

    def title(self) -> str:
        """Return the experiment and its preset, or the name of the folder."""
        description = self._run.manifest().description
        named = [str(description[key]) for key in ("experiment", "preset") if key in description]
        return ", ".join(named)[:MAX_TEXT] or self.name

    def snapshot(self) -> Snapshot:
        """Return the current state of the run.

        Raises
        ------
        InputError
            If the folder was removed or cannot be read.
        """
        with self._lock:
            listed_jobs = self._run.manifest().cells
            unread = self._read_new()
            done = (set(self._files) | unread) & set(listed_jobs)
            failed = {
                digest: {"labels": labels_of(listed_jobs[digest])} | self._failure(digest)
                for digest in self._names("failed", ".json")
                if digest in listed_jobs and digest not in done
            }
            held = {
                digest
                for digest in self._names("claims", "")
                if digest in listed_jobs
                and digest not in done
                and digest not in failed
                and locks.is_held(self._run.claim_path(digest))
            }
            counts = {"total": len(listed_jobs), "done": len(done), "failed": len(failed), "running": len(held)}
            counts["waiting"] = counts["total"] - counts["done"] - counts["failed"] - counts["running"]
            running = {digest: {"labels": labels_of(listed_jobs[digest])} for digest in sorted(held)}
            return Snapshot(counts, running, failed, dict(self._networks), complete=not unread)

    def detail(self, digest: str) -> Values | None:
        """Return details of one finished network; None if there is no such result in the folder.

        Returns
        -------
        dict
            `labels`, `measured`, `status`, `epoch`, `loss`, `provenance`; if measured, `singular_value` of the change,
            `rank` and `truncation_loss`.
        """
        path = self._run.path_of(digest)
        if not DIGEST.fullmatch(digest) or not self._is_ours(path):
            return None
        try:
            return self._detail(path, digest)
        except OSError:
            raise
        except Exception as error:
            # A damaged file can raise many kinds of errors.
            raise OSError(f"{path.name} is damaged") from error

    def _detail(self, path: Path, digest: str) -> Values:
        with opened(path) as file:
            found = read_network(file, DETAIL_POINTS) | {"digest": digest}
            for name in ("rank", "truncation_loss"):
                if name in file and file[name].ndim == 1:
                    found[name] = listed(file[name][:])
            found["singular_value"] = _of_change(file)
            found["provenance"] = {
                name: _text(file.attrs[name])
                for name in ("finished", "rankscope_version", "platform")
                if name in file.attrs
            }
            return found

    def _read_new(self) -> set[str]:
        """Read a batch of new results; return the digests of the others."""
        there: dict[str, tuple[int, int]] = {}
        for digest in self._names("cells", ".nc"):
            path = self._run.path_of(digest)
            try:
                if self._is_ours(path):
                    stat = path.stat()
                    there[digest] = (stat.st_mtime_ns, stat.st_size)
            except OSError:
                continue
        for digest in set(self._files) - set(there):
            del self._files[digest]
            self._networks.pop(digest, None)
        known = self._damaged | self._files
        unread = [digest for digest, stamp in there.items() if known.get(digest) != stamp]
        for digest in unread[:BATCH]:
            self._files.pop(digest, None)
            try:
                with opened(self._run.path_of(digest)) as file:
                    if _text(file.attrs.get("digest", "")) == digest:
                        self._networks[digest] = read_network(file, CURVE_POINTS)
                        self._files[digest] = there[digest]
            except Exception:
                pass
            if digest not in self._files:
                # The runner sets it aside and runs the job again.
                self._damaged[digest] = there[digest]
                self._networks.pop(digest, None)
        return set(unread[BATCH:])

    def _names(self, folder: str, suffix: str) -> list[str]:
        try:
            entries = [path.name for path in (self._run.path / folder).iterdir()]
        except OSError:
            return []
        stems = [name.removesuffix(suffix) for name in entries if name.endswith(suffix)]
        return sorted(stem for stem in stems if DIGEST.fullmatch(stem))

    def _is_ours(self, path: Path) -> bool:
        """Return whether this is a file inside the folder, with links resolved."""
        try:
            return path.is_file() and path.resolve().is_relative_to(self._root)
        except (OSError, RuntimeError):
            return False

    def _failure(self, digest: str) -> Values:
        path = self._run.path / "failed" / f"{digest}.json"
        failure = self._run.failure(digest) if self._is_ours(path) else None
        if failure is None:
            return {"error": "unknown", "message": ""}
        return {"error": _text(failure.error), "message": _text(failure.message)}


def labels_of(description: Mapping[str, Any]) -> Values:
    """Return the labels of a network from the description of its job."""
    labels = {name: description[name] for name in NAMING if name in description}
    more = description.get("labels")
    return {name: _plain(value) for name, value in (labels | (more if isinstance(more, dict) else {})).items()}


def read_network(file: h5py.File, points: int) -> Values:
    """Return labels, scalars and the loss at some epochs of a finished job."""
    scalars = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset) and item.shape == ()}
    coordinates = {name for item in scalars.values() for name in _text(item.attrs.get("coordinates", "")).split()}
    values = {name: _plain(item[()]) for name, item in scalars.items()}
    status = values.pop("status", None) or _text(file.attrs.get("status", "")) or "finished"
    loss = file["loss"][:] if "loss" in file and file["loss"].ndim == 1 else np.empty(0)
    chosen = np.unique(np.linspace(0, max(len(loss) - 1, 0), points).round().astype(int))[: len(loss)]
    return {
        "labels": {name: values[name] for name in sorted(coordinates - {"seed"}) if name in values},
        "measured": {name: value for name, value in values.items() if name not in coordinates},
        "status": status,
        "epoch": chosen.tolist(),
        "loss": listed(loss[chosen]),
    }


def update(snapshot: Snapshot, known: Mapping[str, Values]) -> Values:
    """Return a snapshot without the networks that the recipient already knows."""
    return {
        "counts": dict(snapshot.counts),
        "running": dict(snapshot.running),
        "failed": dict(snapshot.failed),
        "complete": snapshot.complete,
        "networks": {digest: one for digest, one in snapshot.networks.items() if known.get(digest) is not one},
        "gone": [digest for digest in known if digest not in snapshot.networks],
    }


def encoded(values: Any) -> bytes:
    """Return values as JSON."""
    return json.dumps(values, allow_nan=False, separators=(",", ":")).encode()


def _of_change(file: h5py.File) -> list[float | None]:
    """Return the leading singular values of the change, or an empty list."""
    if "singular_value" in file and "matrix" in file and file["singular_value"].ndim == 2:
        names = [_text(name) for name in file["matrix"][:]]
        if "change" in names:
            return listed(file["singular_value"][names.index("change")][:MAX_SINGULAR_VALUES])
    if "singular_value_history" in file and len(file["singular_value_history"]):
        return listed(file["singular_value_history"][-1][:MAX_SINGULAR_VALUES])
    return []


def _plain(value: Any) -> Any:
    """Return a scalar for JSON."""
    if isinstance(value, (bytes, str)):
        return _text(value)
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        # Browsers round larger integers.
        return int(value) if abs(int(value)) < 2**53 else str(int(value))
    if isinstance(value, (float, np.floating)):
        return rounded(float(value))
    return None if value is None else str(value)[:MAX_TEXT]


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text[:MAX_TEXT]
