"""A disk that fills up during a sweep, three times, and is given a little more room each time.

Run it:   python hardening/full_disk.py --cells 60      (about two minutes; as root, on Linux)

The run folder is on a small file system of its own (tmpfs). When it is full the sweep has to end with exit status 2 and
one line that says so, and everything finished has to be there and whole. Then there is more room, and the sweep is
started again; in the end there is enough. Each cell is compared, bit for bit, with that of an undisturbed run.

Read it:  *recovery* is the time from the restart to the first cell in progress. The exit status is 0 only if no cell
was lost, failed or was left half-written, and each end was the one announced.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import evidence
import real_sweep
from evidence import Row, say
from rankscope.sweep import RunFolder
from real_sweep import Specification

KILOBYTES_A_CELL = 40
PROMISED = "No space left on device"


def attack(specification: Specification, folder: Path, workers: int) -> tuple[list[Row], dict[str, Any]]:
    """Let a sweep run into a full disk, again and again."""
    disk, log = folder / "disk", folder / "full_disk.log"
    disk.mkdir()
    enough = specification.count * KILOBYTES_A_CELL
    # The manifest and the checkpoints need some room as well.
    sizes = [int(300 + part * enough) for part in (0.2, 0.4, 0.6)]
    ends: list[str] = []
    damaged: list[str] = []
    restarts: list[float] = []
    _mount("-t", "tmpfs", "-o", f"size={sizes[0]}k", "tmpfs", str(disk))
    try:
        for size in [*sizes, 100_000]:
            _mount("-o", f"remount,size={size}k", str(disk))
            restarts.append(time.time())
            ended = subprocess.run(
                real_sweep.command(disk / "run", "--workers", str(workers)),
                env=real_sweep.environment(specification, log),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
            store = RunFolder(disk / "run")
            damaged += [digest for digest in store.done() if not store.is_done(digest)]
            ends.append(f"{ended.returncode}: {ended.stderr.decode().strip()}")
            say(f"{size} kB: {len(store.done())} cells; {ends[-1]}")
        real_sweep.run_undisturbed(specification, folder / "undisturbed", workers)
        found = evidence.compare(disk / "run", folder / "undisturbed")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    begun = [n.time for n in real_sweep.read_notes(log) if n.what == "begun"]
    recoveries = [min((t for t in begun if t > moment), default=moment) - moment for moment in restarts[1:]]
    full = sum(PROMISED in line for line in ends)
    as_promised = all(line.startswith("2: rankscope: ") and "\n" not in line for line in ends if PROMISED in line)
    details = {
        "cells": specification.count,
        "ends": ends,
        "damaged": damaged,
        "cells_missing": found.missing,
        "cells_different": found.different,
        "cells_failed": found.failed,
        "left_over": found.left_over,
        "set_aside": found.set_aside,
    }
    others = [line for line in ends if PROMISED not in line]
    details["ok"] = found.clean and not damaged and full > 0 and as_promised and all(o.startswith("0:") for o in others)
    return [Row("the disk is full", full, found.lost, recoveries)], details


def why_not() -> str | None:
    """Return why no small file system can be made here, or None."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            _mount("-t", "tmpfs", "-o", "size=100k", "tmpfs", folder)
        except (OSError, subprocess.CalledProcessError) as error:
            return f"a file system cannot be mounted ({error}); that needs root"
        subprocess.run(["umount", folder], check=True)
    return None


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def main() -> None:
    """Run the program."""
    parser = evidence.parser(__doc__ or "")
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=100)
    options = parser.parse_args()
    reason = why_not()
    if reason is not None:
        evidence.report([], {"skipped": reason, "ok": True}, "A disk that fills up", options.as_json)
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="full-disk-"))
    folder.mkdir(parents=True, exist_ok=True)
    specification = Specification(options.cells, epochs=options.epochs, checkpoint_seconds=0.1)
    rows, details = attack(specification, folder, options.workers)
    evidence.report(rows, details, "A disk that fills up", options.as_json)
    sys.exit(0 if details["ok"] else 1)


if __name__ == "__main__":
    main()
