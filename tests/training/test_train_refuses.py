"""What cannot be trained is refused before anything has happened."""

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.errors import InputError
from rankscope.tasks import FlipFlop

TASK = FlipFlop(duration=20)


class Untouched:
    def sample(self, batch_size, rng):
        pytest.fail("the task was asked for trials")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1, got 0"),
        ({"epochs": 2.0}, "epochs must be a whole number >= 1, got 2.0"),
        ({"rng": -1}, "rng must be a seed"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ({"optimizer": "adma"}, r"optimizer must be one of .*, got 'adma' \(did you mean 'adam'\?\)"),
        ({"learning_rate": 0}, "learning_rate must be a finite number > 0, got 0"),
        ({"learning_rate": np.nan}, "learning_rate must be a finite number > 0, got nan"),
        ({"clip_norm": -1.0}, "clip_norm must be a finite number > 0, got -1.0"),
        ({"stop_below": 0}, "stop_below must be a finite number > 0, got 0"),
        ({"recorded_epochs": [5]}, "recorded_epochs must lie within 0 and 4, got 5"),
        ({"singular_values": 0}, "singular_values must be a whole number >= 1, got 0"),
        ({"eigenvalues": -1}, "eigenvalues must be a whole number >= 0, got -1"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds must be a finite number >= 0, got -1"),
        ({"task": None}, "task must have a method sample"),
        ({"task": 5}, "task must have a method sample"),
        ({"task": "flipflop"}, "task must have a method sample.* got 'flipflop'"),
        ({"task": FlipFlop}, "task must have a method sample.* got the class"),
        ({"task": TASK.sample(2, rng=0)}, "task must have a method sample.* got Trials"),
        ({"network": 3}, "network must be a network: a RateRNN, a GatedRNN or a torch.nn.Module, got int"),
    ],
)
def test_bad_arguments(call, message):
    network = rs.RateRNN.initialize(TASK, hidden_size=8, rng=0)
    before = {name: w.clone() for name, w in network.state_dict().items()}
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=message):
        rs.train(**{"network": network, "task": Untouched(), "epochs": 5, "rng": rng, **call})
    assert all(torch.equal(w, before[name]) for name, w in network.state_dict().items())
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_a_network_with_nothing_to_train():
    network = rs.RateRNN.initialize(TASK, hidden_size=8, rng=0, trained=())
    with pytest.raises(InputError, match=r"network must have something to train, got trained = \(\)"):
        rs.train(network, Untouched(), 5)


def with_one_input(trials):
    return rs.Trials(trials.inputs[..., :1], trials.targets, trials.mask)


def with_one_output(trials):
    return rs.Trials(trials.inputs, trials.targets[..., :1], trials.mask[..., :1])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (3, "task must return Trials from sample, got int"),
        (with_one_input(TASK.sample(2, rng=0)), "inputs must be a non-empty tensor"),
        (with_one_output(TASK.sample(2, rng=0)), "must have one shape"),
    ],
)
def test_batches_that_do_not_fit(batch, message):
    network = rs.RateRNN.initialize(TASK, hidden_size=8, rng=0)
    before = {name: w.clone() for name, w in network.state_dict().items()}
    with pytest.raises(InputError, match=message):
        rs.train(network, [batch], rng=0)
    assert all(torch.equal(w, before[name]) for name, w in network.state_dict().items())
