"""How many directions the task needs, and whether they are tied to the weights they were learned on."""

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.errors import InputError
from rankscope.lowrank import change as changes
from rankscope.lowrank import functional_rank, shuffled_loss, truncation_losses
from rankscope.tasks import FlipFlop

TASK = FlipFlop(duration=20)


@pytest.mark.parametrize(
    ("losses", "options", "expected"),
    [
        ([1, 0.5, 0.049, 0.001], {}, 2),
        ([1, 0.5, 0.05, 0.001], {}, 3),  # below, not at
        ([1, 0.5, 0.06], {}, None),
        ([1, 0.01, 0.5, 0.5], {}, 1),
        ([2, 0.2, 0.09], {}, 2),
        ([1, 0.5, 0.3], {"tolerance": 0.4}, 2),
        ([1, 0.5], {"tolerance": 2}, 0),
        ([1, 0.5, 0.01], {"ranks": [0, 4, 16]}, 16),
        ([1, 0.01, 0.01], {"ranks": [0, 8, 2]}, 2),
        ([1, 0.01], {"ranks": np.array([0, 3])}, 3),
        ([1, np.nan, 0.01], {}, 2),
        ([np.nan, 0.01], {}, None),
        ([0, 0, 0], {}, None),
        ([1], {}, None),
    ],
)
def test_known_curves(losses, options, expected):
    rank = functional_rank(losses, **options)
    assert rank == expected
    assert type(rank) is type(expected)


@pytest.mark.parametrize(
    ("losses", "options", "message"),
    [
        ([], {}, "losses must be one loss a rank"),
        ([[1, 0]], {}, "losses must be one loss a rank"),
        ([1, 0], {"ranks": [1, 2]}, r"beginning at rank 0, got shape \(2,\), ranks \[1, 2\]"),
        ([1, 0], {"ranks": [0, 1, 2]}, "losses must be one loss a rank"),
        ([1, 0], {"tolerance": 0}, "tolerance must be a finite number > 0, got 0"),
    ],
)
def test_curves_that_are_refused(losses, options, message):
    with pytest.raises(InputError, match=message):
        functional_rank(losses, **options)


@pytest.mark.parametrize("values", [(1.0,), (2.0, 1.5, 1.2), (1.0, 0.9, 0.8, 0.7, 0.6)])
def test_a_task_that_needs_r_channels_has_rank_r(values):
    """Each of r inputs reaches its own output through one direction of dW; without it that output is silent."""
    r, N, s = len(values), 16, np.array(values)
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.normal(size=(N, N)))[0][:, :r] for _ in range(2))
    W0 = rng.normal(size=(N, N)) / 4
    W0 -= U @ U.T @ W0  # W0 says nothing to the outputs
    options = {"dt": 1.0, "nonlinearity": "identity"}
    before = rs.RateRNN(V, W0, U.T, **options)
    after = rs.RateRNN(V, W0 + (U * s) @ V.T, U.T, **options)
    inputs = np.zeros((r, 2, r))
    inputs[:, 0] = np.eye(r)
    targets, mask = np.zeros((r, 2, r)), np.zeros((r, 2, r))
    targets[:, 1], mask[:, 1] = np.diag(s), 1
    trials = rs.Trials(*(torch.as_tensor(x) for x in (inputs, targets, mask)))
    losses = truncation_losses(before, after, trials, range(r + 3))
    expected = [0.5 * (s[R:] ** 2).sum() / r**2 for R in range(r + 3)]
    np.testing.assert_allclose(losses, expected, atol=1e-12)
    assert functional_rank(losses) == r


def network(gain, seed=0):
    return rs.RateRNN.initialize(TASK, hidden_size=12, gain=gain, rng=seed, dtype=torch.float64)


def pair(gain):
    after = network(gain)
    before = after.snapshot()
    rs.train(after, TASK, 15, 0, batch_size=8, learning_rate=0.02, recorded_epochs=0)
    return before, after


def test_shuffling_permutes_the_entries_of_w0_and_keeps_the_rest(monkeypatch):
    before, after = pair(0.9)
    trials = TASK.sample(4, rng=0)
    seen = []
    run = changes.__globals__["outputs_of_many"]

    def watching(inputs, weights, recurrent, *rest):
        seen.append((weights, recurrent[0]))
        return run(inputs, weights, recurrent, *rest)

    monkeypatch.setitem(changes.__globals__, "outputs_of_many", watching)
    loss = shuffled_loss(before, after, trials, rng=0)
    (weights, matrix), W0 = seen[0], before.recurrent_weights.detach()
    shuffled = matrix - (after.recurrent_weights - before.recurrent_weights).detach()
    torch.testing.assert_close(shuffled.flatten().sort().values, W0.flatten().sort().values)
    # nearly all are elsewhere, and rows and columns were not just moved as a whole
    assert ((shuffled - W0).abs() > 1e-9).double().mean() > 0.9
    for axis in (0, 1):
        sums = shuffled.sum(axis).sort().values - W0.sum(axis).sort().values
        assert sums.abs().max() > 0.01
    assert weights.input is after.input_weights
    assert weights.output is after.output_weights
    built = rs.RateRNN(after.input_weights, matrix, after.output_weights, **after.architecture())
    assert loss == pytest.approx(rs.evaluate(built, trials), rel=1e-10)


def test_shuffling_nothing_leaves_the_change_alone():
    before, after = pair(0.0)
    trials = TASK.sample(4, rng=0)
    assert shuffled_loss(before, after, trials, rng=0) == pytest.approx(rs.evaluate(after, trials), rel=1e-10)


def test_shuffling_is_seeded():
    before, after = pair(0.9)
    trials = TASK.sample(4, rng=0)
    one, same, other = (shuffled_loss(before, after, trials, rng=seed) for seed in (1, np.random.default_rng(1), 2))
    assert one == same != other
    assert isinstance(one, float)
    with pytest.raises(InputError, match="rng must be a seed"):
        shuffled_loss(before, after, trials, rng=-1)
