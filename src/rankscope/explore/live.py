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

import numpy as np

from rankscope.errors import InputError
from rankscope.explore.curves import listed, rounded
from rankscope.io.dataset_file import StoredDataset
from rankscope.sweep import RunFolder, locks
from rankscope.sweep.axes import axes_of, own_labels
from rankscope.sweep.manifest import DIGEST
from rankscope.sweep.result_file import open_result

Values = dict[str, Any]

BATCH = 40  # new results per snapshot, so that a page of hundreds of networks fills gradually
CURVE_POINTS, DETAIL_POINTS = 100, 400
MAX_SINGULAR_VALUES = 40
MAX_TEXT = 2000
PROVENANCE = ("finished", "rankscope_version", "platform")


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
    # Modification time and size of the files that were read, and of those that were damaged.
    _read: dict[str, tuple[int, int]] = field(default_factory=dict, init=False)
    _damaged: dict[str, tuple[int, int]] = field(default_factory=dict, init=False)
    # Labels that distinguish the listed jobs beside their own.
    _axes: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._run = RunFolder(self.folder)
        if not self._run.path.is_dir():
            raise InputError(f"run must be the folder of a run, got {str(self.folder)!r}, which does not exist")
        self._root = self._run.path.resolve()
        self._run.manifest()

    def title(self) -> str:
        """Return the experiment and its preset, or the name of the folder."""
        description = self._run.manifest().description
        named = [str(description[key]) for key in ("experiment", "preset") if key in description]
        return ", ".join(named)[:MAX_TEXT] or self._run.path.name

    def snapshot(self) -> Snapshot:
        """Return the current state of the run.

        Raises
        ------
        InputError
            If the folder was removed or cannot be read.
        """
        with self._lock:
            jobs = self._run.manifest().jobs
            self._find_axes(jobs)
            unread = self._read_new()
            done = (set(self._read) | unread) & set(jobs)
            failures = {digest: self._failure(digest) for digest in self._names("failed", ".json")}
            failed = {
                digest: {"labels": self._labels(digest, own_labels(jobs[digest]))} | failure
                for digest, failure in failures.items()
                if digest in jobs and digest not in done
            }
            locked = set(self._names("locks")) & set(jobs) - done - set(failed)
            running = {
                digest: {"labels": self._labels(digest, own_labels(jobs[digest]))}
                for digest in sorted(locked)
                if locks.is_held(self._run.lock_path(digest))
            }
            counts = {"total": len(jobs), "done": len(done), "failed": len(failed), "running": len(running)}
            counts["waiting"] = counts["total"] - counts["done"] - counts["failed"] - counts["running"]
            return Snapshot(counts, running, failed, dict(self._networks), complete=not unread)

    def detail(self, digest: str) -> Values | None:
        """Return details of one finished network; None if there is no such result in the folder.

        Returns
        -------
        dict
            `labels`, `measured`, `status`, `epoch`, `loss`, `provenance`; if measured, `singular_value` of the change,
            `rank` and `truncation_loss`.

        Raises
        ------
        InputError
            If the result is damaged.
        """
        if not DIGEST.fullmatch(digest) or not self._is_inside(self._run.measurements_path(digest)):
            return None
        result = open_result(self._run.measurements_path(digest), verify=True)
        found = read_network(result, DETAIL_POINTS)
        for name in ("rank", "truncation_loss"):
            if _is_numeric(result, name, 1):
                found[name] = listed(result.array(name))
        found["singular_value"] = _singular_values_of_change(result)
        found["provenance"] = {name: _plain(result.attrs[name]) for name in PROVENANCE if name in result.attrs}
        return found

    def _read_new(self) -> set[str]:
        """Read a batch of new results; return the digests of the others."""
        existing: dict[str, tuple[int, int]] = {}
        for digest in self._names("jobs"):
            path = self._run.measurements_path(digest)
            if self._is_inside(path):
                try:
                    stat = path.stat()
                except OSError:
                    continue
                existing[digest] = (stat.st_mtime_ns, stat.st_size)
        for digest in set(self._read) - set(existing):
            del self._read[digest]
            self._networks.pop(digest, None)
        known = self._damaged | self._read
        unread = [digest for digest, stamp in existing.items() if known.get(digest) != stamp]
        for digest in unread[:BATCH]:
            self._read.pop(digest, None)
            self._networks.pop(digest, None)
            try:
                result = open_result(self._run.measurements_path(digest), verify=True)
                if result.metadata["digest"] != digest:
                    raise InputError(f"{digest} is the result of another job")
                found = read_network(result, CURVE_POINTS)
                self._networks[digest] = found | {"labels": self._labels(digest, found["labels"])}
                self._read[digest] = existing[digest]
            except InputError:
                # The runner sets it aside and runs the job again.
                self._damaged[digest] = existing[digest]
        return set(unread[BATCH:])

    def _find_axes(self, jobs: Mapping[str, Mapping[str, Any]]) -> None:
        """Find the labels of the listed jobs again if the list has changed."""
        if set(jobs) == set(self._axes):
            return
        self._axes = axes_of(jobs)
        for digest, one in self._networks.items():
            self._networks[digest] = one | {"labels": self._labels(digest, one["labels"])}

    def _labels(self, digest: str, own: Mapping[str, Any]) -> Values:
        return {name: _plain(value) for name, value in {**own, **self._axes.get(digest, {})}.items()}

    def _names(self, folder: str, suffix: str = "") -> list[str]:
        try:
            entries = [path.name for path in (self._run.path / folder).iterdir()]
        except OSError:
            return []
        stems = [name.removesuffix(suffix) for name in entries if name.endswith(suffix)]
        return sorted(stem for stem in stems if DIGEST.fullmatch(stem))

    def _is_inside(self, path: Path) -> bool:
        """Return whether this is a file inside the folder, with links resolved."""
        try:
            return path.is_file() and path.resolve().is_relative_to(self._root)
        except (OSError, RuntimeError):
            return False

    def _failure(self, digest: str) -> Values:
        inside = self._is_inside(self._run.path / "failed" / f"{digest}.json")
        failure = self._run.failure(digest) if inside else None
        if failure is None:
            return {"error": "unknown", "message": ""}
        return {"error": _plain(failure.error), "message": _plain(failure.message)}


def read_network(result: StoredDataset, points: int) -> Values:
    """Return labels, scalars and the loss at some epochs of a finished job."""
    scalars = {name: _plain(result.values[name]) for name, one in result.variables.items() if not one.dims}
    loss = result.array("loss") if _is_numeric(result, "loss", 1) else np.empty(0)
    epochs = np.unique(np.linspace(0, max(len(loss) - 1, 0), points).round().astype(int))[: len(loss)]
    return {
        "labels": {name: scalars[name] for name in sorted(result.coordinates - {"seed"}) if name in scalars},
        "measured": {name: v for name, v in scalars.items() if name not in result.coordinates and name != "status"},
        "status": str(scalars.get("status", "finished")),
        "epoch": epochs.tolist(),
        "loss": listed(loss[epochs]),
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


def _is_numeric(result: StoredDataset, name: str, ndim: int) -> bool:
    """Return whether a result has a numeric variable with this number of dimensions."""
    variable = result.variables.get(name)
    return variable is not None and len(variable.dims) == ndim and variable.dtype.kind in "fiub"


def _singular_values_of_change(result: StoredDataset) -> list[float | None]:
    """Return the leading singular values of the change, or an empty list."""
    if _is_numeric(result, "singular_value", 2) and "matrix" in result.variables:
        names = result.array("matrix").tolist()
        if "change" in names:
            return listed(result.array("singular_value")[names.index("change")][:MAX_SINGULAR_VALUES])
    if _is_numeric(result, "singular_value_history", 2) and result.variables["singular_value_history"].shape[0]:
        return listed(result.array("singular_value_history")[-1][:MAX_SINGULAR_VALUES])
    return []


def _plain(value: Any) -> Any:
    """Return a scalar for JSON."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        # Browsers round larger integers.
        return value if abs(value) < 2**53 else str(value)
    return rounded(value) if isinstance(value, float) else str(value)[:MAX_TEXT]
