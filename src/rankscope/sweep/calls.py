"""Record of the calls of `run` that worked on a folder, `RUN/calls/*.jsonl`: when, where, and with how many workers.

One file a call, with a line of JSON for every half a minute, so that a killed call is recorded too; the last line that
can be read counts, and no result depends on it. The wall time of a run is the length of the union of all its calls, so
it accumulates over interruptions.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rankscope.errors import InputError
from rankscope.io.atomic import make_folder
from rankscope.sweep.processes import OnProgress, available_cores

FOLDER = "calls"
SECONDS_BETWEEN_RECORDS = 30.0
CPUINFO = Path("/proc/cpuinfo")
TYPES: dict[str, Callable[[Any], Any]] = {"float": float, "int": int, "str": str}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """One call of `run` that had work to do.

    Attributes
    ----------
    began, ended
        Seconds since 1970.
    workers
        Number of processes; with an executor, of jobs submitted at once.
    kind
        "processes", "executor", or the device on which networks were trained together.
    processor, cores
        Name of the processor, and number of cores that this process may use.
    """

    began: float
    ended: float
    workers: int
    kind: str
    host: str
    processor: str
    cores: int


class Recorder:
    """Writes the record of one call while it runs.

    Parameters
    ----------
    folder
        Folder of the run.
    workers, kind
        As in `Call`.
    """

    def __init__(self, folder: Path, workers: int, kind: str) -> None:
        self._path = folder / FOLDER / f"{secrets.token_hex(6)}.jsonl"
        self._about = (workers, kind, socket.gethostname(), processor_name(), available_cores())
        self._began = time.time()
        self._written = 0.0

    def while_reporting(self, on_progress: OnProgress | None) -> OnProgress:
        """Return `on_progress` that also writes the record now and then."""

        def report(index: int, done: int, total: int, loss: float) -> None:
            if time.monotonic() - self._written > SECONDS_BETWEEN_RECORDS:
                self.write()
            if on_progress is not None:
                on_progress(index, done, total, loss)

        return report

    def write(self) -> None:
        """Write the record up to now; a full disk only costs the record."""
        self._written = time.monotonic()
        call = Call(self._began, time.time(), *self._about)
        try:
            make_folder(self._path.parent)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(call)) + "\n")
        except (OSError, InputError) as error:
            logger.debug("no record of this call in %s: %s", self._path, error)


def read_calls(folder: str | os.PathLike[str]) -> list[Call]:
    """Return the calls recorded in a run folder, the first first; files that are not records are left out."""
    last = (_last(path) for path in (Path(folder) / FOLDER).glob("[!.]*.jsonl"))
    return sorted((call for call in last if call is not None), key=lambda call: call.began)


def _last(path: Path) -> Call | None:
    """Return the last record that can be read; a killed process may have cut the last line short."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        logger.debug("%s cannot be read: %r", path, error)
        return None
    for line in reversed(lines):
        try:
            values = json.loads(line)
            return Call(**{field.name: TYPES[str(field.type)](values[field.name]) for field in fields(Call)})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            logger.debug("%s has a line that is no record: %r", path, error)
    return None


def wall_seconds(calls: list[Call]) -> float:
    """Return the time during which at least one of the calls ran."""
    total, until = 0.0, 0.0
    for call in sorted(calls, key=lambda call: call.began):
        total += max(0.0, call.ended - max(call.began, until))
        until = max(until, call.ended)
    return total


def processor_name() -> str:
    """Return the name of the processor."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
