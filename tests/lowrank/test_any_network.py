"""Truncation and shuffling of networks of any kind."""

import copy

import numpy as np
import pytest
import torch
from rankscope.lowrank.any_network import losses_with
from torch import nn

import rankscope as rs
from rankscope.errors import InputError
from rankscope.tasks import FlipFlop

TASK = FlipFlop(duration=15)
TRIALS = TASK.sample(8, rng=3)


def moved(network, rank, seed=0, size=1.0):
    """A copy whose matrices all have changed by so many directions."""
    after = copy.deepcopy(network)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for weights in after.parameters():
            if weights.ndim == 2:
                left, right = (rng.normal(size=(n, rank)) for n in weights.shape)
                weights.add_(torch.tensor(size * left @ right.T / weights.shape[1]).to(weights))
    return after


def pair(rank=2, layers=1, **options):
    before = rs.GatedRNN.initialize(TASK, "gru", 6, layers, 0, dtype=torch.float64, **options)
    return before, moved(before, rank)


def test_truncated_by_hand():
    before, after = pair(layers=2)
    losses = rs.lowrank.truncation_losses(before, after, TRIALS, [0, 1, 2, 6])
    for rank, loss in zip([0, 1, 2, 6], losses, strict=True):
        twin = after.snapshot()
        with torch.no_grad():
            for name in after.recurrent_names():
                W0, W = before.get_parameter(name), after.get_parameter(name)
                U, s, Vt = torch.linalg.svd(W - W0, full_matrices=False)
                twin.get_parameter(name).copy_(W0 + (U[:, :rank] * s[:rank]) @ Vt[:rank])
        assert loss == pytest.approx(rs.evaluate(twin, TRIALS), rel=1e-9)
    assert losses[2] == pytest.approx(rs.evaluate(after, TRIALS), rel=1e-6)
    assert len(set(losses.round(9))) == 3
    third = rs.lowrank.truncation_losses(before, after, TRIALS, [2], loss=lambda *x: rs.squared_loss(*x) / 3)
    assert third[0] == pytest.approx(losses[2] / 3)


def test_the_network_is_left_as_it_was():
    before, after = pair()
    kept = {name: w.clone() for name, w in after.state_dict().items()}
    rs.lowrank.truncation_losses(before, after, TRIALS, [0, 1])
    rs.lowrank.shuffled_loss(before, after, TRIALS, 0)
    assert all(torch.equal(w, kept[name]) for name, w in after.state_dict().items())
    assert after.training


@pytest.mark.parametrize("noise_std", [0.0, 0.3])
def test_equals_the_fast_way_of_rate_networks(noise_std):
    before = rs.RateRNN.initialize(TASK, 10, rng=0, noise_std=noise_std, dtype=torch.float64)
    after = moved(before, 3)
    dW = rs.lowrank.change(before, after)
    names = ["recurrent_weights"]
    sets = [{names[0]: dW.before + dW.truncated(rank)} for rank in range(4)]
    slow = losses_with(after, sets, TRIALS, 5, rs.squared_loss)
    fast = rs.lowrank.truncation_losses(before, after, TRIALS, range(4), rng=5, matrices=names)
    if noise_std:
        # not the same noise, but the same for all ranks
        seed = np.random.default_rng(5).integers(2**63 - 1)
        for loss, matrices in zip(slow, sets, strict=True):
            twin = after.snapshot()
            with torch.no_grad():
                twin.recurrent_weights.copy_(torch.tensor(matrices[names[0]]))
            assert loss == rs.evaluate(twin, TRIALS, np.random.default_rng(seed))
    else:
        np.testing.assert_allclose(slow, fast, rtol=1e-9)


def test_other_matrices_than_the_recurrent_ones():
    before, after = pair(layers=1)
    readout, both = (
        rs.lowrank.truncation_losses(before, after, TRIALS, [0], matrices=names)
        for names in (["readout.weight"], ["readout.weight", "rnn.weight_hh_l0"])
    )
    twin = after.snapshot()
    with torch.no_grad():
        twin.readout.weight.copy_(before.readout.weight)
    assert readout[0] == pytest.approx(rs.evaluate(twin, TRIALS), rel=1e-9)
    with torch.no_grad():
        twin.rnn.weight_hh_l0.copy_(before.rnn.weight_hh_l0)
    assert both[0] == pytest.approx(rs.evaluate(twin, TRIALS), rel=1e-9)
    # the readout (2, 6) is whole from rank 2 on, the recurrent one may be cut further
    rs.lowrank.truncation_losses(before, after, TRIALS, [6], matrices=["readout.weight", "rnn.weight_hh_l0"])
    rate = rs.RateRNN.initialize(TASK, 6, rng=0)
    inputs = rs.lowrank.truncation_losses(rate, moved(rate, 1), TRIALS, [0, 2], matrices=["input_weights"])
    assert inputs[0] != pytest.approx(inputs[1], rel=1e-3)


@pytest.mark.parametrize("rank", [-1, 7, 1.0])
def test_ranks_that_are_refused(rank):
    with pytest.raises(InputError, match="rank must be a whole number >= 0 and <= 6"):
        rs.lowrank.truncation_losses(*pair(), TRIALS, [rank])


def test_networks_that_do_not_fit():
    before, after = pair()
    with pytest.raises(InputError, match=r"before must have the parameters of after.* without 'rnn.weight_hh_l1'"):
        rs.lowrank.truncation_losses(before, pair(layers=2)[1], TRIALS, [0])
    with pytest.raises(InputError, match="after must have the shape of before"):
        rs.lowrank.truncation_losses(rs.GatedRNN.initialize(TASK, "lstm", 6, rng=0), after, TRIALS, [0])


def test_shuffled_by_hand():
    before, after = pair(layers=2)
    rng = np.random.default_rng(4)
    twin = after.snapshot()
    with torch.no_grad():
        for name in after.recurrent_names():
            W0 = before.get_parameter(name)
            shuffled = torch.tensor(rng.permutation(W0.detach().numpy().ravel()).reshape(W0.shape))
            twin.get_parameter(name).add_(shuffled - W0)
    loss = rs.lowrank.shuffled_loss(before, after, TRIALS, 4)
    assert loss == pytest.approx(rs.evaluate(twin, TRIALS), rel=1e-9)
    assert loss != pytest.approx(rs.evaluate(after, TRIALS), rel=1e-6)


def test_the_change_of_a_network():
    before, after = pair()
    dW = rs.lowrank.change(before, after)
    np.testing.assert_array_equal(dW.after, after.rnn.weight_hh_l0.detach())
    np.testing.assert_array_equal(dW.before, before.rnn.weight_hh_l0.detach())
    two = pair(layers=2)
    with pytest.raises(
        InputError, match=r"before must be one matrix .* 'rnn.weight_hh_l1'\], .*before.get_parameter\("
    ):
        rs.lowrank.change(*two)
    dropped = nn.Sequential(nn.Linear(2, 6), nn.Dropout(0.5), nn.Linear(6, 2))
    losses = rs.lowrank.truncation_losses(dropped, moved(dropped, 1), TRIALS, [1, 1], matrices=["0.weight"])
    assert losses[0] == losses[1] == pytest.approx(rs.evaluate(moved(dropped, 1), TRIALS), rel=1e-5)
