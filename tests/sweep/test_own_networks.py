"""Sweeps of networks of the user's own: effective weights in every file, one warning a run, labels, estimates."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rankscope as rs

OWN = """
import torch
from torch import nn
from torch.nn.utils import parametrize

class Signed(nn.Module):
    def forward(self, V):
        return V.abs() * torch.where(torch.arange(len(V)) < 4, 1.0, -3.0)

class Own(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.V = nn.Parameter(torch.rand(6, 6) / 3)
        self.take, self.give = nn.Parameter(torch.randn(6, 2)), nn.Parameter(torch.randn(2, 6))
        self.signed = Signed()

    @property
    def connectivity(self):
        return self.signed(self.V)

    def forward(self, inputs):
        W, h, states = self.connectivity, inputs.new_zeros(len(inputs), 6), []
        for u in inputs.unbind(1):
            h = torch.tanh(h @ W.T + u @ self.take.T)
            states.append(h)
        return torch.stack(states, 1) @ self.give.T

class Parametrized(Own):
    def __init__(self, seed):
        super().__init__(seed)
        parametrize.register_parametrization(self, "V", Signed())

    @property
    def connectivity(self):
        return self.V

def make(task, rng, which="own"):
    return (Own if which == "own" else Parametrized)(int(rng.integers(99)))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def job(training=None, **network):
    return rs.Job(
        task={"name": "flipflop", "duration": 8},
        network={"kind": "own.py:make", **network},
        training={"epochs": 3, "learning_rate": 0.01, "batch_size": 4, "recorded_epochs": 1, **(training or {})},
        measurements=("norms",),
    )


def run(jobs, folder="run"):
    with ThreadPoolExecutor(1) as executor:
        return rs.run(jobs, folder, executor=executor)


@pytest.mark.parametrize(("which", "name"), [("own", "connectivity"), ("parametrized", "V")])
def test_files_of_weights_hold_the_effective_ones(here, which, name):
    result = run([job({"matrices": [name]}, which=which)])
    before, after = rs.load_networks("run")
    expected = [net.connectivity.detach().numpy() for net in (before, after)]
    index, file = rs.sweep.export_weights("run", "weights")
    exported = np.load(file)
    np.testing.assert_array_equal([exported[f"before.{name}"], exported[f"after.{name}"]], expected)
    path = f"run/jobs/{result.finished[0]}/network.safetensors"
    norms = rs.compare(path)["norm"]
    assert {name, "take", "give"} <= set(norms.index)
    assert norms[name] == pytest.approx(np.linalg.norm(expected[1] - expected[0]), rel=1e-5)
    assert norms[name] == pytest.approx(rs.open_run("run")["change_norm"].item(), rel=1e-5)
