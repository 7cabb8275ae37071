"""A run folder as plain values, looked at again and again while another process fills it.

A finished cell is read once, for no file is ever changed in place. Whatever leads out of the folder is not followed.
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

# New cells read in one look: a folder of hundreds fills the page a part at a time.
BATCH = 40
CURVE_POINTS, DETAIL_POINTS = 100, 400
MOST_SINGULAR_VALUES = 40
MOST_TEXT = 2000
#: Of a cell's description, what says which network it is.
NAMING = ("task", "gain", "hidden_size", "sample")


@dataclass(frozen=True)
class Look:
    """A run at one moment.

    Attributes
    ----------
    counts
        `total`, `done`, `failed`, `running`, `waiting`: cells that run.json lists.
    running, failed
        By digest: `labels` of what is being worked on, and of what failed also `error` and `message`.
    cells
        By digest, what is drawn of every finished cell: `labels`, `measured` (scalars), `status`, `epoch` and `loss`.
    complete
        Whether all finished cells have been read; otherwise another look reads more.
    """

    counts: Mapping[str, int]
    running: Mapping[str, Values]
    failed: Mapping[str, Values]
    cells: Mapping[str, Values]
    complete: bool


@dataclass
class LiveRun:
    """A run folder to look at, from any thread.

    Raises
    ------
    InputError
        If there is no such folder, or it is not that of a sweep.
    """

    folder: str | os.PathLike[str]
    _cells: dict[str, Values] = field(default_factory=dict, init=False)
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
        """Return what the run is: the experiment and its preset, or the folder's name."""
        description = self._run.manifest().description
        named = [str(description[key]) for key in ("experiment", "preset") if key in description]
        return ", ".join(named)[:MOST_TEXT] or self.name

    def look(self) -> Look:
        """Return the run as it is now.

        Raises
        ------
        InputError
            If the folder has gone, or cannot be read.
        """
        with self._lock:
            listed_cells = self._run.manifest().cells
            unread = self._read_new()
            done = (set(self._files) | unread) & set(listed_cells)
            failed = {
                digest: {"labels": labels_of(listed_cells[digest])} | self._failure(digest)
                for digest in self._names("failed", ".json")
                if digest in listed_cells and digest not in done
            }
            held = {
                digest
                for digest in self._names("claims", "")
                if digest in listed_cells
                and digest not in done
                and digest not in failed
                and locks.is_held(self._run.claim_path(digest))
            }
            counts = {"total": len(listed_cells), "done": len(done), "failed": len(failed), "running": len(held)}
            counts["waiting"] = counts["total"] - counts["done"] - counts["failed"] - counts["running"]
            running = {digest: {"labels": labels_of(listed_cells[digest])} for digest in sorted(held)}
            return Look(counts, running, failed, dict(self._cells), complete=not unread)

    def detail(self, digest: str) -> Values | None:
        """Return more of one finished cell; None if there is none of that name in this folder.

        Returns
        -------
        dict
            `labels`, `measured`, `status`, `epoch`, `loss`; where they were measured `singular_value` of the change and
            `rank`, `truncation_loss`; and `provenance`.
        """
        path = self._run.path_of(digest)
        if not DIGEST.fullmatch(digest) or not self._is_ours(path):
            return None
        try:
            return self._detail(path, digest)
        except OSError:
            raise
        except Exception as error:
            # As in `_read_new`.
            raise OSError(f"{path.name} is damaged") from error

    def _detail(self, path: Path, digest: str) -> Values:
        with opened(path) as file:
            found = read_cell(file, DETAIL_POINTS) | {"digest": digest}
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
        """Read some of the cells that are new; return those that are left for the next time."""
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
            self._cells.pop(digest, None)
        known = self._damaged | self._files
        unread = [digest for digest, stamp in there.items() if known.get(digest) != stamp]
        for digest in unread[:BATCH]:
            self._files.pop(digest, None)
            try:
                with opened(self._run.path_of(digest)) as file:
                    if _text(file.attrs.get("digest", "")) == digest:
                        self._cells[digest] = read_cell(file, CURVE_POINTS)
                        self._files[digest] = there[digest]
            except Exception:
                pass
            if digest not in self._files:
                # The sweep sets it aside and computes it again.
                self._damaged[digest] = there[digest]
                self._cells.pop(digest, None)
        return set(unread[BATCH:])

    def _names(self, room: str, suffix: str) -> list[str]:
        try:
            entries = [path.name for path in (self._run.path / room).iterdir()]
        except OSError:
            return []
        stems = [name.removesuffix(suffix) for name in entries if name.endswith(suffix)]
        return sorted(stem for stem in stems if DIGEST.fullmatch(stem))

    def _is_ours(self, path: Path) -> bool:
        """Return whether this is a file, and one in the folder: links may lead elsewhere."""
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
    """Return what a cell's description says of which network it is."""
    labels = {name: description[name] for name in NAMING if name in description}
    more = description.get("labels")
    return {name: _plain(value) for name, value in (labels | (more if isinstance(more, dict) else {})).items()}


def read_cell(file: h5py.File, points: int) -> Values:
    """Return what is drawn of a finished cell: its labels, its scalars, its loss at some of the epochs."""
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


def message(look: Look, known: Mapping[str, Values]) -> Values:
    """Return what is new to somebody who knows these cells."""
    return {
        "counts": dict(look.counts),
        "running": dict(look.running),
        "failed": dict(look.failed),
        "complete": look.complete,
        "cells": {digest: cell for digest, cell in look.cells.items() if known.get(digest) is not cell},
        "gone": [digest for digest in known if digest not in look.cells],
    }


def encoded(values: Any) -> bytes:
    """Return values as JSON."""
    return json.dumps(values, allow_nan=False, separators=(",", ":")).encode()


def _of_change(file: h5py.File) -> list[float | None]:
    """Return the leading singular values of the change, if the cell has them in a form that we know."""
    if "singular_value" in file and "matrix" in file and file["singular_value"].ndim == 2:
        names = [_text(name) for name in file["matrix"][:]]
        if "change" in names:
            return listed(file["singular_value"][names.index("change")][:MOST_SINGULAR_VALUES])
    if "singular_value_history" in file and len(file["singular_value_history"]):
        return listed(file["singular_value_history"][-1][:MOST_SINGULAR_VALUES])
    return []


def _plain(value: Any) -> Any:
    """Return a scalar for JSON."""
    if isinstance(value, (bytes, str)):
        return _text(value)
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        # Beyond this a browser's numbers are not exact.
        return int(value) if abs(int(value)) < 2**53 else str(int(value))
    if isinstance(value, (float, np.floating)):
        return rounded(float(value))
    return None if value is None else str(value)[:MOST_TEXT]


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text[:MOST_TEXT]
