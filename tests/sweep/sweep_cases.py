"""Cells and works for the tests of sweeps, importable by worker processes and by scripts that tests kill."""

import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
import xarray as xr

from rankscope.sweep import RunFolder, run_sweep
from rankscope.sweep.integrity import LENGTH, sealed

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """A tiny cell: a log to note its runs in, and what is to happen."""

    number: int
    log: str = ""
    seconds: float = 0.0
    fate: str = ""

    @property
    def digest(self):
        return f"case{self.number:04d}"

    def describe(self):
        return {"number": self.number}


def content(number):
    values = np.random.default_rng(number).standard_normal((20, 40))
    return xr.Dataset({"values": (("a", "b"), values), "number": ((), number)}, {"gain": 0.1 * number})


@contextmanager
def changing(path):
    """Open a result to change it, and seal it again: what nobody does by accident."""
    path.write_bytes(path.read_bytes()[:-LENGTH])
    with h5py.File(path, "r+") as file:
        yield file
    seal_again(path)


def seal_again(path):
    path.write_bytes(sealed(path.read_bytes(), path.stem))


def note(case, what):
    """Append a line to the log; one write with O_APPEND is whole, whoever else is writing."""
    if case.log:
        descriptor = os.open(case.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(descriptor, f"{case.digest} {what}\n".encode())
        os.close(descriptor)


def noted(log, what="begun"):
    lines = Path(log).read_text().splitlines() if Path(log).exists() else []
    return [line.split()[0] for line in lines if line.endswith(what)]


def work(case, report, checkpoint):
    note(case, "begun")
    report(1, 2, 0.5)
    time.sleep(case.seconds)
    if case.fate == "raise":
        raise ValueError(f"case {case.number} cannot be computed")
    if case.fate == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if case.fate == "die once" and not Path(case.log + ".died").exists():
        Path(case.log + ".died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    result = content(case.number).assign_attrs(threads=torch.get_num_threads())
    report(2, 2, 0.25)
    return result


def work_with_checkpoint(case, report, checkpoint):
    """Count to 3 in the checkpoint; interrupted after each step if that is the fate."""
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    note(case, f"from {done}")
    for step in range(done + 1, 4):
        checkpoint.write_text(str(step))
        if case.fate == "raise" and step == 2:
            raise ValueError("interrupted")
    return content(case.number)


def cases(count, **options):
    return [Case(number, **options) for number in range(count)]


def assert_complete(folder, count):
    """Every result is there, equal to the bit to that of an undisturbed run, and nothing else is left over."""
    store = RunFolder(folder)
    assert store.done() == [case.digest for case in cases(count)]
    for case in cases(count):
        found = store.read(case.digest).drop_attrs()
        expected = content(case.number).drop_attrs()
        assert found.identical(expected)
        assert found["values"].values.tobytes() == expected["values"].values.tobytes()
    assert list((store.path / "claims").iterdir()) == []
    assert list(store.path.rglob("*.part")) == []


def wait_until(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def script_environment():
    paths = [str(HERE), str(HERE.parents[1] / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def main(folder, log, count, workers, seconds):
    """Run a sweep as a program would that a test kills."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = run_sweep(work, cases(int(count), log=log, seconds=float(seconds)), folder, workers=int(workers))
    sys.stdout.write(f"{len(report.finished)} {len(report.already_done)} {len(report.elsewhere)}\n")
