"""A long run of tiny networks: what grows, and how fast the folder can be read afterwards.

    python hardening/soak.py --jobs 5000      (about ten minutes on two cores)

Once a second: memory of the parent and of the workers, open files, threads, networks finished. After the run: time and
memory of `open_run`, and the time of `rankscope status`, a figure, and a second start that finds all jobs finished.

*Bytes per job* is the slope of memory against finished networks, by a line through the second half of the run, when all
libraries are loaded. The exit status is 0 only if all jobs are finished, nothing is left over, the parent grows by less
than 10 kB per job, and the rate of the last quarter is at least three quarters of that of the first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import evidence
import real_sweep
from rankscope.sweep import RunFolder
from real_sweep import Specification

MOST_BYTES_PER_JOB = 10_000
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
    """State at one moment: seconds since the start, networks finished, resident bytes, open files, threads, processes.

    Of the workers, the largest.
    """

    seconds: float
    done: int
    parent_bytes: int
    worker_bytes: int
    open_files: int
    threads: int
    processes: int


def sample(began: float, parent: psutil.Process, run: Path) -> Sample:
    """Return the state of a run.

    Raises
    ------
    psutil.NoSuchProcess
        If it has ended.
    """
    workers = parent.children()
    sizes = [0]
    for worker in workers:
        with suppress(psutil.Error):
            sizes.append(worker.memory_info().rss)
    done = sum(1 for _ in (run / "jobs").glob("[!.]*"))
    memory, files, threads = parent.memory_info().rss, parent.num_fds(), parent.num_threads()
    return Sample(round(time.monotonic() - began, 2), done, memory, max(sizes), files, threads, 1 + len(workers))


def watch(specification: Specification, folder: Path, workers: int) -> list[Sample]:
    """Run all jobs; return a sample a second."""
    began = time.monotonic()
    command = real_sweep.command(folder, "--workers", str(workers))
    process = subprocess.Popen(command, env=real_sweep.environment(specification), stdout=subprocess.DEVNULL)
    samples: list[Sample] = []
    while process.poll() is None:
        with suppress(psutil.Error):
            samples.append(sample(began, psutil.Process(process.pid), folder))
            if len(samples) % 60 == 0:
                evidence.log(f"{samples[-1].seconds:.0f} s: {samples[-1].done} networks")
        time.sleep(1)
    if process.returncode:
        raise RuntimeError(f"the run has ended with {process.returncode}")
    return samples


def slope(samples: list[Sample], name: str) -> float:
    """Return the bytes per job by which memory has grown in the second half of the jobs."""
    late = [one for one in samples if one.done > samples[-1].done / 2]
    if len({one.done for one in late}) < 2:
        return float("nan")
    return float(np.polyfit([one.done for one in late], [getattr(one, name) for one in late], 1)[0])


def rate(samples: list[Sample], first: float, last: float) -> float:
    """Return the networks per second between two fractions of the run."""
    most = samples[-1].done
    within = [one for one in samples if first * most <= one.done <= last * most]
    if len(within) < 2:
        return float("nan")
    return (within[-1].done - within[0].done) / (within[-1].seconds - within[0].seconds)


def timed(*arguments: str) -> float:
    """Return the seconds that a command of rankscope takes."""
    began = time.monotonic()
    code = "from rankscope.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
    return round(time.monotonic() - began, 2)


def soak(specification: Specification, folder: Path, workers: int) -> dict[str, Any]:
    """Observe a run, then use its folder."""
    run = folder / "run"
    samples = watch(specification, run, workers)
    (folder / "samples.json").write_text(json.dumps([asdict(one) for one in samples]))
    # The workers exit after the last job.
    working = [one for one in samples if 0 < one.done < specification.count]
    sizes = [path.stat().st_size for path in (run / "jobs").rglob("*.safetensors")]
    details: dict[str, Any] = {
        "jobs": specification.count,
        "finished": len(RunFolder(run).done()),
        "seconds": round(samples[-1].seconds),
        "networks_per_second": round(rate(working, 0, 1), 2),
        "networks_per_second_first_quarter": round(rate(working, 0, 0.25), 2),
        "networks_per_second_last_quarter": round(rate(working, 0.75, 1), 2),
        "parent_bytes_per_job": round(slope(working, "parent_bytes")),
        "worker_bytes_per_job": round(slope(working, "worker_bytes")),
        "parent_mib": [round(one.parent_bytes / 2**20) for one in (working[0], working[-1])],
        "largest_worker_mib": [round(one.worker_bytes / 2**20) for one in (working[0], working[-1])],
        "most_open_files": max(one.open_files for one in working),
        "most_threads": max(one.threads for one in working),
        "most_processes": max(one.processes for one in working),
        "kilobytes_on_disk_per_job": round(sum(sizes) / specification.count / 1e3, 1),
        "left_over": evidence.left_over(run),
    }
    evidence.log("opening the folder")
    opened = subprocess.run([sys.executable, "-c", OPENING, str(run)], check=True, stdout=subprocess.PIPE)
    details |= json.loads(opened.stdout)
    details["status_seconds"] = timed("status", str(run))
    details["figure_seconds"] = timed("figure", "spectra", "--from", str(run), "--out", str(folder / "spectra.png"))
    details["report_seconds"] = timed("report", str(run), "--out", str(folder / "report.html"))
    details["second_start_seconds"] = round(real_sweep.run_undisturbed(specification, run, workers), 2)
    details["ok"] = (
        details["finished"] == specification.count
        and not details["left_over"]
        and not details["parent_bytes_per_job"] > MOST_BYTES_PER_JOB
        and not details["networks_per_second_last_quarter"] < LEAST_RATE * details["networks_per_second_first_quarter"]
    )
    return details


def main() -> None:
    """Run the program."""
    parser = evidence.parser(__doc__ or "", jobs=5000, epochs=5)
    parser.add_argument("--hidden-size", type=int, default=32)
    options = parser.parse_args()
    specification = Specification(
        options.jobs,
        options.hidden_size,
        options.epochs,
        checkpoint_seconds=60.0,
        measurements=("learning", "norms", "spectra", "trial"),
    )
    evidence.execute(options, "", lambda folder: ([], soak(specification, folder, options.workers)))


if __name__ == "__main__":
    main()
