"""Constrained weights: the constraint holds after training, and what is measured is the effective weight."""

import numpy as np
import pytest
import torch
from torch.nn.utils.parametrize import register_parametrization

import rankscope as rs
from rankscope.errors import InputError
from rankscope.networks import Dale, LowRank, Sparse, matrices_of

TASK = rs.tasks.FlipFlop(duration=10)
SIGNS = np.where(np.arange(12) < 9, 1, -1)
MASK = np.random.default_rng(0).random((12, 12)) < 0.3


@pytest.mark.parametrize(
    ("constraint", "holds"),
    [
        (Dale(SIGNS), lambda W: (W * SIGNS >= 0).all()),
        (Sparse(MASK), lambda W: (W[~MASK] == 0).all()),
        (LowRank(2), lambda W: np.linalg.matrix_rank(W, tol=1e-5) == 2),
    ],
)
def test_training_keeps_the_constraint(constraint, holds):
    network = rs.RateRNN.initialize(TASK, 12, rng=0)
    register_parametrization(network, "recurrent_weights", constraint)
    before = network.snapshot()
    history = rs.train(network, TASK, 5, rng=0)
    assert history.status == "finished"
    W0, W = (matrices_of(net)["recurrent_weights"].detach().numpy() for net in (before, network))
    assert holds(W0)
    assert holds(W)
    assert not np.array_equal(W, W0)
    np.testing.assert_allclose(rs.change(before, network).matrix, W.astype(np.float64) - W0, atol=1e-12)


def test_constrained_weights_keep_their_value():
    W = np.random.default_rng(1).normal(size=(12, 12)).astype(np.float32)
    for constraint, weights in (
        (Dale(SIGNS), np.abs(W) * SIGNS.astype(np.float32)),
        (Sparse(MASK), W * MASK),
        (LowRank(2), W[:, :2] @ W[:2]),
    ):
        network = rs.RateRNN(np.ones((12, 1), np.float32), weights, np.ones((1, 12), np.float32))
        register_parametrization(network, "recurrent_weights", constraint)
        np.testing.assert_allclose(network.recurrent_weights.detach(), weights, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dale([1, 0]), "signs must be a vector of 1 and -1"),
        (lambda: LowRank(0), "rank must be a whole number >= 1, got 0"),
        (lambda: Sparse(MASK)(torch.ones(3, 3)), r"mask must have shape \(3, 3\) like the weights, got \(12, 12\)"),
        (lambda: Dale(SIGNS)(torch.ones(3, 3)), r"signs must have shape \(3,\) like the weights, got \(12,\)"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
