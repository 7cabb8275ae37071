"""Small jobs for the tests of runs, importable by worker processes and by programs that tests kill."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rankscope.sweep import Job, RunFolder, run
from rankscope.sweep import job as job_module
from rankscope.tasks import Trials

HERE = Path(__file__).parent
BATCH = 7
"""Only batches of this size belong to a training."""
EPOCHS = 3


@dataclass(frozen=True)
class Scripted:
    """A task with a script: a log of its trainings, how long they take, and how they end."""

    log: str = ""
    seconds: float = 0.0
    fate: str = ""

    dt = 0.5
    steps = 4

    def sample(self, batch_size, rng):
        inputs = rng.standard_normal((batch_size, self.steps, 1))
        if batch_size == BATCH:
            self._act(inputs)
        return Trials.from_arrays(inputs, np.roll(inputs, 1, axis=1), np.ones_like(inputs))

    def _act(self, inputs):
        note(self.log, f"{inputs[0, 0, 0]:.12g} {os.getpid()}")
        time.sleep(self.seconds)
        if self.fate == "raise":
            raise ValueError("this job cannot be trained")
        died = Path(f"{self.log}.died")
        if self.fate == "die" or (self.fate == "die once" and not died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def job(number, log="", seconds=0.0, fate="", **changes):
    fields = {
        "task": Scripted(str(log), seconds, fate),
        "network": {"hidden_size": 5},
        "training": {"epochs": EPOCHS, "batch_size": BATCH, "recorded_epochs": 2},
        "measurements": ("norms",),
        "seed": number,
        "labels": {"sample": number},
    }
    return Job(**fields | changes)


def jobs(count, **options):
    return [job(number, **options) for number in range(count)]


def note(log, text):
    """Append a line to the log; one write with O_APPEND is complete, whatever other processes write."""
    if log:
        descriptor = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(descriptor, f"{text}\n".encode())
        os.close(descriptor)


def batches(log):
    """Return the batches that trainings have drawn, each a number and the process."""
    return Path(log).read_text().splitlines() if Path(log).exists() else []


def networks_of(path):
    """Return the bytes of both networks and of the losses of each job."""
    store = RunFolder(path)
    found = {}
    for digest in store.done():
        before, after = store.networks(digest)
        weights = [network.recurrent_weights.detach().numpy().tobytes() for network in (before, after)]
        found[digest] = (*weights, store.result(digest).array("loss").tobytes())
    return found


def assert_complete(folder, expected):
    """Every result exists, is bit-identical to an undisturbed job, and nothing else is left."""
    store = RunFolder(folder)
    found = networks_of(folder)
    assert set(found) == {one.digest for one in expected}
    for one in expected[:: max(1, len(expected) // 5)]:
        done = job(one.seed).run()
        before, after, losses = found[one.digest]
        assert before == done.before.recurrent_weights.detach().numpy().tobytes()
        assert after == done.after.recurrent_weights.detach().numpy().tobytes()
        assert losses == done.history.losses.tobytes()
    left = [*(store.path / "locks").iterdir(), *(store.path / "state").iterdir(), *store.path.rglob("*.part")]
    assert not left, f"left over: {left}"


def wait_until(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def main(folder, log, count, workers, seconds):
    """Run jobs as a program that a test kills."""
    job_module.run_one_step = lambda *arguments: None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    result = run(jobs(int(count), log=log, seconds=float(seconds)), folder, workers=int(workers))
    sys.stdout.write(f"{len(result.finished)} {len(result.already_done)} {len(result.elsewhere)}\n")
