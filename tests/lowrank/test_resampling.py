"""Resampled networks: populations are found, new units have their statistics, and W0 stays."""

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.errors import InputError

pytest.importorskip("sklearn")
N = 600


def networks(rng, tau=None, W0=1.0):
    """Return a network before and after a change m n^T, of two populations that differ in their covariances."""
    first = rng.random(N) < 0.4
    m = rng.normal(size=N)
    # n is along m in the first population and against it in the second, where inputs are weak.
    n = np.where(first, m, -m) + 0.1 * rng.normal(size=N)
    inputs = rng.normal(size=(N, 1)) * np.where(first, 3.0, 0.3)[:, None]
    W0, outputs = W0 * rng.normal(size=(N, N)) / np.sqrt(N), m[None] / N
    make = [rs.RateRNN(inputs, W, outputs, tau=tau, noise_std=0.1) for W in (W0, W0 + np.outer(m, n) / N)]
    return *make, first


def test_two_populations_are_found_and_drawn():
    before, after, first = networks(np.random.default_rng(0))
    found = rs.populations(before, after, 1, 2, rng=0)
    agree = (found.labels == found.labels[first][0]) == first
    assert max(agree.mean(), 1 - agree.mean()) > 0.95
    assert sorted(found.weights) == pytest.approx(
        [first.mean(), 1 - first.mean()][:: 1 if first.mean() < 0.5 else -1], abs=0.05
    )
    one = rs.populations(before, after, 1, rng=0)
    assert found.score > one.score + 0.5
    for mixture, overlap in ((found, np.cov(found.points[:, :2].T)), (one, np.cov(one.points[:, :2].T))):
        new = mixture.draw(1)
        again = mixture.draw(np.random.default_rng(1))
        dW = (new.recurrent_weights - before.recurrent_weights).detach().double().numpy()
        U, s, Vt = np.linalg.svd(dW)
        assert s[1] < 1e-5 * s[0]
        assert np.array_equal(new.recurrent_weights.detach(), again.recurrent_weights.detach())
        assert new.architecture() == after.architecture()
        # trace(dW) = m . n, the overlap of the two directions
        assert np.trace(dW) == pytest.approx(overlap[0, 1] * N, abs=4 * np.sqrt(N * np.prod(np.diag(overlap))))
        assert new.input_weights.std().item() == pytest.approx(after.input_weights.std().item(), rel=0.15)
    # The first Gaussian has the covariances of all units together, the mixture those of each population.
    drawn = found.draw(2)
    dW = (drawn.recurrent_weights - before.recurrent_weights).detach().double().numpy()
    U, s, Vt = np.linalg.svd(dW)
    product = U[:, 0] * Vt[0] * N
    strong = np.abs(drawn.input_weights.detach().numpy()[:, 0]) > 1.5
    assert product[strong].mean() > 0.5
    assert product[~strong].mean() < -0.2


def test_bayes_and_a_change_of_rank_two():
    task = rs.tasks.make("perceptual_decision", trials=20, validation_trials=2)
    before = rs.RateRNN.initialize(task, 64, 0.5, rng=0, rank=2)
    after = before.snapshot()
    rs.train(after, task, 1, rng=0, batch_size=10)
    found = rs.populations(before, after, 2, 2, rng=0, method="bayes", starts=1)
    assert found.points.shape == (64, 6)
    np.testing.assert_allclose(found.points[:, :2] @ found.points[:, 2:4].T, rs.change(before, after).matrix, atol=1e-6)
    assert type(found.draw(0)) is rs.RateRNN
    with pytest.raises(InputError, match="hidden_size must be 64, the size of W0, which is not zero, got 65"):
        found.draw(0, 65)
    assert np.abs(found.mixture.means_).max() < 1e-3


def test_more_units_keep_the_sums_over_units():
    before, after, _ = networks(np.random.default_rng(1), W0=0.0)
    found = rs.populations(before, after, 1, 2, rng=0, starts=2)
    small, large = found.draw(0), found.draw(1, 6 * N)
    assert large.recurrent_weights.shape == (6 * N, 6 * N)
    assert large.input_weights.std().item() == pytest.approx(small.input_weights.std().item(), rel=0.15)
    # The mean readout of a state along m is a sum over units of w m.
    overlaps = []
    for network in (small, large):
        W, w = network.recurrent_weights.detach().double(), network.output_weights.detach().double()[0]
        overlaps.append(float(torch.linalg.vector_norm(w @ W)))
    assert overlaps[1] == pytest.approx(overlaps[0] / np.sqrt(6), rel=0.25)


def test_mistakes_are_named():
    before, after, _ = networks(np.random.default_rng(0))
    with_tau = networks(np.random.default_rng(0), tau=2.0)
    for arguments, message in (
        ((before, after, 0), "rank must be a whole number >= 1"),
        ((before, after, 1, 150), "number must be below 150, so that each population has more units"),
        ((before, after, 5), "rank must be at most 1, the rank of the change, got 5"),
        ((with_tau[0], with_tau[1], 1), "before must be a rate network without time constants"),
        ((before, after, 1, 1, 0), "method must be one of"),
    ):
        with pytest.raises(InputError, match=message):
            rs.populations(*arguments, method="en" if len(arguments) == 5 else "em")
