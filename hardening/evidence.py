"""Shared by the fault programs: the table of faults, the comparison with an undisturbed run, and their options.

A network is *lost* if it is missing at the end, or differs by a bit from that of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
import xarray as xr
from rich.console import Console
from rich.table import Table

from rankscope.io.tensor_file import read_file
from rankscope.sweep import RunFolder

OF_THE_MOMENT = ("training_seconds", "finished", "platform")
"""Attributes of a result that depend on when and where it was computed."""

WIDTH = 150


@dataclass(frozen=True)
class Row:
    """A row of the fault table.

    Attributes
    ----------
    fault, times
        What was done, and how often.
    lost
        Number of networks lost.
    recovery_seconds
        Each time from the fault, or the restart after it, until a job was in progress.
    """

    fault: str
    times: int
    lost: int
    recovery_seconds: Sequence[float] = field(default=())


@dataclass(frozen=True)
class Comparison:
    """Differences between a run and an undisturbed one: jobs, files left over, results set aside, failures."""

    missing: list[str]
    different: list[str]
    left_over: list[str]
    set_aside: list[str]
    failed: dict[str, str]

    @property
    def lost(self) -> int:
        """Number of networks that are missing or differ."""
        return len(self.missing) + len(self.different)

    @property
    def clean(self) -> bool:
        """Whether nothing is lost, failed or left over."""
        return not (self.missing or self.different or self.left_over or self.failed)

    def details(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return asdict(self)


def compare(folder: Path, reference: Path) -> Comparison:
    """Compare each network and its measurements, bit for bit, with those of an undisturbed run."""
    ours, theirs = RunFolder(folder), RunFolder(reference)
    digests = theirs.manifest().jobs
    missing = [digest for digest in digests if ours.damage(digest, thorough=True) is not None]
    different = [digest for digest in digests if digest not in missing and not _same(ours, theirs, digest)]
    failed = {digest: f"{failure.error}: {failure.message}" for digest, failure in ours.failures().items()}
    return Comparison(missing, different, left_over(folder), _names(folder / "set-aside"), failed)


def same_dataset(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Return whether two results have the same bits, except for when and where they were computed."""
    if set(one.variables) != set(other.variables) or _lasting(one) != _lasting(other):
        return False
    pairs = [(one.variables[name], other.variables[name]) for name in one.variables]
    return all(
        a.dims == b.dims and a.dtype == b.dtype and a.shape == b.shape and a.values.tobytes() == b.values.tobytes()
        if a.dtype != object
        else a.identical(b)
        for a, b in pairs
    )


def left_over(folder: Path) -> list[str]:
    """Return the files of a finished run that should not be there: locks, state files, partial files."""
    rest = [*_names(folder / "locks"), *_names(folder / "state")]
    return sorted({*rest, *(str(path.relative_to(folder)) for path in folder.rglob(".*"))})


def report(rows: Sequence[Row], details: dict[str, Any], title: str, as_json: bool) -> None:
    """Print rows and details, as JSON or as a table and lines."""
    if as_json:
        plain = [asdict(row) | {"recovery_seconds": [round(s, 3) for s in row.recovery_seconds]} for row in rows]
        sys.stdout.write(json.dumps({"faults": plain, "details": details}, indent=1) + "\n")
        return
    if rows:
        _print_table(rows, title)
    for name, value in details.items():
        sys.stdout.write(f"{name}: {value}\n")


def parser(text: str, jobs: int | None, epochs: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all fault programs have, described by a module's docstring."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--folder", type=Path, help="working folder; by default a new temporary one")
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--seed", type=int, default=0, help="of the moments and kinds of faults")
    made.add_argument("--jobs", type=int, default=jobs)
    made.add_argument("--epochs", type=int, default=epochs)
    made.add_argument("--json", action="store_true", dest="as_json")
    return made


def execute(
    options: argparse.Namespace,
    title: str,
    program: Callable[[Path], tuple[Sequence[Row], dict[str, Any]]],
    why_not: Callable[[], str | None] = lambda: None,
) -> None:
    """Run a fault program in its folder, print its result, and exit with status 1 if something was lost.

    Parameters
    ----------
    why_not
        Returns why the program cannot run on this machine, or None.
    """
    reason = why_not()
    if reason is not None:
        report([], {"skipped": reason, "ok": True}, title, options.as_json)
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hardening-"))
    folder.mkdir(parents=True, exist_ok=True)
    rows, details = program(folder)
    report(rows, details, title, options.as_json)
    sys.exit(0 if details["ok"] else 1)


def log(text: str) -> None:
    """Print a line of progress to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def members(session: int) -> list[int]:
    """Return the running processes of a session."""
    return [process.pid for process in psutil.process_iter() if _runs_in(process, session)]


def _runs_in(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ProcessLookupError):
        return False


def _print_table(rows: Iterable[Row], title: str) -> None:
    console = Console()
    if console.width < WIDTH:
        console = Console(width=WIDTH)
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("fault", "times", "networks lost", "recovery: median (longest), of"):
        table.add_column(heading, justify="right" if heading in ("times", "networks lost") else "left")
    for row in rows:
        seconds = row.recovery_seconds
        text = f"{median(seconds):.1f} s ({max(seconds):.1f} s), {len(seconds)}" if seconds else ""
        table.add_row(row.fault, str(row.times), str(row.lost), text)
    console.print(table)


def _same(ours: RunFolder, theirs: RunFolder, digest: str) -> bool:
    one, other = (read_file(run.network_path(digest)).tensors() for run in (ours, theirs))
    same_networks = one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    return same_networks and same_dataset(ours.result(digest).load(), theirs.result(digest).load())


def _lasting(dataset: xr.Dataset) -> dict[str, Any]:
    return {name: value for name, value in dataset.attrs.items() if name not in OF_THE_MOMENT}


def _names(folder: Path) -> list[str]:
    return sorted(f"{folder.name}/{path.name}" for path in folder.glob("*"))
