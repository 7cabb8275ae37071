"""Numbers that cannot be learned from are named, and are no divergence of the training."""

import numpy as np
import pytest
import torch

import rankscope as rs

TASK = rs.tasks.FlipFlop(duration=10)


class Spoiled:
    """The flip-flop, spoiled from some epoch on."""

    def __init__(self, part, value, epoch=0, where=(1, 3, 0)):
        self.part, self.value, self.epoch, self.where = part, value, epoch, where
        self.count = 0

    def sample(self, batch_size, rng):
        trials = TASK.sample(batch_size, rng)
        if self.count >= self.epoch:
            getattr(trials, self.part)[self.where] = self.value
        self.count += 1
        return trials


def trained(task):
    network = rs.RateRNN.initialize(TASK, hidden_size=8, rng=0)
    return rs.train(network, task, epochs=4, rng=0, batch_size=4)


@pytest.mark.parametrize("epoch", [0, 2])
def test_inputs_that_are_not_finite(epoch):
    with pytest.raises(rs.InputError, match="inputs must be finite, got nan at trial 1, step 3, channel 0"):
        trained(Spoiled("inputs", torch.nan, epoch))


def test_targets_that_count_and_are_not_finite():
    step = int(np.flatnonzero(TASK.sample(4, rng=np.random.default_rng(0)).mask[1, :, 0].numpy())[0])
    with pytest.raises(rs.InputError, match=f"targets must be finite, got inf at trial 1, step {step}, channel 0"):
        trained(Spoiled("targets", torch.inf, where=(1, step, 0)))
    assert trained(Spoiled("targets", torch.nan, where=(1, 0, 0))).status == "finished"  # counts for nothing there


def test_a_mask_that_is_0_everywhere():
    with pytest.raises(rs.InputError, match="mask must count something"):
        trained(Spoiled("mask", 0.0, where=slice(None)))


def test_a_divergence_of_good_trials_is_still_recorded():
    network = rs.RateRNN.initialize(TASK, hidden_size=8, rng=0)
    with torch.no_grad():
        network.output_weights *= 1e30
    assert rs.train(network, TASK, epochs=4, rng=0, batch_size=4).status == "diverged"


def test_one_batch_and_a_class_are_told_what_to_do():
    with pytest.raises(rs.InputError, match=r"for one batch write \[trials\]"):
        trained(TASK.sample(4, rng=0))
    with pytest.raises(rs.InputError, match=r"got the class Spoiled; make one of it, as in Spoiled\(\)"):
        trained(Spoiled)
