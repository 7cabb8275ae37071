"""Constrained weights: the constraint holds after training, and what is measured is the effective weight."""

import numpy as np
import pytest
import torch
from torch.nn.utils.parametrize import register_parametrization

import rankscope as rs
from rankscope.errors import InputError
from rankscope.networks import Dale, LowRank, Scaled, Sparse, matrices_of

TASK = rs.tasks.FlipFlop(duration=10)
SIGNS = np.where(np.arange(12) < 9, 1, -1)
MASK = np.random.default_rng(0).random((12, 12)) < 0.3


@pytest.mark.parametrize(
    ("constraint", "holds"),
    [
        (Dale(SIGNS), lambda W: (W * SIGNS >= 0).all()),
        (Sparse(MASK), lambda W: (W[~MASK] == 0).all()),
        (LowRank(2, around="zero"), lambda W: np.linalg.matrix_rank(W, tol=1e-5) == 2),
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
        (LowRank(2, around="zero"), W[:, :2] @ W[:2]),
        (LowRank(2), W),
    ):
        network = rs.RateRNN(np.ones((12, 1), np.float32), weights, np.ones((1, 12), np.float32))
        register_parametrization(network, "recurrent_weights", constraint)
        np.testing.assert_allclose(network.recurrent_weights.detach(), weights, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dale([1, 0]), "signs must be a vector of 1 and -1"),
        (lambda: LowRank(0), "rank must be a whole number >= 1, got 0"),
        (lambda: LowRank(1, spread=(0, 0)), "spread must be above 0 for m or for n"),
        (lambda: LowRank(1, spread=(1,)), "spread must be two numbers, of m and of n"),
        (lambda: Dale(1.0), "signs must be a finite number > 0 and < 1, got 1.0"),
        (lambda: Sparse(0.0), "mask must be a finite number > 0 and <= 1, got 0.0"),
        (lambda: rs.RateRNN.initialize(TASK, 4, dale=0.9), "dale must leave excitatory and inhibitory units among 4"),
        (lambda: rs.RateRNN.initialize(TASK, 4, density=2), "density must be a finite number > 0 and <= 1, got 2"),
        (lambda: rs.RateRNN.initialize(TASK, 4, rank=0), "rank must be a whole number >= 1"),
        (lambda: Sparse(MASK)(torch.ones(3, 3)), r"mask must have shape \(3, 3\) like the weights, got \(12, 12\)"),
        (lambda: Dale(SIGNS)(torch.ones(3, 3)), r"signs must have shape \(3,\) like the weights, got \(12,\)"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("constraints", [{"dale": 0.75}, {"density": 0.3}, {"rank": 2}, {"dale": 0.75, "density": 0.5}])
def test_constraints_of_a_job_hold_and_learn(constraints):
    job = rs.Job(task={"name": "flipflop", "duration": 10}, network={"hidden_size": 16, **constraints}, seed=2)
    plain = rs.Job(task={"name": "flipflop", "duration": 10}, network={"hidden_size": 16}, seed=2).initial_network()
    network = job.initial_network()
    np.testing.assert_array_equal(network.input_weights.detach(), plain.input_weights.detach())
    before = network.snapshot()
    rs.train(network, TASK, 20, 0, learning_rate=0.01)
    W0, W = (net.recurrent_weights.detach().numpy() for net in (before, network))
    assert np.abs(W - W0).max() > 1e-3
    if "dale" in constraints:
        assert (np.sign(W) * np.where(np.arange(16) < 12, 1, -1) >= 0).all()
        balanced = (W0 > 0).any(1) & (W0 < 0).any(1)
        assert balanced.mean() > 0.7
        np.testing.assert_allclose(W0[balanced].sum(1), 0, atol=1e-6)
    if "density" in constraints:
        assert ((W0 == 0) <= (W == 0)).all()
        assert np.mean(W == 0) == pytest.approx(1 - constraints["density"], abs=0.15)
    if "rank" in constraints:
        assert rs.change(before, network).singular_values[2] < 1e-6
        np.testing.assert_array_equal(W0, plain.recurrent_weights.detach())


@pytest.mark.parametrize("constraints", [{"dale": 0.8}, {"density": 0.2}, {"dale": 0.8, "density": 0.3}])
def test_the_gain_is_the_radius_of_the_eigenvalues(constraints):
    network = rs.RateRNN.initialize(TASK, 300, gain=0.7, rng=0, **constraints)
    eigenvalues = torch.linalg.eigvals(network.recurrent_weights.detach())
    assert float(eigenvalues.abs().max()) == pytest.approx(0.7, rel=0.2)


def test_the_gradient_through_the_engine_is_that_of_autograd():
    options = {"hidden_size": 12, "dale": 0.75, "density": 0.6, "rank": 2, "dtype": torch.float64, "rng": 0}
    trials = TASK.sample(5, rng=0)
    gradients = []
    for engine in ("fused", "plain"):
        network = rs.RateRNN.initialize(TASK, engine=engine, **options)
        rs.squared_loss(network(trials.inputs), trials.targets.double(), trials.mask.double()).backward()
        gradients.append([p.grad for p in network.parameters()])
    assert len(gradients[0]) == 4
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_weights_of_zero_learn_under_dales_law():
    network = rs.RateRNN.initialize(TASK, hidden_size=20, gain=0.0, rng=0, dale=0.8)
    before = network.snapshot()
    rs.train(network, TASK, epochs=5, rng=0)
    assert rs.change(before, network).norm > 0
    W = matrices_of(network, ["recurrent_weights"])["recurrent_weights"]
    assert (W[:, :16] >= 0).all()
    assert (W[:, 16:] <= 0).all()


def test_constraints_on_any_module():
    linear = torch.nn.Linear(10, 10)
    W = linear.weight.detach().clone()
    register_parametrization(linear, "weight", Dale(0.8, balanced=True))
    register_parametrization(linear, "weight", Sparse(0.5, rng=1))
    masked = linear.weight.detach().numpy()
    assert 0.3 < np.mean(masked == 0) < 0.7
    linear.parametrizations.weight[1].mask.fill_(1)
    full = linear.weight.detach().numpy()
    np.testing.assert_allclose(full.sum(1), 0, atol=1e-6)
    assert (full[:, :8] >= 0).all()
    assert (full[:, 8:] <= 0).all()
    assert np.linalg.norm(full) > float(W.norm())  # the variance about the means of columns is kept


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dale(np.array([1, -1, 1])),
        lambda: Sparse(np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0]])),
        lambda: LowRank(2),
        lambda: LowRank(1, around="zero"),
        lambda: Scaled(3.0),
    ],
)
def test_gradients_of_constraints(make):
    constraint, rng = make(), np.random.default_rng(0)
    parameters = constraint.right_inverse(torch.as_tensor(rng.normal(size=(3, 3))))
    parameters = parameters if isinstance(parameters, tuple) else (parameters,)
    # Away from zero, where the derivative of the magnitude is one-sided.
    moved = tuple((p + torch.as_tensor(rng.normal(size=p.shape))).requires_grad_() for p in parameters)
    assert torch.autograd.gradcheck(constraint, moved)


@pytest.mark.parametrize("optimizer", ["adam", {"name": "sgd", "momentum": 0.9}])
def test_signs_and_connections_stay_through_training_and_resume(optimizer, tmp_path):
    options = {"hidden_size": 16, "rng": 0, "dale": 0.75, "density": 0.4}
    train = {"optimizer": optimizer, "learning_rate": 0.05, "batch_size": 4, "recorded_epochs": 0}
    whole, parts = (rs.RateRNN.initialize(TASK, **options) for _ in range(2))
    W0 = whole.recurrent_weights.detach().clone()
    signs = np.where(np.arange(16) < 12, 1, -1)

    def check(state):
        W = state.network.recurrent_weights.detach()
        assert not W[W0 == 0].any()
        assert (W.numpy() * signs >= 0).all()

    rs.train(whole, TASK, 30, 1, callbacks=[check], **train)
    checkpoint = tmp_path / "state"
    rs.train(parts, TASK, 12, 1, checkpoint=checkpoint, **train)
    resumed = rs.RateRNN.initialize(TASK, **options)
    rs.train(resumed, TASK, 30, 1, callbacks=[check], checkpoint=checkpoint, **train)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert (whole.recurrent_weights - W0).abs().max() > 0.05


def test_gamma_divides_outputs_and_leads_from_lazy_to_rich():
    trials = TASK.sample(3, 0)
    plain, twice = (rs.RateRNN.initialize(TASK, 24, rng=0, **options) for options in ({}, {"gamma": 2.0}))
    torch.testing.assert_close(twice(trials.inputs) * 2, plain(trials.inputs))
    moved, aligned = [], []
    for gamma in (0.1, 1.0, 10.0):
        network = rs.RateRNN.initialize(TASK, 32, rng=0, gamma=gamma)
        before = network.snapshot()
        history = rs.train(network, TASK, 200, rng=0, stop_below=0.3)
        assert history.learning_rate == pytest.approx(0.05 / 32 * gamma)
        assert history.epochs < 200
        moved.append(rs.change(before, network).norm)
        aligned.append(rs.regime.kernel_alignment(before, network, TASK, ["recurrent"]).value)
    assert moved == sorted(moved)
    assert aligned == sorted(aligned, reverse=True)
    slow = rs.train(rs.RateRNN.initialize(TASK, 24, rng=0, gamma=2.0), TASK, 1, rng=0, optimizer="sgd")
    assert slow.learning_rate == pytest.approx(0.05 / 24 * 4)
