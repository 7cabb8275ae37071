"""Sweeps of every kind from a YAML file: own networks and tasks, NeuroGym, recorded data, gated networks."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rankscope as rs
from rankscope.errors import InputError
from rankscope.tasks.neurogym import installed

OWN = """
from dataclasses import dataclass
import numpy as np, torch
import rankscope as rs

@dataclass(frozen=True)
class Ring:
    width: float = 1.0
    steps_of_delay: int = 2
    def sample(self, batch_size, rng):
        angle = rng.uniform(0, 6.28, size=batch_size)[:, None, None] + np.zeros((1, 6, 1))
        both = np.concatenate([np.cos(angle), np.sin(angle)], axis=2)
        return rs.Trials.from_arrays(self.width * both, both, np.ones_like(both))

class Net(torch.nn.Module):
    def __init__(self, task, rng, width, scale):
        super().__init__()
        self.rnn = torch.nn.RNN(task.input_size, width, batch_first=True)
        self.out = torch.nn.Linear(width, task.output_size)
        with torch.no_grad():
            for weights in self.parameters():
                weights.copy_(torch.tensor(scale * rng.normal(size=weights.shape)))
    def forward(self, inputs):
        return self.out(self.rnn(inputs)[0])

def make(task, rng, width=4, scale=0.3):
    return Net(task, rng, width, scale)
"""

SHOWS = {
    "gated by size": (
        "{task: {name: flipflop, duration: 10, pulse: 2}, network: gru, epochs: 3, "
        "grid: {hidden_size: [4, 6]}, samples: 2}",
        {"hidden_size": [4, 6], "sample": [0, 1]},
    ),
    "own network": (
        "{task: romo, network: 'own.py:make', epochs: 2, grid: {width: [3, 4], learning_rate: [1e-3, 1.0e-2]}}",
        {"width": [3, 4], "learning_rate": [0.001, 0.01]},
    ),
    "own task": (
        "{task: 'own.py:Ring', hidden_size: 5, epochs: 2, grid: {gain: [0, 0.9], task.width: [0.5, 1]}}",
        {"gain": [0.0, 0.9], "width": [0.5, 1]},
    ),
    "recorded": (
        "{task: {recorded: data.npz, inputs: x, targets: y}, hidden_size: 5, epochs: 2, grid: {gain: [0.5, 1.0]}}",
        {"gain": [0.5, 1.0]},
    ),
    "cells": (
        "{task: {name: flipflop, duration: 10, pulse: 2}, epochs: 2, network: {hidden_size: 4}, "
        "grid: {network: [rnn, lstm, {kind: gru, num_layers: 2}]}}",
        {"kind": ["gru", "lstm", "rnn"]},
    ),
    "tasks and schedules": (
        "{hidden_size: 5, epochs: 2, task: cosine, grid: {task: [fixed_point, {name: cosine}], "
        "schedule: [null, {name: StepLR, step_size: 1}, {name: StepLR, step_size: 2}]}}",
        {"task": ["cosine", "fixed_point"], "schedule": ["StepLR step_size=1", "StepLR step_size=2", "none"]},
    ),
    "neurogym": (
        "{task: {name: neurogym, environment: GoNogo-v0}, hidden_size: 5, epochs: 1, batch_size: 2, "
        "measurements: [norms], grid: {environment: [GoNogo-v0, ContextDecisionMaking-v0]}}",
        {"environment": ["ContextDecisionMaking-v0", "GoNogo-v0"]},
    ),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    teacher = rs.RateRNN.initialize(rs.tasks.FlipFlop(), hidden_size=8, gain=1.2, rng=0)
    inputs = rs.tasks.FlipFlop(duration=10, pulse=2).sample(20, 0).inputs
    np.savez("data.npz", x=inputs, y=teacher(inputs).detach())
    return tmp_path


@pytest.mark.parametrize("show", SHOWS)
def test_a_sweep_opens_over_what_it_varies(here, show):
    if show == "neurogym" and not installed():
        pytest.skip("NeuroGym is not installed: pip install 'rankscope[neurogym]'")
    text, axes = SHOWS[show]
    (here / "sweep.yaml").write_text(text)
    with ThreadPoolExecutor(1) as executor:
        result = rs.run(rs.Sweep.from_yaml("sweep.yaml").jobs(), "run", executor=executor)
    assert result.failed == {}
    data = rs.open_run("run")
    assert set(data["status"].dims) == set(axes)
    for name, values in axes.items():
        assert data[name].values.tolist() == values
    assert data["loss"].notnull().all()
    before, after = rs.load_networks("run", **{name: values[0] for name, values in axes.items()})
    assert any(
        not np.array_equal(a.detach(), b.detach()) for a, b in zip(before.parameters(), after.parameters(), strict=True)
    )


def test_jobs_in_python_without_labels(here):
    base = {"task": {"name": "flipflop", "duration": 10, "pulse": 2}, "measurements": ("norms",)}
    jobs = [
        rs.Job(
            **base, network={"hidden_size": 4, "gain": gain}, training={"epochs": 2, "learning_rate": rate}, seed=seed
        )
        for gain in (0, 1.0)
        for rate in (None, 0.01)
        for seed in (5, 6)
    ]
    same = rs.Job(**base, network={"hidden_size": 4, "gain": 0.0}, training={"epochs": 2}, seed=5)
    with ThreadPoolExecutor(1) as executor:
        assert len(rs.run([*jobs, same], "run", executor=executor).finished) == 8
    data = rs.open_run("run")
    assert {name: data[name].values.tolist() for name in data["status"].dims} == {
        "gain": [0.0, 1.0],
        "sample": [0, 1],
        "learning_rate": ["0.01", "none"],
    }
    assert rs.load_networks("run", gain=1, sample=1, learning_rate=None)[0].hidden_size == 4
    with pytest.raises(InputError, match=r"fits 0, of 8; learning_rate is 0.01, none"):
        rs.load_networks("run", learning_rate=0.02)


def test_paired_axes_share_weights_and_trials(here):
    base = rs.Job(task="flipflop", network={"hidden_size": 4}, training={"epochs": 2})
    grid = {"gain": [0.5, 1.0], "learning_rate": [0.001, 0.01]}
    seeds = {}
    for paired in ((), ("learning_rate",), ("training.learning_rate", "gain")):
        seeds[paired] = len({job.seed for job in rs.Sweep(base=base, grid=grid, samples=3, paired=paired).jobs()})
    assert list(seeds.values()) == [12, 6, 3]
    with pytest.raises(InputError, match=r"paired must name options of the grid \(gain, learning_rate\), got 'epochs'"):
        rs.Sweep(base=base, grid=grid, paired=["epochs"]).jobs()
    with pytest.raises(InputError, match=r"grid must name every option once, got gain, network.gain"):
        rs.Sweep(base=base, grid={"gain": [1], "network.gain": [2]}).jobs()
