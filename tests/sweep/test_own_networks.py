"""Sweeps of networks of the user's own: effective weights in every file, one warning a run, labels, estimates."""

import html
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.cli import main
from rankscope.report.write import html as report_of
from rankscope.sweep.cost import seconds_for

OWN = """
import time
import torch
from torch import nn
from torch.nn.utils import parametrize

class Signed(nn.Module):
    def forward(self, V):
        return V.abs() * torch.where(torch.arange(len(V)) < 4, 1.0, -3.0)

class Own(nn.Module):
    seconds = 0.0

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
        time.sleep(self.seconds)
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

def make(task, rng, which="own", seconds=0.0):
    network = (Own if which == "own" else Parametrized)(int(rng.integers(99)))
    network.seconds = seconds
    return network
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def job(training=None, sample=0, **network):
    return rs.Job(
        seed=sample,
        labels={"sample": sample},
        task={"name": "flipflop", "duration": 8},
        network={"kind": "own.py:make"} | network,
        training={"epochs": 3, "learning_rate": 0.01, "batch_size": 4, "recorded_epochs": 1, **(training or {})},
        measurements=("norms",),
    )


def run(jobs, folder="run"):
    with ThreadPoolExecutor(1) as executor:
        return rs.run(jobs, folder, executor=executor)


@pytest.mark.parametrize(("which", "name"), [("own", "connectivity"), ("parametrized", "V")])
def test_files_of_weights_hold_the_effective_ones(here, which, name):
    result = run([job({"matrices": [name], "dtype": "float64"}, which=which)])
    before, after = rs.load_networks("run")
    assert (before.V.dtype, after.V.dtype) == (torch.float32, torch.float64)
    expected = [net.connectivity.detach().numpy() for net in (before, after)]
    _, file = rs.sweep.export_weights("run", "weights")
    exported = np.load(file)
    np.testing.assert_array_equal([exported[f"before.{name}"], exported[f"after.{name}"]], expected)
    path = f"run/jobs/{result.finished[0]}/network.safetensors"
    norms = rs.compare(path)["norm"]
    assert {name, "take", "give"} <= set(norms.index)
    assert norms[name] == pytest.approx(np.linalg.norm(expected[1] - expected[0]), rel=1e-5)
    assert norms[name] == pytest.approx(rs.open_run("run")["change_norm"].item(), rel=1e-5)


def test_a_raw_parameter_is_warned_of_once_a_run_and_beside_every_table(here, capsys):
    (here / "sweep.yaml").write_text(
        "{task: {name: flipflop, duration: 8}, network: 'own.py:make', epochs: 3, batch_size: 4, recorded_epochs: 1, "
        "learning_rate: 0.01, measurements: [norms], samples: 2}"
    )
    with pytest.warns(UserWarning, match="'V' is measured as it is stored") as warned:
        assert len(run(rs.Sweep.from_yaml("sweep.yaml").jobs()).finished) == 2
    assert len(warned) == 1
    (text,) = rs.open_run("run").attrs["warnings"]
    assert text == str(warned[0].message)
    for options, shown in (([], f"warning: {text}"), (["--json"], f'"warnings": [\n    "{text}"\n  ]')):
        with pytest.raises(SystemExit):
            main(["run", "sweep.yaml", "--out", "run", *options])
        assert shown in capsys.readouterr().out
    assert text in html.unescape(report_of("run"))


def test_the_estimate_of_an_own_network_is_timed(here):
    slow = seconds_for([job({"epochs": 100}, seconds=0.02, sample=sample) for sample in range(3)], 1)
    assert 6 < slow < 20


def test_functions_of_one_name_in_two_files_are_two_kinds(here):
    (here / "other.py").write_text(OWN.replace("/ 3", "/ 4"))
    (here / "third.py").write_text(OWN.replace("def make(", "def third("))
    kinds = ["own.py:make", "other.py:make", "third.py:third"]
    run([job({"matrices": ["connectivity"]}, kind=kind) for kind in kinds])
    data = rs.open_run("run")
    assert data["status"].dims == ("kind",)
    assert data["kind"].values.tolist() == ["other.py:make", "own.py:make", "third"]
    for kind in ("own.py:make", "third"):
        assert rs.load_networks("run", kind=kind)[0].V.shape == (6, 6)
