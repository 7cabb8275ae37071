"""A disk that fills up during a run, three times, and gets more space each time.

    python hardening/full_disk.py --jobs 60      (about two minutes; as root, on Linux)

The run folder is on a file system of its own (tmpfs). When it is full the run must exit with status 2 and one line that
says so, and all finished results must be whole. Then the file system grows and the run is started again; at last there
is enough space. All results are compared, bit for bit, with those of an undisturbed run.

*Recovery* is the time from the restart to the first job in progress. The exit status is 0 only if nothing was lost,
failed or left over, and each run ended as described.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import evidence
import real_sweep
from evidence import Row
from rankscope.sweep import RunFolder
from real_sweep import Specification

KILOBYTES_PER_JOB = 64
EXPECTED = "No space left on device"


def fill_disk(specification: Specification, folder: Path, workers: int) -> tuple[list[Row], dict[str, Any]]:
    """Run into a full disk again and again."""
    disk, log = folder / "disk", folder / "full_disk.log"
    disk.mkdir()
    enough = specification.count * KILOBYTES_PER_JOB
    # 300 kB for run.json, locks and state files.
    sizes = [int(300 + fraction * enough) for fraction in (0.2, 0.4, 0.6)]
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
            damaged += [digest for digest in store.done() if store.damage(digest, thorough=True) is not None]
            # A line before it warns that the disk is too small.
            ends.append(f"{ended.returncode}: {ended.stderr.decode().strip().rpartition(chr(10))[2]}")
            evidence.log(f"{size} kB: {len(store.done())} networks; {ends[-1]}")
        real_sweep.run_undisturbed(specification, folder / "undisturbed", workers)
        found = evidence.compare(disk / "run", folder / "undisturbed")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    begun = [n.time for n in real_sweep.read_notes(log) if n.what == "begun"]
    recoveries = [min((t for t in begun if t > moment), default=moment) - moment for moment in restarts[1:]]
    full = [line for line in ends if EXPECTED in line]
    one_line = all(line.startswith("2: rankscope: ") for line in full)
    finished = all(line.startswith("0:") for line in ends if EXPECTED not in line)
    details = {"jobs": specification.count, "ends": ends, "damaged": damaged, **found.details()}
    details["ok"] = bool(found.clean and not damaged and full and one_line and finished)
    return [Row("the disk full", len(full), found.lost, recoveries)], details


def why_not() -> str | None:
    """Return why no file system can be mounted here, or None."""
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
    options = evidence.parser(__doc__ or "", jobs=60, epochs=100).parse_args()
    specification = Specification(options.jobs, epochs=options.epochs, checkpoint_seconds=0.1)
    evidence.execute(options, "A full disk", lambda folder: fill_disk(specification, folder, options.workers), why_not)


if __name__ == "__main__":
    main()
