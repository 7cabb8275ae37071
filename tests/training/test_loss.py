"""Losses and accuracy: formulas, masked values, evaluation, and a loss of the user's own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rankscope as rs

FLIPFLOP = rs.tasks.FlipFlop()


class Classes:
    """Which of two inputs is on?"""

    loss = "cross_entropy"

    def sample(self, batch_size, rng):
        answer = np.eye(2)[rng.integers(2, size=batch_size)][:, None]
        inputs = np.repeat(answer, 8, axis=1)
        mask = np.zeros_like(inputs)
        mask[:, 5:] = 1
        return rs.Trials.from_arrays(inputs, inputs, mask)


def some_batch(seed, shape=(3, 4, 3)):
    rng = np.random.default_rng(seed)
    outputs = torch.as_tensor(rng.normal(size=shape))
    targets = torch.as_tensor(np.eye(shape[2])[rng.integers(shape[2], size=shape[:2])])
    weight = rng.choice([0.0, 0.5, 1.0, 2.0], size=(*shape[:2], 1))
    weight[0, 0] = 1
    return outputs, targets, torch.as_tensor(np.repeat(weight, shape[2], axis=2))


def test_squared_loss_by_hand():
    outputs = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    targets = torch.tensor([[[0.0, 2.0], [1.0, 100.0]]])
    mask = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    # errors 1, 0, 2 count: 1/2 (1 + 0 + 4) / 3
    assert float(rs.squared_loss(outputs, targets, mask)) == pytest.approx(5 / 6)
    weights = torch.tensor([[[2.0, 0.5], [1.0, 0.0]]])
    assert float(rs.squared_loss(outputs, targets, weights)) == pytest.approx(0.5 * (2 * 1 + 0 + 4) / 3.5)


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_cross_entropy_is_the_weighted_mean_of_torchs(seed):
    outputs, targets, mask = some_batch(seed)
    each = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.argmax(-1).flatten(), reduction="none")
    weight = mask[..., 0].flatten()
    expected = (weight * each).sum() / weight.sum()
    torch.testing.assert_close(rs.cross_entropy_loss(outputs, targets, mask), expected)


def test_cross_entropy_with_probabilities_as_targets():
    outputs = torch.log(torch.tensor([[[0.2, 0.8]]])) + 3
    loss = rs.cross_entropy_loss(outputs, torch.tensor([[[0.25, 0.75]]]), torch.ones(1, 1, 2))
    assert float(loss) == pytest.approx(-0.25 * np.log(0.2) - 0.75 * np.log(0.8))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1e30, torch.inf, torch.nan]))
@pytest.mark.parametrize("loss", [rs.squared_loss, rs.cross_entropy_loss])
def test_masked_targets_have_no_influence(loss, seed, anything):
    outputs, targets, mask = some_batch(seed)
    losses, gradients = [], []
    for wanted in (targets, torch.where(mask == 0, anything, targets)):
        z = outputs.clone().requires_grad_()
        value = loss(z, wanted, mask)
        value.backward()
        losses.append(value.detach())
        gradients.append(z.grad)
    assert torch.equal(*losses)
    assert torch.equal(*gradients)
    if loss is rs.squared_loss:
        expected = mask * (outputs - targets) / mask.sum()
    else:
        expected = mask * (outputs.softmax(-1) - targets) / mask[..., 0].sum()
    torch.testing.assert_close(gradients[0], expected)


@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_scaling(seed, c):
    outputs, targets, mask = some_batch(seed)
    loss = rs.squared_loss(outputs, targets, mask)
    torch.testing.assert_close(rs.squared_loss(c * outputs, c * targets, mask), c**2 * loss)
    torch.testing.assert_close(rs.squared_loss(outputs, targets, c * mask), loss)
    twice = [torch.cat([x, x]) for x in (outputs, targets, mask)]
    torch.testing.assert_close(rs.squared_loss(*twice), loss)


ONES = torch.ones(2, 3, 2)
HALVES = ONES / 2


@pytest.mark.parametrize(
    ("loss", "targets", "mask", "message"),
    [
        (rs.squared_loss, ONES, ONES[..., :1], r"must have one shape \(batch, time, out\), got \(2, 3, "),
        (rs.cross_entropy_loss, HALVES[..., :1], ONES, r"must have one shape \(batch, time, out\)"),
        (rs.cross_entropy_loss, ONES, ONES, "targets must be one-hot or probabilities"),
        (rs.cross_entropy_loss, torch.tensor([1.5, -0.5]).expand(2, 3, 2), ONES, "targets must be one-hot"),
        (rs.cross_entropy_loss, HALVES * torch.nan, ONES, "targets must be one-hot or probabilities"),
        (rs.cross_entropy_loss, HALVES, torch.tensor([1.0, 0.5]).expand(2, 3, 2), "mask must be the same for all"),
    ],
)
def test_targets_and_masks_that_are_refused(loss, targets, mask, message):
    with pytest.raises(rs.InputError, match=message):
        loss(ONES, targets, mask)


def test_one_channel_is_refused():
    with pytest.raises(rs.InputError, match="a channel for each class, two or more, got 1"):
        rs.cross_entropy_loss(*3 * (ONES[..., :1],))


def test_accuracy_by_hand():
    right, wrong = [0.1, 0.9], [0.9, 0.1]
    outputs = torch.tensor([[right, wrong, right], [right, wrong, right], [wrong, wrong, wrong]])
    targets = torch.tensor([0.0, 1.0]).expand(3, 3, 2)
    weight = torch.tensor([[1.0, 1, 0], [0, 0, 3], [0, 0, 0]])
    mask = weight[..., None].expand(3, 3, 2)
    # right: 1 of 1 + 1 in the first trial, 3 of 3 in the second; the third does not count
    assert rs.accuracy(outputs, targets, mask) == pytest.approx(4 / 5)
    # the last step that counts is wrong in the first trial, right in the second
    assert rs.accuracy(outputs, targets, mask, last=True) == pytest.approx(1 / 2)
    for last in (False, True):
        with pytest.raises(rs.InputError, match="mask must be above 0 in at least one time step"):
            rs.accuracy(outputs, targets, 0 * mask, last=last)


def network(**options):
    return rs.RateRNN.initialize(FLIPFLOP, hidden_size=12, gain=0.9, rng=0, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_evaluate_is_the_loss_of_the_outputs(dtype):
    trials, net = FLIPFLOP.sample(5, rng=1), network(dtype=dtype)
    before = net.snapshot().state_dict()
    with torch.no_grad():
        z = net(trials.inputs).double()
    expected = 0.5 * (trials.mask * (z - trials.targets) ** 2).sum() / trials.mask.sum()
    loss = rs.evaluate(net, trials)
    assert isinstance(loss, float)
    assert loss == pytest.approx(float(expected), rel=1e-6 if dtype == torch.float32 else 1e-12)
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(w, before[name]) for name, w in net.state_dict().items())
    assert torch.is_grad_enabled()
    with pytest.raises(rs.InputError, match="one shape"):
        rs.evaluate(net, rs.Trials(trials.inputs, trials.targets[..., :1], trials.mask[..., :1]))


def test_evaluate_draws_the_noise_from_rng():
    trials, noisy = FLIPFLOP.sample(5, rng=1), network(noise_std=0.5)
    assert rs.evaluate(noisy, trials, rng=1) == rs.evaluate(noisy, trials, rng=1) != rs.evaluate(noisy, trials, rng=2)
    rng = np.random.default_rng(0)
    rs.evaluate(network(), trials, rng=rng)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def weighted(outputs, targets, mask):
    return 3 * rs.squared_loss(outputs, targets, mask)


def trained(epochs=3, **options):
    net = rs.RateRNN.initialize(Classes(), 12, rng=0)
    before = net.snapshot()
    return before, net, rs.train(net, Classes(), epochs, 0, batch_size=8, **options)


def test_the_option_overrides_the_loss_of_the_task():
    losses = [
        trained(loss=loss)[2].losses for loss in (None, "cross_entropy", rs.cross_entropy_loss, "squared", weighted)
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    np.testing.assert_array_equal(losses[0], losses[2])
    np.testing.assert_allclose(losses[4][0], 3 * losses[3][0], rtol=1e-6)
    assert losses[3][0] != losses[0][0]
    with pytest.raises(rs.InputError, match=r"loss must be one of .* \(did you mean 'cross_entropy'\?\)"):
        trained(loss="cross-entropy")


@pytest.mark.parametrize(
    ("value", "got"), [(lambda z, *_: z, r"a tensor of shape \(8, 8, 2\)"), (lambda *_: 0.5, "float")]
)
def test_a_users_loss_has_to_be_a_scalar(value, got):
    with pytest.raises(rs.InputError, match=f"loss must return a scalar tensor, got {got}"):
        trained(1, loss=value)


def test_training_and_every_measurement_use_the_loss():
    before, after, history = trained(60, learning_rate=0.02)
    trials = Classes().sample(64, np.random.default_rng(1))
    first = Classes().sample(8, np.random.default_rng(0))
    outputs = after(trials.inputs).detach()
    expected = float(rs.cross_entropy_loss(outputs, trials.targets, trials.mask))
    assert history.losses[0] == rs.evaluate(before, first, loss="cross_entropy") == pytest.approx(np.log(2), rel=0.1)
    assert rs.evaluate(after, trials, loss="cross_entropy") == pytest.approx(expected)
    assert expected < 0.05 * history.losses[0]
    assert rs.accuracy(outputs, trials.targets, trials.mask) == 1
    losses = rs.truncation_curve(before, after, trials, ranks=[0, 12], loss="cross_entropy").scores
    assert losses[1] == pytest.approx(expected, rel=1e-3)
    squared = rs.truncation_curve(before, after, trials, ranks=[12]).scores
    assert squared[0] == pytest.approx(rs.evaluate(after, trials), rel=1e-3)
    shuffled = [rs.lowrank.shuffled_loss(before, after, trials, 0, loss) for loss in ("squared", "cross_entropy")]
    assert shuffled[0] != pytest.approx(shuffled[1], rel=0.01)
