"""Tasks and networks defined in a cell of a notebook or at a prompt, where there is no file to import."""

import sys
from types import ModuleType

import pytest

PROGRAM = """
import torch
from dataclasses import dataclass
import rankscope as rs

SCALE = 1.0

def helper(duration):
    return duration * SCALE

@dataclass
class MyTask:
    duration: float = 20.0
    dt = 0.5
    def sample(self, batch_size, rng):
        return rs.tasks.FlipFlop(duration=helper(self.duration)).sample(batch_size, rng)

class Net(torch.nn.Module):
    def __init__(self, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.layer = torch.nn.RNN(2, hidden_size, batch_first=True)
        self.readout = torch.nn.Linear(hidden_size, 2)
    def forward(self, inputs):
        return self.readout(self.layer(inputs)[0])

def make_network(task, rng, hidden_size=8):
    return Net(hidden_size)

def job(**network):
    return rs.Job(task=MyTask(), network=network, training={"epochs": 2}, measurements=["norms"])

jobs = [job(kind="rate", hidden_size=8), job(kind="__main__:make_network")]
result = rs.run(jobs, "run", workers=1)
assert len(result.finished) == 2, result
before, after = rs.load_networks("run", kind="make_network")
assert before.hidden_size == 8
assert not rs.measure_run("run", ["evaluation"], workers=1).failed

# What the class uses is part of its source: another value is another job.
assert job(kind="rate").digest == job(kind="rate").digest
old = job(kind="rate").digest
SCALE = 1.5
assert job(kind="rate").digest != old
SCALE = 1.0
assert job(kind="rate").digest == old
"""


@pytest.mark.usefixtures("forked_workers")  # of a server without these definitions
def test_a_sweep_over_a_class_without_a_file_runs_in_worker_processes(tmp_path, monkeypatch):
    prompt = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", prompt)
    monkeypatch.chdir(tmp_path)
    exec(PROGRAM, vars(prompt))
