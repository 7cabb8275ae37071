"""The hand-written gradient equals autograd's."""

import copy

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.training.constrained_gradient import ConstrainedGradient
from rankscope.training.loss import squared_loss
from rankscope.training.manual_gradient import ManualGradient

CASES = {
    "paper": {},
    "bias and initial state": {"trained": ("input", "recurrent", "output", "bias", "initial_state")},
    "recurrent only": {"trained": ("recurrent",)},
    "output only": {"trained": ("output",)},
    "noise": {"noise_std": 0.1},
    "softplus": {"nonlinearity": "softplus"},
    "relu": {"nonlinearity": "relu"},
    "linear readout": {"readout_nonlinearity": "identity"},
}


def network(task, dtype=torch.float32, hidden_size=32, **options):
    return rs.RateRNN.initialize(task, hidden_size=hidden_size, gain=0.9, rng=0, dtype=dtype, **options)


def by_autograd(net, trials, rng):
    net.zero_grad(set_to_none=True)
    outputs = net(trials.inputs, rng=rng)
    loss = squared_loss(outputs, trials.targets.to(outputs), trials.mask.to(outputs))
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in net.named_parameters() if p.requires_grad}
    return float(loss.detach()), gradients


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["flipflop", "romo"])  # romo: no input in the first steps
def test_equals_autograd(name, case, dtype):
    task = rs.tasks.make(name)
    net, trials = network(task, dtype, **CASES[case]), task.sample(5, rng=1)
    if name == "romo":
        # targets and a mask where the network is still silent, too
        trials = rs.Trials(trials.inputs, trials.targets + 0.5, torch.rand(trials.mask.shape))
    loss, gradients = by_autograd(net, trials, np.random.default_rng(3))
    found, norm = ManualGradient(net).loss_and_norm(trials, np.random.default_rng(3))
    assert found == pytest.approx(loss, rel=1e-6 if dtype == torch.float32 else 1e-13)
    for part, wanted in gradients.items():
        close = 1e-5 if dtype == torch.float32 else 1e-13
        assert (getattr(net, part).grad - wanted).norm() <= close * wanted.norm(), part
    squares = sum(float(g.double().square().sum()) for g in gradients.values())
    assert float(norm) == pytest.approx(squares**0.5, rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"dale": 0.75, "density": 0.5},
        {"rank": 2, "trained": ("recurrent", "bias"), "noise_std": 0.1},
        {"gamma": 3.0, "trained": ("output",)},
        {"dale": 0.75, "density": 0.5, "rank": 2, "gamma": 0.5},
    ],
)
def test_gradients_through_constraints_equal_autograds(options):
    task = rs.tasks.FlipFlop(duration=12)
    net = network(task, torch.float64, 16, **options)
    assert ConstrainedGradient.fits(net, squared_loss)
    assert not ManualGradient.fits(net, squared_loss)
    constrained = ConstrainedGradient(net)
    for seed in range(2):  # the second after a step: memory is shared
        trials = task.sample(5, rng=seed)
        twin = copy.deepcopy(net)
        loss, gradients = by_autograd(twin, trials, np.random.default_rng(3))
        found, norm = constrained.loss_and_norm(trials, np.random.default_rng(3))
        assert found == pytest.approx(loss, rel=1e-12)
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-10, atol=1e-14)
        assert norm == pytest.approx(sum(float(g.square().sum()) for g in gradients.values()) ** 0.5)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.sub_(0.1 * parameter.grad if parameter.requires_grad else 0.0)


def test_hooks_on_constraints_are_not_skipped():
    net = network(rs.tasks.FlipFlop(duration=12), dale=0.75)
    net.parametrizations.recurrent_weights[0].register_forward_hook(lambda *_: None)
    assert not ConstrainedGradient.fits(net, squared_loss)


def test_the_second_batch_may_have_another_shape():
    task = rs.tasks.FlipFlop(duration=15)
    net = network(task)
    direct = ManualGradient(net)
    for size, longer in ((4, 15), (7, 15), (4, 20), (4, 15)):
        trials = rs.tasks.FlipFlop(duration=longer).sample(size, rng=size)
        wanted, gradients = by_autograd(copy.deepcopy(net), trials, 0)
        loss, _ = direct.loss_and_norm(trials, 0)
        assert loss == pytest.approx(wanted, rel=1e-6)
        for part, gradient in gradients.items():
            assert (getattr(net, part).grad - gradient).norm() <= 1e-5 * gradient.norm(), part


def test_a_target_without_mask_may_be_anything():
    task = rs.tasks.Romo()
    net, trials = network(task), task.sample(3, rng=0)
    targets = torch.where(trials.mask == 0, torch.nan, trials.targets)
    plain, odd = (
        ManualGradient(net).loss_and_norm(trials, 0)[0],
        ManualGradient(net).loss_and_norm(rs.Trials(trials.inputs, targets, trials.mask), 0),
    )
    assert odd[0] == plain
    assert np.isfinite(odd[1])


def test_networks_that_it_fits():
    task = rs.tasks.FlipFlop()
    net = network(task)
    assert ManualGradient.fits(net, squared_loss)
    assert not ManualGradient.fits(net, lambda outputs, targets, mask: squared_loss(outputs, targets, mask))
    assert not ManualGradient.fits(network(task, engine="plain"), squared_loss)
    assert not ManualGradient.fits(network(task, nonlinearity=torch.sin), squared_loss)
    assert not ManualGradient.fits(network(task, convention="rate"), squared_loss)
    assert not ManualGradient.fits(rs.GatedRNN.initialize(task, hidden_size=8, rng=0), squared_loss)

    class Doubled(rs.RateRNN):
        def forward(self, inputs, **options):
            return 2 * super().forward(inputs, **options)

    assert not ManualGradient.fits(Doubled.initialize(task, hidden_size=32, rng=0), squared_loss)
    net.recurrent_weights.register_hook(lambda gradient: None)
    assert not ManualGradient.fits(net, squared_loss)
    net = network(task)
    net.register_forward_hook(lambda *_: None)
    assert not ManualGradient.fits(net, squared_loss)


def test_a_weight_that_was_fixed_by_hand_stays():
    task = rs.tasks.FlipFlop()
    net = network(task)
    net.output_weights.requires_grad_(False)
    before = net.output_weights.clone()
    rs.train(net, task, epochs=3, rng=0)
    assert torch.equal(net.output_weights, before)
