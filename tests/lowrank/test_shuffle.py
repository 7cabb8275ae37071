"""The loss with the initial weights shuffled."""

import copy

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.lowrank import shuffled_loss

TASK = rs.tasks.FlipFlop(duration=15)
TRIALS = TASK.sample(8, rng=3)


def pair(kind, gain=0.9):
    if kind == "rate":
        before, after = (rs.RateRNN.initialize(TASK, 12, gain, rng=seed, dtype=torch.float64) for seed in (0, 1))
        return before, after
    return tuple(rs.GatedRNN.initialize(TASK, kind, 6, 2, seed, dtype=torch.float64) for seed in (0, 1))


@pytest.mark.parametrize("kind", ["rate", "gru"])
def test_by_hand(kind):
    before, after = pair(kind)
    rng = np.random.default_rng(4)
    twin = copy.deepcopy(after)
    with torch.no_grad():
        for name in ["recurrent_weights"] if kind == "rate" else after.recurrent_names():
            W0 = before.get_parameter(name)
            shuffled = torch.tensor(rng.permutation(W0.detach().numpy().ravel()).reshape(W0.shape))
            twin.get_parameter(name).add_(shuffled - W0)
    loss = shuffled_loss(before, after, TRIALS, 4)
    assert loss == pytest.approx(rs.evaluate(twin, TRIALS), rel=1e-9)
    assert loss == shuffled_loss(before, after, TRIALS, np.random.default_rng(4))
    assert loss != shuffled_loss(before, after, TRIALS, 5)


def test_shuffling_nothing_leaves_the_trained_network():
    before, after = pair("rate")
    with torch.no_grad():
        before.recurrent_weights.zero_()
    assert shuffled_loss(before, after, TRIALS, rng=0) == pytest.approx(rs.evaluate(after, TRIALS), rel=1e-10)
