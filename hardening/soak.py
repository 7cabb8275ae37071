"""A long sweep of tiny networks: does anything grow that should not, and do the tools keep up with its folder?

Run it:   python hardening/soak.py --cells 5000      (about ten minutes on two cores)

While the sweep runs, once a second: memory of the parent and of the workers, open files, threads, cells done. After it:
how long `open_run` takes and how much memory, then `rankscope status`, a figure, and a second start that finds all
done.

Read it:  *bytes a cell* is the slope of the memory against the cells done, by a straight line through the second half
of the sweep (in the first, libraries are still loaded). The rate of the last quarter beside that of the first tells
whether the sweep slows down. The exit status is 0 only if all cells are done, nothing is left over, the parent grows
by less than 10 kB a cell, and the rate does not fall by a quarter.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import evidence
import real_sweep
from evidence import say
from rankscope.sweep import RunFolder
from real_sweep import Specification

MOST_BYTES_A_CELL = 10_000
LEAST_RATE = 0.75
OPENING = """
import json, resource, sys, time
import rankscope
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
data = rankscope.open_run(sys.argv[1])
opened = time.perf_counter()
data["loss"].load()
read = time.perf_counter()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"open_run_seconds": round(opened - began, 2), "one_array_seconds": round(read - opened, 2),
                  "open_run_megabytes": round((after - before) / 1024, 1)}))
"""


@dataclass(frozen=True)
class Sample:
    """What there was at a moment: seconds since the start, cells done, bytes of memory, files, threads, processes."""

    seconds: float
    done: int
    parent_resident: int
    parent_proportional: int
    workers_resident: int
    workers_proportional: int
    open_files: int
    threads: int
    processes: int


def sample(began: float, pid: int, store: RunFolder) -> Sample:
    """Look at a sweep whose parent is `pid`."""
    workers = evidence.children(pid)
    parent, theirs = evidence.memory(pid), [evidence.memory(worker) for worker in workers]
    return Sample(
        round(time.monotonic() - began, 2),
        sum(1 for _ in (store.path / "cells").glob("[!.]*")),
        *parent,
        max((resident for resident, _ in theirs), default=0),
        max((proportional for _, proportional in theirs), default=0),
        evidence.open_files(pid),
        evidence.threads(pid),
        1 + len(workers),
    )


def watch(specification: Specification, folder: Path, workers: int) -> list[Sample]:
    """Run a sweep and look at it once a second."""
    began = time.monotonic()
    command = real_sweep.command(folder, "--workers", str(workers))
    process = subprocess.Popen(command, env=real_sweep.environment(specification), stdout=subprocess.DEVNULL)
    samples: list[Sample] = []
    said = 0.0
    while process.poll() is None:
        time.sleep(1)
        seen = sample(began, process.pid, RunFolder(folder))
        if process.poll() is None:
            samples.append(seen)
        if seen.seconds - said > 60:
            said = seen.seconds
            say(f"{seen.seconds:.0f} s: {seen.done} cells, parent {seen.parent_resident / 2**20:.0f} MiB")
    if process.returncode:
        raise RuntimeError(f"the sweep has ended with {process.returncode}")
    return samples


def slope(samples: list[Sample], name: str) -> float:
    """Return the bytes a cell by which memory has grown in the second half of the cells."""
    late = [one for one in samples if one.done > samples[-1].done / 2]
    if len({one.done for one in late}) < 2:
        return float("nan")
    return float(np.polyfit([one.done for one in late], [getattr(one, name) for one in late], 1)[0])


def rate(samples: list[Sample], first: float, last: float) -> float:
    """Return the cells a second between two fractions of the cells."""
    most = samples[-1].done
    part = [one for one in samples if first * most <= one.done <= last * most]
    return (part[-1].done - part[0].done) / (part[-1].seconds - part[0].seconds) if len(part) > 1 else float("nan")


def timed(*arguments: str) -> float:
    """Return how many seconds a command of rankscope takes."""
    began = time.monotonic()
    code = "from rankscope.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
    return round(time.monotonic() - began, 2)


def soak(specification: Specification, folder: Path, workers: int, with_report: bool) -> dict[str, Any]:
    """Run a sweep under observation, then use its folder."""
    run = folder / "run"
    samples = watch(specification, run, workers)
    (folder / "samples.json").write_text(json.dumps([asdict(one) for one in samples]))
    # The workers leave as soon as the last cell is done.
    working = [one for one in samples if 0 < one.done < specification.count]
    store = RunFolder(run)
    details: dict[str, Any] = {
        "cells": specification.count,
        "done": len(store.done()),
        "seconds": round(samples[-1].seconds),
        "cells_a_second": round(rate(working, 0, 1), 2),
        "cells_a_second_first_quarter": round(rate(working, 0, 0.25), 2),
        "cells_a_second_last_quarter": round(rate(working, 0.75, 1), 2),
        "parent_bytes_a_cell": round(slope(working, "parent_resident")),
        "worker_bytes_a_cell": round(slope(working, "workers_resident")),
        "parent_mib": [round(one.parent_resident / 2**20) for one in (working[0], working[-1])],
        "largest_worker_mib": [round(one.workers_resident / 2**20) for one in (working[0], working[-1])],
        "most_open_files": max(one.open_files for one in working),
        "most_threads": max(one.threads for one in working),
        "most_processes": max(one.processes for one in working),
        "kilobytes_on_disk_a_cell": round(
            sum(p.stat().st_size for p in (run / "cells").iterdir()) / specification.count / 1e3, 1
        ),
        "left_over": evidence.left_over(run),
    }
    say("opening the folder")
    opened = subprocess.run([sys.executable, "-c", OPENING, str(run)], check=True, stdout=subprocess.PIPE)
    details |= json.loads(opened.stdout)
    details["status_seconds"] = timed("status", str(run))
    details["figure_seconds"] = timed("figure", "gain", "--from", str(run), "--out", str(folder / "gain.png"))
    if with_report:
        details["report_seconds"] = timed("report", str(run), "--out", str(folder / "report.html"))
    details["second_start_seconds"] = round(real_sweep.run_undisturbed(specification, run, workers), 2)
    details["ok"] = (
        details["done"] == specification.count
        and not details["left_over"]
        and not details["parent_bytes_a_cell"] > MOST_BYTES_A_CELL
        and not details["cells_a_second_last_quarter"] < LEAST_RATE * details["cells_a_second_first_quarter"]
    )
    return details


def main() -> None:
    """Run the program."""
    parser = evidence.parser(__doc__ or "")
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--hidden-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--report", action="store_true", help="write the page of the run, too")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    specification = Specification(
        options.cells, options.hidden_size, options.epochs, checkpoint_seconds=60.0, measurements=("spectra", "trial")
    )
    details = soak(specification, folder, options.workers, options.report)
    evidence.report([], details, "", options.as_json)
    sys.exit(0 if details["ok"] else 1)


if __name__ == "__main__":
    main()
