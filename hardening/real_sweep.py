"""A run of small networks through the command line, for the fault programs to disturb.

`python -c "import real_sweep; real_sweep.main()" run hardening --out FOLDER ...` is `rankscope run` with one more
experiment. Its jobs write state files often, and append a line to a log when they begin, progress and end. From the
log follow the epochs that were computed twice, and the time until work continued after a fault.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from rankscope import train
from rankscope.experiments import EXPERIMENTS
from rankscope.experiments.base import MEASURED, Experiment
from rankscope.sweep import Done, Job

HERE = Path(__file__).parent
SPECIFICATION = "RANKSCOPE_HARDENING_RUN"
LOG = "RANKSCOPE_HARDENING_LOG"
SECONDS_BETWEEN_NOTES = 0.1
TASKS = ("flipflop", "mante", "romo")


@dataclass(frozen=True)
class Specification:
    """The jobs of a run: number, size, epochs, seconds between state files, measurements. The tasks alternate."""

    count: int
    hidden_size: int = 64
    epochs: int = 1000
    checkpoint_seconds: float = 0.5
    measurements: tuple[str, ...] = MEASURED

    def jobs(self) -> list[NotedJob]:
        """Return the jobs."""
        return [
            NotedJob(
                task=TASKS[index % len(TASKS)],
                network={"gain": round(0.3 * (index // len(TASKS) % 5), 1), "hidden_size": self.hidden_size},
                training={"epochs": self.epochs},
                measurements=tuple(self.measurements),
                seed=index,
                labels={"sample": index // (5 * len(TASKS))},
            )
            for index in range(self.count)
        ]


class NotedJob(Job):
    """A job that logs its begin, progress and end."""

    def run(self, progress: Callable[[int, int, float], None] | None = None, checkpoint: Any = None) -> Done:
        """Train and measure."""
        note(self.digest, "begun")
        last = 0.0

        def noted(done: int, total: int, loss: float) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_NOTES or done == total:
                note(self.digest, str(done))
                last = now
            if progress is not None:
                progress(done, total, loss)

        often = partial(train, checkpoint_seconds=specification().checkpoint_seconds)
        with mock.patch("rankscope.sweep.job.train", often):
            finished = super().run(noted, checkpoint)
        note(self.digest, "ended")
        return finished


@dataclass(frozen=True)
class Note:
    """One line of the log: time, host, session and number of the process, job, and "begun", "ended" or an epoch."""

    time: float
    host: str
    session: int
    pid: int
    digest: str
    what: str


def note(digest: str, what: str) -> None:
    """Append a line to the log, if there is one. A short write with O_APPEND is atomic."""
    log = os.environ.get(LOG)
    if log:
        line = f"{time.time():.4f} {socket.gethostname()} {os.getsid(0)} {os.getpid()} {digest} {what}\n"
        descriptor = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        os.write(descriptor, line.encode())
        os.close(descriptor)


def read_notes(log: Path) -> list[Note]:
    """Return the lines of a log."""
    lines = (line.split() for line in log.read_text().splitlines()) if log.exists() else ()
    return [Note(float(t), host, int(session), int(pid), digest, what) for t, host, session, pid, digest, what in lines]


def environment(specification: Specification, log: Path | None = None) -> dict[str, str]:
    """Return the environment in which `main` runs these jobs, and in which they can be unpickled."""
    paths = [str(HERE), str(HERE.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {SPECIFICATION: json.dumps(asdict(specification)), "PYTHONPATH": os.pathsep.join(paths)}
    return os.environ | ours | ({} if log is None else {LOG: str(log)})


def specification() -> Specification:
    """Return the specification in this process's environment."""
    return Specification(**json.loads(os.environ[SPECIFICATION]))


def command(folder: Path, *options: str) -> list[str]:
    """Return the command that runs the jobs into `folder`."""
    return [sys.executable, "-c", "import real_sweep; real_sweep.main()", "run", "hardening", "--out", str(folder),
            "--preset", "given", "--json", *options]  # fmt: skip


def run_undisturbed(specification: Specification, folder: Path, workers: int) -> float:
    """Run all jobs to the end; return the seconds that took."""
    began = time.monotonic()
    subprocess.run(
        command(folder, "--workers", str(workers)),
        env=environment(specification),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.monotonic() - began


def main() -> None:
    """Start the command line of rankscope with the experiment of the environment."""
    from rankscope.cli import main as rankscope_main

    jobs: Callable[[], list[Job]] = lambda: list(specification().jobs())  # noqa: E731
    EXPERIMENTS["hardening"] = Experiment("hardening", "small networks", {"given": jobs})
    rankscope_main()
