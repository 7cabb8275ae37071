"""What the programs beside this one say about a fault, and how they find out that nothing was lost.

A *fault* is what was done to a sweep; its row says how often, what was lost, and how long it took until work went on.
Lost is only what is not there at the end, or differs by a bit from an undisturbed run of the same cells.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import xarray as xr
from rich.console import Console
from rich.table import Table

from rankscope.sweep import RunFolder

OF_THE_MOMENT = ("training_seconds", "finished", "platform")
"""Attributes of a result that say when and where it was computed, not what came out."""

WIDTH = 150


@dataclass(frozen=True)
class Row:
    """A row of the fault table.

    Attributes
    ----------
    fault
        What was done.
    times
        How often.
    lost
        How many cells were not there at the end, or differed.
    recovery_seconds
        From the fault, or the restart after it, until work went on: one number each time.
    note
        What else there is to say.
    """

    fault: str
    times: int
    lost: int
    recovery_seconds: Sequence[float] = field(default=())
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """How a folder differs from an undisturbed run: cells that are missing or differ, and what was left lying about."""

    missing: list[str]
    different: list[str]
    left_over: list[str]
    set_aside: list[str]
    failed: dict[str, str]

    @property
    def lost(self) -> int:
        """How many cells are missing or differ."""
        return len(self.missing) + len(self.different)

    @property
    def clean(self) -> bool:
        """Whether nothing is lost, failed or left over."""
        return not (self.missing or self.different or self.left_over or self.failed)


def compare(folder: Path, reference: Path) -> Comparison:
    """Compare each cell of a finished run, bit for bit, with that of an undisturbed one."""
    ours, theirs = RunFolder(folder), RunFolder(reference)
    digests = theirs.manifest().cells
    missing = [digest for digest in digests if not ours.is_done(digest)]
    different = [
        digest for digest in digests if digest not in missing and not same_bits(ours.read(digest), theirs.read(digest))
    ]
    failed = {digest: f"{failure.error}: {failure.message}" for digest, failure in ours.failures().items()}
    return Comparison(missing, different, left_over(folder), _names(folder / "set-aside"), failed)


def same_bits(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Return whether two results are the same, but for what says when and where they were computed."""
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
    """Return the files of a finished run that nobody needs: claims, checkpoints, half-written files."""
    rooms = [*_names(folder / "claims"), *_names(folder / "checkpoints")]
    return sorted({*rooms, *(str(path.relative_to(folder)) for path in folder.rglob(".*"))})


def print_table(rows: Iterable[Row], title: str) -> None:
    """Print the fault table."""
    console = Console()
    if console.width < WIDTH:
        console = Console(width=WIDTH)
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("fault", "times", "cells lost", "recovery: median (longest)", "note"):
        table.add_column(heading, justify="right" if heading in ("times", "cells lost") else "left")
    for row in rows:
        table.add_row(row.fault, str(row.times), str(row.lost), recovery(row.recovery_seconds), row.note)
    console.print(table)


def recovery(seconds: Sequence[float]) -> str:
    """Return recovery times in words."""
    return f"{median(seconds):.1f} s ({max(seconds):.1f} s)" if seconds else ""


def report(rows: Sequence[Row], details: dict[str, Any], title: str, as_json: bool) -> None:
    """Print rows and details, as JSON or as a table and lines."""
    if as_json:
        plain = [asdict(row) | {"recovery_seconds": [round(s, 3) for s in row.recovery_seconds]} for row in rows]
        sys.stdout.write(json.dumps({"faults": plain, "details": details}, indent=1) + "\n")
        return
    if rows:
        print_table(rows, title)
    for name, value in details.items():
        sys.stdout.write(f"{name}: {value}\n")


def parser(text: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all of these programs have, described by a module's docstring."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--folder", type=Path, help="where to work; by default a new temporary folder")
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--seed", type=int, default=0, help="of the moments and kinds of faults")
    made.add_argument("--json", action="store_true", dest="as_json")
    return made


def say(text: str) -> None:
    """Tell whoever watches what is going on."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def members(session: int) -> list[int]:
    """Return the processes of a session that run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields and int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(entry.name))
    return found


def children(pid: int) -> list[int]:
    """Return the processes that `pid` has started and that run."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    stats = {child: _stat(child) for child in pids}
    return [child for child, fields in stats.items() if fields and int(fields[1]) == pid and fields[0] not in "ZX"]


def memory(pid: int) -> tuple[int, int]:
    """Return the resident and the proportional memory of a process in bytes; zeros if it is gone."""
    resident = proportional = 0
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                resident = int(line.split()[1]) * 1024
            elif line.startswith("Pss:"):
                proportional = int(line.split()[1]) * 1024
    return resident, proportional


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    fields = _stat(pid)
    return int(fields[17]) if fields else 0


def open_files(pid: int) -> int:
    """Return how many files a process has open."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _lasting(dataset: xr.Dataset) -> dict[str, Any]:
    return {name: value for name, value in dataset.attrs.items() if name not in OF_THE_MOMENT}


def _names(folder: Path) -> list[str]:
    return sorted(f"{folder.name}/{path.name}" for path in folder.glob("*"))
