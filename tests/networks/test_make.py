"""Networks by description: kinds, options, the user's functions, and what is refused."""

import pytest
import torch

import rankscope as rs
from rankscope.errors import InputError
from rankscope.networks import check_spec, make_network

TASK = rs.tasks.FlipFlop(channels=3, duration=10)
INPUTS = TASK.sample(2, rng=0).inputs

OWN = """
from torch import nn
def make(task, rng, size=4):
    return nn.Linear(task.input_size, task.output_size)
def anything(task, rng, **options):
    return "no network"
broken = 3
"""


def test_a_description_gives_the_network_of_the_class():
    rate = make_network({"kind": "rate", "gain": 1.2, "hidden_size": 8, "trained": ["recurrent"]}, TASK, 3)
    assert torch.equal(rate(INPUTS), rs.RateRNN.initialize(TASK, 8, 1.2, 3)(INPUTS))
    assert rate.trained == ("recurrent",)
    lstm = make_network({"kind": "lstm", "num_layers": 2, "hidden_size": 8, "dtype": "float64"}, TASK, 3)
    assert torch.equal(lstm(INPUTS), rs.GatedRNN.initialize(TASK, "lstm", 8, 2, 3, dtype=torch.float64)(INPUTS))
    assert make_network({}, TASK, 3).hidden_size == 256


def test_a_function_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(OWN)
    network = make_network({"kind": f"{tmp_path}/own_networks.py:make", "size": 3}, TASK, 0)
    assert network(INPUTS).shape == (2, 20, 3)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    check_spec({"kind": "own_networks:make"})
    for kind, options, message in [
        ("own_networks.py:make", {"sizes": 3}, r"must be one of 'size', got 'sizes' \(did you mean 'size'\?\)"),
        ("own_networks.py:mak", {}, r"must be one of 'make', 'anything', got 'mak' \(did you mean 'make'\?\)"),
        ("own_networks.py:broken", {}, "must name a function"),
        ("own_network.py:make", {}, "must name a file that can be read"),
        ("no_such_package:make", {}, "must name a module that can be imported"),
    ]:
        with pytest.raises(InputError, match=message):
            check_spec({"kind": kind, **options})
    with pytest.raises(InputError, match="must be a network"):
        make_network({"kind": "own_networks:anything", "x": 1}, TASK, 0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "ltsm"}, r"network kind must be one of 'rate', .* got 'ltsm' \(did you mean 'lstm'\?\)"),
        ({"kind": "rate", "gian": 1}, r"option of the network 'rate' must be .* \(did you mean 'gain'\?\)"),
        ({"kind": "gru", "layers": 2}, "option of the network 'gru' must be one of"),
        ({"kind": "rate", "rng": 1}, "option of the network 'rate' must be one of"),
        ({"kind": 3}, "network kind must be one of"),
        ("rate", "network must be a mapping"),
    ],
)
def test_descriptions_that_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        check_spec(spec)
