"""Arguments, networks and trials that cannot be trained raise InputError, and the network is unchanged."""

import numpy as np
import pytest
import torch

import rankscope as rs

TASK = rs.tasks.FlipFlop(duration=20)


def refused(message, **call):
    network = rs.RateRNN.initialize(TASK, hidden_size=8, rng=0)
    before = network.snapshot().state_dict()
    with pytest.raises(rs.InputError, match=message):
        rs.train(**{"network": network, "task": TASK, "epochs": 5, "rng": 0, "batch_size": 4, **call})
    return all(torch.equal(w, before[name]) for name, w in network.state_dict().items())


class Untouched:
    def sample(self, batch_size, rng):
        pytest.fail("trials were drawn")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1, got 0"),
        ({"epochs": 2.0}, "epochs must be a whole number >= 1, got 2.0"),
        ({"rng": -1}, "rng must be a seed"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ({"learning_rate": 0}, "learning_rate must be a finite number > 0, got 0"),
        ({"learning_rate": np.nan}, "learning_rate must be a finite number > 0, got nan"),
        ({"clip_norm": -1.0}, "clip_norm must be a finite number > 0, got -1.0"),
        ({"stop_below": 0}, "stop_below must be a finite number > 0, got 0"),
        ({"recorded_epochs": [5]}, "recorded_epochs must lie within 0 and 4, got 5"),
        ({"singular_values": 0}, "singular_values must be a whole number >= 1, got 0"),
        ({"eigenvalues": -1}, "eigenvalues must be a whole number >= 0, got -1"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds must be a finite number >= 0, got -1"),
        ({"task": 5}, "task must have a method sample"),
        ({"task": "flipflop"}, "task must have a method sample.* got 'flipflop'"),
        ({"task": Untouched}, r"got the class Untouched; make one of it, as in Untouched\(\)"),
        ({"task": TASK.sample(2, rng=0)}, r"got Trials.*; for one batch write \[trials\]"),
        ({"network": 3}, "network must be a network: a RateRNN, a GatedRNN or a torch.nn.Module, got int"),
        (
            {"network": rs.RateRNN.initialize(TASK, 8, rng=0, trained=())},
            r"network must have something to train, got trained = \(\)",
        ),
    ],
)
def test_arguments(call, message):
    assert refused(message, **{"task": Untouched(), **call})


def changed(**arrays):
    trials = TASK.sample(2, rng=0)
    return rs.Trials(*(arrays.get(name, lambda x: x)(getattr(trials, name)) for name in ("inputs", "targets", "mask")))


def first_channel(x):
    return x[..., :1]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (3, "task must return Trials from sample, got int"),
        (changed(inputs=first_channel), "inputs must be a non-empty tensor"),
        (changed(targets=first_channel, mask=first_channel), "must have one shape"),
        (changed(mask=torch.zeros_like), "mask must count something"),
    ],
)
def test_batches_that_do_not_fit(batch, message):
    assert refused(message, task=[batch], epochs=None)


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize(("name", "value"), [("inputs", torch.nan), ("targets", torch.inf)])
def test_numbers_that_are_not_finite_are_no_divergence(name, value, epoch):
    class Spoiled:
        def __init__(self, good):
            self.good = good

        def sample(self, batch_size, rng):
            trials = TASK.sample(batch_size, rng)
            step = int(trials.mask[1, :, 0].nonzero()[0])
            if self.good == 0:
                getattr(trials, name)[1, step, 0] = value
            self.good -= self.good > 0
            return trials

    networks = [rs.RateRNN.initialize(TASK, hidden_size=8, rng=seed) for seed in range(2)]
    message = f"{name} must be finite, got .* at trial 1, step .*, channel 0"
    with pytest.raises(rs.InputError, match=message):
        rs.train_together(networks, Spoiled(epoch * 2), 4, [0, 1], batch_size=4)
    with pytest.raises(rs.InputError, match=message):
        rs.train(networks[0], Spoiled(epoch), 4, 0, batch_size=4)
