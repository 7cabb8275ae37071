"""The loss: the formula, what the mask hides, and evaluating without learning."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rankscope as rs
from rankscope.errors import InputError
from rankscope.tasks import FlipFlop


def test_by_hand():
    outputs = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    targets = torch.tensor([[[0.0, 2.0], [1.0, 100.0]]])
    mask = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    # errors 1, 0, 2 count: 1/2 (1 + 0 + 4) / 3
    assert float(rs.squared_loss(outputs, targets, mask)) == pytest.approx(5 / 6)
    weights = torch.tensor([[[2.0, 0.5], [1.0, 0.0]]])
    assert float(rs.squared_loss(outputs, targets, weights)) == pytest.approx(0.5 * (2 * 1 + 0 + 4) / 3.5)


def some_batch(seed, shape=(3, 4, 2)):
    rng = np.random.default_rng(seed)
    outputs, targets = (torch.as_tensor(rng.normal(size=shape)) for _ in range(2))
    mask = torch.as_tensor(rng.integers(0, 2, size=shape).astype(float))
    mask[0, 0, 0] = 1
    return outputs, targets, mask


@given(st.integers(0, 10**6), st.sampled_from([0.0, 1e30, torch.inf, torch.nan]))
def test_what_the_mask_hides_never_matters(seed, anything):
    outputs, targets, mask = some_batch(seed)
    hidden = torch.where(mask == 0, anything, targets)
    gradients = []
    losses = []
    for wanted in (targets, hidden):
        z = outputs.clone().requires_grad_()
        loss = rs.squared_loss(z, wanted, mask)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(z.grad)
    assert torch.equal(*losses)
    assert torch.equal(*gradients)
    expected = mask * (outputs - targets) / mask.sum()
    torch.testing.assert_close(gradients[1], expected)


@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_scaling(seed, c):
    outputs, targets, mask = some_batch(seed)
    loss = rs.squared_loss(outputs, targets, mask)
    torch.testing.assert_close(rs.squared_loss(c * outputs, c * targets, mask), c**2 * loss)
    torch.testing.assert_close(rs.squared_loss(outputs, targets, c * mask), loss)
    twice = [torch.cat([x, x]) for x in (outputs, targets, mask)]
    torch.testing.assert_close(rs.squared_loss(*twice), loss)


@pytest.mark.parametrize("shapes", [((2, 3, 1), (2, 3, 2), (2, 3, 2)), ((2, 3, 2), (2, 3, 2), (2, 3, 1))])
def test_shapes_that_would_broadcast_are_refused(shapes):
    with pytest.raises(InputError, match=r"must have one shape \(batch, time, out\), got \(2, 3, "):
        rs.squared_loss(*(torch.ones(shape) for shape in shapes))


def network(**options):
    return rs.RateRNN.initialize(FlipFlop(), hidden_size=12, gain=0.9, rng=0, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_evaluate_is_the_loss_of_the_outputs(dtype):
    trials, net = FlipFlop().sample(5, rng=1), network(dtype=dtype)
    with torch.no_grad():
        z = net(trials.inputs).double()
    expected = 0.5 * (trials.mask * (z - trials.targets) ** 2).sum() / trials.mask.sum()
    loss = rs.evaluate(net, trials)
    assert isinstance(loss, float)
    assert loss == pytest.approx(float(expected), rel=1e-6 if dtype == torch.float32 else 1e-12)


def test_evaluate_leaves_nothing_behind():
    trials, net = FlipFlop().sample(5, rng=1), network()
    before = {name: w.clone() for name, w in net.state_dict().items()}
    rs.evaluate(net, trials)
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(w, before[name]) for name, w in net.state_dict().items())
    assert torch.is_grad_enabled()


def test_evaluate_draws_the_noise_from_rng():
    trials, noisy = FlipFlop().sample(5, rng=1), network(noise_std=0.5)
    assert rs.evaluate(noisy, trials, rng=1) == rs.evaluate(noisy, trials, rng=1) != rs.evaluate(noisy, trials, rng=2)
    rng = np.random.default_rng(0)
    quiet = np.random.default_rng(0)
    rs.evaluate(network(), trials, rng=quiet)
    assert quiet.bit_generator.state == rng.bit_generator.state


def test_trials_of_another_task_are_refused():
    trials = FlipFlop().sample(2, rng=0)
    one_output = rs.Trials(trials.inputs, trials.targets[..., :1], trials.mask[..., :1])
    with pytest.raises(InputError, match="one shape"):
        rs.evaluate(network(), one_output)
