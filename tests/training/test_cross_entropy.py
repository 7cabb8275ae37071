"""Losses other than the squared one: the cross-entropy, the accuracy beside it, and one's own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rankscope as rs
from rankscope.errors import InputError
from rankscope.tasks import FlipFlop
from rankscope.training.loss import find_loss, name_of_loss


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


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_is_the_weighted_mean_of_torchs(seed):
    outputs, targets, mask = some_batch(seed)
    each = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.argmax(-1).flatten(), reduction="none")
    weight = mask[..., 0].flatten()
    expected = (weight * each).sum() / weight.sum()
    torch.testing.assert_close(rs.cross_entropy_loss(outputs, targets, mask), expected)


def test_probabilities_as_targets():
    outputs = torch.log(torch.tensor([[[0.2, 0.8]]])) + 3
    targets = torch.tensor([[[0.25, 0.75]]])
    loss = rs.cross_entropy_loss(outputs, targets, torch.ones(1, 1, 2))
    assert float(loss) == pytest.approx(-0.25 * np.log(0.2) - 0.75 * np.log(0.8))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, -7.0, torch.inf, torch.nan]))
def test_what_the_mask_hides_never_matters(seed, anything):
    outputs, targets, mask = some_batch(seed)
    losses, gradients = [], []
    for wanted in (targets, torch.where(mask == 0, anything, targets)):
        z = outputs.clone().requires_grad_()
        loss = rs.cross_entropy_loss(z, wanted, mask)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(z.grad)
    assert torch.equal(*losses)
    assert torch.equal(*gradients)
    torch.testing.assert_close(gradients[0], mask * (outputs.softmax(-1) - targets) / mask[..., 0].sum())


ONES = torch.ones(2, 3, 2)
HALVES = ONES / 2


@pytest.mark.parametrize(
    ("targets", "mask", "message"),
    [
        (ONES, ONES, "targets must be one-hot or probabilities"),
        (torch.tensor([1.5, -0.5]).expand(2, 3, 2), ONES, "targets must be one-hot or probabilities"),
        (HALVES * torch.nan, ONES, "targets must be one-hot or probabilities"),
        (HALVES, torch.tensor([1.0, 0.5]).expand(2, 3, 2), "mask must be the same for all channels"),
        (HALVES[..., :1], ONES, r"must have one shape \(batch, time, out\)"),
    ],
)
def test_what_is_not_classes_is_refused(targets, mask, message):
    with pytest.raises(InputError, match=message):
        rs.cross_entropy_loss(ONES, targets, mask)


def test_one_channel_is_no_choice():
    with pytest.raises(InputError, match="a channel for each class, two or more, got 1"):
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
        with pytest.raises(InputError, match="mask must be above 0 in at least one time step"):
            rs.accuracy(outputs, targets, 0 * mask, last=last)


def weighted(outputs, targets, mask):
    return 3 * rs.squared_loss(outputs, targets, mask)


def test_which_loss_is_meant():
    class Own:
        loss = "cross_entropy"

    assert find_loss() is find_loss("squared") is find_loss(None, FlipFlop()) is rs.squared_loss
    assert find_loss(None, Own()) is find_loss("cross_entropy") is rs.cross_entropy_loss
    assert find_loss("squared", Own()) is rs.squared_loss
    assert find_loss(rs.cross_entropy_loss) is rs.cross_entropy_loss
    assert [name_of_loss(find_loss(loss)) for loss in ("squared", "cross_entropy", weighted)] == [
        "squared",
        "cross_entropy",
        "weighted",
    ]
    with pytest.raises(
        InputError, match=r"loss must be one of .* got 'cross-entropy' \(did you mean 'cross_entropy'\?\)"
    ):
        find_loss("cross-entropy")


@pytest.mark.parametrize(
    ("value", "got"), [(lambda z, *_: z, r"a tensor of shape \(4, 8, 2\)"), (lambda *_: 0.5, "float")]
)
def test_a_loss_of_ones_own_has_to_be_a_scalar(value, got):
    network = rs.RateRNN.initialize(Classes(), 8, rng=0)
    with pytest.raises(InputError, match=f"loss must return a scalar tensor, got {got}"):
        rs.train(network, Classes(), 1, 0, batch_size=4, loss=value)


def trained(epochs=3, size=12, task=None, **options):
    network = rs.RateRNN.initialize(Classes(), size, rng=0)
    before = network.snapshot()
    return before, network, rs.train(network, task or Classes(), epochs, 0, batch_size=8, **options)


def test_training_and_every_measurement_use_it():
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
    assert squared[0] != pytest.approx(expected, rel=0.01)
    shuffled = [rs.lowrank.shuffled_loss(before, after, trials, 0, loss) for loss in ("squared", "cross_entropy")]
    assert shuffled[0] != pytest.approx(shuffled[1], rel=0.01)


def test_the_tasks_own_gives_way_to_the_one_asked_for():
    losses = [
        trained(loss=loss)[2].losses for loss in (None, "cross_entropy", rs.cross_entropy_loss, "squared", weighted)
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    np.testing.assert_array_equal(losses[0], losses[2])
    np.testing.assert_allclose(losses[4][0], 3 * losses[3][0], rtol=1e-6)
    assert losses[3][0] != losses[0][0]


@pytest.mark.parametrize("other", ["squared", weighted])
def test_a_checkpoint_of_another_loss_is_refused(tmp_path, other):
    path = tmp_path / "half"
    trained(2, checkpoint=path)
    with pytest.raises(InputError, match="belongs to a training with loss = 'cross_entropy', not "):
        trained(3, checkpoint=path, loss=other)
    np.testing.assert_array_equal(trained(3, checkpoint=path)[2].losses, trained(3)[2].losses)
