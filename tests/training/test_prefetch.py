"""Trials drawn ahead equal trials drawn one by one, and leave the generator in the same state."""

import itertools

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.training import setup
from rankscope.training.prefetch import BATCHES_AT_A_TIME, drawn_ahead


@pytest.mark.parametrize("name", ["flipflop", "mante", "romo"])
def test_the_same_trials_and_the_same_source(name):
    task = rs.tasks.make(name)
    assert task.by_rng_alone
    ahead, alone = np.random.default_rng(5), np.random.default_rng(5)
    for trials in itertools.islice(drawn_ahead(task, 3, ahead), 2 * BATCHES_AT_A_TIME + 1):
        wanted = task.sample(3, alone)
        assert torch.equal(trials.inputs, wanted.inputs)
        assert torch.equal(trials.targets, wanted.targets)
        assert torch.equal(trials.mask, wanted.mask)
        assert ahead.bit_generator.state == alone.bit_generator.state


def train(epochs, noise_std=0.0, **options):
    task, rng = rs.tasks.Romo(), np.random.default_rng(3)
    net = rs.RateRNN.initialize(task, hidden_size=32, rng=0, noise_std=noise_std)
    history = rs.train(net, task, epochs, rng, recorded_epochs=0, **options)
    return history.losses, net.recurrent_weights.detach().numpy(), rng.bit_generator.state


@pytest.mark.parametrize("options", [{}, {"stop_below": 0.999}, {"learning_rate": 1e30}])
def test_a_training_that_ends_anywhere_is_the_same(monkeypatch, options):
    with_it = train(BATCHES_AT_A_TIME + 3, **options)
    monkeypatch.setattr(setup, "drawn_ahead", lambda task, size, rng: iter(lambda: task.sample(size, rng), None))
    without = train(BATCHES_AT_A_TIME + 3, **options)
    np.testing.assert_array_equal(with_it[0], without[0])
    np.testing.assert_array_equal(with_it[1], without[1])
    assert with_it[2] == without[2]


def test_nothing_is_drawn_ahead_for_noisy_networks(monkeypatch):
    monkeypatch.setattr(setup, "drawn_ahead", lambda *_: pytest.fail("drawn ahead"))
    losses, _, _ = train(2, noise_std=0.1)
    assert len(losses) == 2
