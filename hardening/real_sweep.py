"""A real sweep for the programs beside this one to break: small networks, through the command line that users call.

`python -c "import real_sweep; real_sweep.main()" run hardening --out FOLDER ...` is `rankscope run` with one more
experiment in its list. Its cells are those that everybody trains, except that they keep checkpoints often, and that
they write down what they do: a line in a log whenever one begins, has come further, or ends. From the log the others
can tell afterwards what was computed twice, and how long it took until work went on.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr
from rankscope.experiments.cell import DEFAULT_MEASUREMENTS, Cell

from rankscope.experiments import EXPERIMENTS
from rankscope.experiments.base import Experiment
from rankscope.tasks import make

HERE = Path(__file__).parent
SPECIFICATION = "RANKSCOPE_HARDENING_SWEEP"
LOG = "RANKSCOPE_HARDENING_LOG"
SECONDS_BETWEEN_NOTES = 0.1
TASKS = ("flipflop", "mante", "romo")


@dataclass(frozen=True)
class Specification:
    """Which cells: how many, of how many units and epochs, how often they keep a checkpoint, tasks, measurements."""

    count: int
    hidden_size: int = 64
    epochs: int = 1000
    checkpoint_seconds: float = 0.5
    tasks: tuple[str, ...] = TASKS
    measurements: tuple[str, ...] = DEFAULT_MEASUREMENTS

    def cells(self) -> list[NotedCell]:
        """Return the cells; the tasks take turns."""
        return [
            NotedCell(
                make(self.tasks[index % len(self.tasks)]),
                gain=round(0.3 * (index // len(self.tasks) % 5), 1),
                hidden_size=self.hidden_size,
                epochs=self.epochs,
                seed=index,
                sample=index // (5 * len(self.tasks)),
                training={"checkpoint_seconds": self.checkpoint_seconds},
                measurements=tuple(self.measurements),
            )
            for index in range(self.count)
        ]


class NotedCell(Cell):
    """A cell that writes down in the log when it begins, how far it is, and when it ends."""

    def measure(self, report: Callable[[int, int, float], None], checkpoint: Any = None) -> xr.Dataset:
        """Train and measure."""
        note(self.digest, "begun")
        last = 0.0

        def noted(done: int, total: int, loss: float) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_NOTES or done == total:
                note(self.digest, str(done))
                last = now
            report(done, total, loss)

        measured = super().measure(noted, checkpoint)
        note(self.digest, "ended")
        return measured


@dataclass(frozen=True)
class Note:
    """One line of the log: when, by which process of which session and host, about which cell, what ("begun", "17")."""

    time: float
    host: str
    session: int
    pid: int
    digest: str
    what: str


def note(digest: str, what: str) -> None:
    """Append a line to the log, if there is one. A short write with O_APPEND is whole, whoever else writes."""
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
    """Return the environment in which `main` runs these cells, and in which their results can be unpickled."""
    paths = [str(HERE), str(HERE.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {SPECIFICATION: json.dumps(asdict(specification)), "PYTHONPATH": os.pathsep.join(paths)}
    return os.environ | ours | ({} if log is None else {LOG: str(log)})


def command(folder: Path, *options: str) -> list[str]:
    """Return the command that runs the sweep into `folder`."""
    return [sys.executable, "-c", "import real_sweep; real_sweep.main()", "run", "hardening", "--out", str(folder),
            "--preset", "given", "--json", *options]  # fmt: skip


def run_undisturbed(specification: Specification, folder: Path, workers: int) -> float:
    """Run the sweep to its end and return how many seconds that took."""
    began = time.monotonic()
    subprocess.run(
        command(folder, "--workers", str(workers)),
        env=environment(specification),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.monotonic() - began


def given(environ: Mapping[str, str]) -> list[NotedCell]:
    """Return the cells that the environment asks for."""
    return Specification(**json.loads(environ[SPECIFICATION])).cells()


def main() -> None:
    """Be the command line of rankscope, with the experiment of the environment."""
    from rankscope.cli import main as rankscope_main

    EXPERIMENTS["hardening"] = Experiment("hardening", "to be broken", {"given": lambda: given(os.environ)}, ())
    rankscope_main()
