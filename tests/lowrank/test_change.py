"""What learning wrote: the change and its truncations, and the losses without parts of it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rankscope as rs
from rankscope.errors import InputError
from rankscope.lowrank import change, shuffled_loss, truncation_losses, variance_explained
from rankscope.networks import many
from rankscope.tasks import FlipFlop

TASK = FlipFlop(duration=20)


def low_rank(N=12, values=(3.0, 2.0, 0.5), seed=0, columns=None):
    """W0, W0 + dW, and the singular values of dW."""
    rng = np.random.default_rng(seed)
    m, n = N, columns or N
    U, V = (np.linalg.qr(rng.normal(size=(size, size)))[0][:, : len(values)] for size in (m, n))
    before = rng.normal(size=(m, n))
    return before, before + (U * values) @ V.T, np.array(values)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=8), st.integers(0, 1000), st.sampled_from([None, 9, 15]))
def test_known_singular_values(values, seed, columns):
    before, after, _ = low_rank(values=values, seed=seed, columns=columns)
    dW = change(before, after)
    expected = np.sort(values)[::-1]
    assert dW.singular_values.shape == (min(12, columns or 12),)
    np.testing.assert_allclose(dW.singular_values[: len(values)], expected, rtol=1e-10)
    np.testing.assert_allclose(dW.singular_values[len(values) :], 0, atol=1e-12)
    np.testing.assert_array_equal(dW.matrix, after - before)
    assert dW.norm**2 == pytest.approx((expected**2).sum())
    # the best approximation of a rank misses exactly the values after it
    for rank in range(min(dW.matrix.shape) + 1):
        error = dW.matrix - dW.truncated(rank)
        tail = expected[rank:]
        assert np.linalg.norm(error) == pytest.approx(np.sqrt((tail**2).sum()), abs=1e-10)
        assert np.linalg.norm(error, 2) == pytest.approx(tail[0] if tail.size else 0, abs=1e-10)
        assert np.linalg.matrix_rank(dW.truncated(rank), tol=1e-9) == min(rank, len(values))


def test_nothing_and_everything():
    dW = change(*low_rank()[:2])
    np.testing.assert_array_equal(dW.truncated(0), np.zeros((12, 12)))
    np.testing.assert_allclose(dW.truncated(12), dW.matrix, atol=1e-13)
    U, s, Vt = dW.svd
    np.testing.assert_allclose((U * s) @ Vt, dW.matrix, atol=1e-13)
    assert dW.svd is dW.svd  # computed once


@pytest.mark.parametrize("rank", [-1, 13, 2.0, True, "2"])
def test_ranks_that_are_refused(rank):
    with pytest.raises(InputError, match=f"rank must be a whole number >= 0 and <= 12, got {rank!r}"):
        change(*low_rank()[:2]).truncated(rank)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20))
def test_variance_explained(values):
    s = np.sort(values)[::-1]
    explained = variance_explained(s)
    assert explained.shape == s.shape
    assert (np.diff(explained) >= 0).all()
    assert explained[-1] == pytest.approx(1)
    if (s**2).sum() > 0:
        np.testing.assert_allclose(explained, [(s[: k + 1] ** 2).sum() / (s**2).sum() for k in range(len(s))])


def test_variance_explained_by_hand_and_of_nothing():
    np.testing.assert_allclose(variance_explained([2, 1, 1]), [4 / 6, 5 / 6, 1])
    np.testing.assert_array_equal(variance_explained([0, 0]), [1, 1])
    nothing = change(np.eye(3), np.eye(3))
    np.testing.assert_array_equal(nothing.variance_explained, [1, 1, 1])
    assert nothing.norm == 0
    np.testing.assert_allclose(change(*low_rank()[:2]).variance_explained[:2], [9 / 13.25, 13 / 13.25])


def network(seed=0, gain=0.9, dtype=torch.float64, size=12, **options):
    return rs.RateRNN.initialize(TASK, hidden_size=size, gain=gain, rng=seed, dtype=dtype, **options)


def pair(**options):
    """A network before and after some learning."""
    after = network(**options)
    before = after.snapshot()
    rs.train(after, TASK, 15, 0, batch_size=8, learning_rate=0.02, recorded_epochs=0)
    return before, after


def test_networks_tensors_and_arrays_are_the_same_change():
    before, after = pair(dtype=torch.float32)
    matrices = [net.recurrent_weights for net in (before, after)]
    expected = matrices[1].detach().double().numpy() - matrices[0].detach().double().numpy()
    arrays = [matrix.detach().numpy() for matrix in matrices]
    for one, other in ((before, after), matrices, arrays, (before, arrays[1]), [array.tolist() for array in arrays]):
        dW = change(one, other)
        np.testing.assert_array_equal(dW.matrix, expected)
        assert dW.matrix.dtype == dW.singular_values.dtype == np.float64


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (np.eye(3), np.eye(4), r"after must have the shape of before, \(3, 3\), got \(4, 4\)"),
        (np.eye(3), np.ones(3), r"after must be a network or a matrix, got shape \(3,\)"),
        (np.eye(3) * np.nan, np.eye(3), "before must be finite, got 9 entries that are not"),
        (np.eye(3), np.diag([1, np.inf, 1]), "after must be finite, got 1 entries that are not"),
        ("W", np.eye(3), "before must be a network or a matrix of numbers, got str"),
        (np.eye(3), [[1], [1, 2]], "after must be a network or a matrix of numbers, got list"),
        (np.eye(3), None, "after must be a network or a matrix, got shape"),
    ],
)
def test_changes_that_are_refused(before, after, message):
    with pytest.raises(InputError, match=message):
        change(before, after)


def with_recurrent(net, matrix, **options):
    """The same network around other recurrent weights, run by the book."""
    weights = net.weights._replace(recurrent=torch.as_tensor(matrix).to(net.recurrent_weights))
    return rs.RateRNN(*weights, engine="plain", **{**net.architecture(), **options})


CASES = pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 1e-10),
        ({"dtype": torch.float32}, 1e-5),
        ({"convention": "rate"}, 1e-10),
        ({"nonlinearity": "softplus", "readout_nonlinearity": "identity"}, 1e-10),
        ({"readout_nonlinearity": "identity", "trained": ("recurrent", "bias", "initial_state")}, 1e-10),
        ({"nonlinearity": torch.sin}, 1e-10),
    ],
)


@CASES
def test_truncation_losses_are_those_of_networks_built_one_by_one(options, tolerance):
    before, after = pair(**options)
    trials = TASK.sample(many.TRIALS_AT_ONCE + 9, rng=1)
    dW = change(before, after)
    ranks = [0, 1, 2, 5, 12]
    # an architecture names its nonlinearities, which cannot bring back a callable
    phi = {
        name: options.get(name, default) for name, default in (("nonlinearity", "tanh"), ("readout_nonlinearity", None))
    }
    expected = [rs.evaluate(with_recurrent(after, dW.before + dW.truncated(R), **phi), trials) for R in ranks]
    losses = truncation_losses(before, after, trials, ranks)
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    assert losses[-1] == pytest.approx(rs.evaluate(after, trials), rel=tolerance)
    assert losses[-1] < 0.9 * losses[0]
    assert len(set(np.round(losses, 6))) == len(ranks)  # or the comparison says little


def test_truncation_keeps_the_trained_input_and_output_weights():
    before, after = pair()
    trials = TASK.sample(8, rng=1)
    W0 = before.recurrent_weights.detach()
    first = truncation_losses(before, after, trials, [0])[0]
    assert first == pytest.approx(rs.evaluate(with_recurrent(after, W0), trials), rel=1e-10)
    assert first != pytest.approx(rs.evaluate(before, trials), rel=1e-3)


def test_default_ranks_and_ranks_that_do_not_exist():
    trials = TASK.sample(2, rng=0)
    wide = network(size=30)
    assert truncation_losses(wide.snapshot(), wide, trials).shape == (26,)
    assert truncation_losses(network(), network(), trials).shape == (13,)
    with pytest.raises(InputError, match="rank must be a whole number >= 0 and <= 12, got 13"):
        truncation_losses(network(), network(), trials, range(26))
    with pytest.raises(InputError, match="after must have the shape of before"):
        truncation_losses(wide, network(), trials)


def test_noise_is_the_same_for_all_ranks_and_comes_from_rng():
    noisy, trials = network(noise_std=0.3), TASK.sample(4, rng=0)
    losses = truncation_losses(noisy.snapshot(), noisy, trials, range(4), rng=3)
    np.testing.assert_array_equal(losses, losses[0])
    assert losses[0] == pytest.approx(rs.evaluate(noisy, trials, rng=3), rel=1e-10)
    assert truncation_losses(noisy.snapshot(), noisy, trials, [0], rng=4)[0] != losses[0]


def test_measuring_changes_no_network():
    before, after = pair()
    weights = [[p.detach().clone() for p in net.parameters()] for net in (before, after)]
    after.zero_grad()
    trials = TASK.sample(4, rng=0)
    truncation_losses(before, after, trials, [0, 3])
    shuffled_loss(before, after, trials, rng=0)
    for net, kept in zip((before, after), weights, strict=True):
        assert all(torch.equal(p, k) for p, k in zip(net.parameters(), kept, strict=True))
        assert all(p.grad is None for p in net.parameters())
