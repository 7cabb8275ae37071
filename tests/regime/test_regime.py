"""Meters of the regime: closed forms, an explicit Jacobian, and the measurements of a job."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.func import jacrev

import rankscope as rs
from rankscope import regime
from rankscope.networks.parameters import PARAMETERS
from rankscope.networks.recurrence import Weights, plain
from rankscope.tasks import FlipFlop

TASK = FlipFlop(duration=8.0)


def trained(epochs=20, task=TASK, **options):
    network = rs.RateRNN.initialize(task, hidden_size=7, gain=0.9, rng=0, dtype=torch.float64, **options)
    before = network.snapshot()
    rs.train(network, task, epochs, rng=1, batch_size=8, learning_rate=0.02)
    return before, network


def centered(rng, samples, N):
    """Samples whose covariance is the identity, exactly."""
    X = rng.standard_normal((samples, N))
    return np.linalg.qr(X - X.mean(0))[0] + 3.0


def test_isotropic_activity_and_orthonormal_outputs_give_the_alignments_of_theory():
    rng = np.random.default_rng(0)
    N, D = 20, 3
    w = rng.standard_normal((D, N))
    found = regime.alignment(centered(rng, 200, N), w)
    assert (found.rho, found.bound, found.variance_ratio) == pytest.approx((N**-0.5, N**-0.5, 1.0))
    Q = np.linalg.qr(rng.standard_normal((N, D)))[0]
    inside = regime.alignment(centered(rng, 100, D) @ Q.T, Q.T)
    assert (inside.rho, inside.bound, inside.null) == pytest.approx((D**-0.5, D**-0.5, N**-0.5))


def test_random_outputs_have_the_null_of_the_alignment_and_of_the_variance_ratio():
    rng = np.random.default_rng(1)
    N, D = 12, 2
    X = rng.standard_normal((300, N)) * np.geomspace(1, 0.05, N)
    found = [regime.alignment(X, np.linalg.qr(rng.standard_normal((N, D)))[0].T) for _ in range(2000)]
    ratios = [one.variance_ratio for one in found]
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)
    assert np.std(ratios) == pytest.approx(found[0].variance_ratio_std, rel=0.05)
    assert np.mean([one.rho**2 for one in found]) == pytest.approx(1 / N, rel=0.05)
    assert max(one.rho for one in found) <= found[0].bound


def test_dimensions_of_a_known_spectrum():
    rng = np.random.default_rng(2)
    X = centered(rng, 300, 4) * np.sqrt([6.0, 3.0, 0.6, 0.4])
    found = regime.dimensions(X, X[:, [3]])
    assert found == pytest.approx((2, 4, 100 / 45.52))
    assert regime.dimensions(X, X[:, [0, 1]]).fit == 2
    assert regime.dimensions(X, X[:, [0]]).fit == 1
    assert math.isnan(regime.dimensions(np.ones((5, 3)), np.ones((5, 1))).variance)


def test_the_null_of_representations_is_the_mean_over_permutations():
    rng = np.random.default_rng(3)
    H0, H = rng.standard_normal((5, 3)) + 1, rng.standard_normal((5, 4)) + 0.5
    found = regime.representation_alignment(H0, H)
    all_of_them = [
        regime.representation_alignment(H0, H[list(order)]).value for order in itertools.permutations(range(5))
    ]
    assert found.null == pytest.approx(np.mean(all_of_them))
    assert regime.representation_alignment(H0, 3 * H0 @ np.linalg.qr(rng.standard_normal((3, 3)))[0]).value == (
        pytest.approx(1)
    )


def explicit_kernel(network, trials, parts):
    """K = J J^T of the outputs that count, from a Jacobian by autograd."""
    own = dict(zip(PARAMETERS, network.weights, strict=True))
    given = {part: own[part].detach() for part in parts}
    fixed = {part: None if weight is None else weight.detach() for part, weight in own.items()}

    def outputs(chosen):
        weights = Weights(*(fixed | chosen).values())
        return plain(trials.inputs.double(), weights, network.dynamics).outputs[trials.mask != 0]

    J = torch.cat([one.flatten(1) for one in jacrev(outputs)(given).values()], 1)
    return J @ J.t()


@pytest.mark.parametrize(
    ("parts", "options"),
    [
        (("recurrent",), {}),
        (("input", "recurrent", "output"), {"readout_nonlinearity": "identity"}),
        (("input", "recurrent", "output", "bias", "initial_state"), {"convention": "rate", "nonlinearity": "softplus"}),
        (("recurrent", "tau"), {}),
    ],
)
def test_the_kernel_alignment_is_that_of_an_explicit_jacobian(parts, options):
    before, after = trained(trained=parts, **options)
    trials = TASK.sample(4, 5)
    found = regime.kernel_alignment(before, after, trials)
    K0, K = (explicit_kernel(network, trials, parts) for network in (before, after))
    expected = float((K0 * K).sum() / (K0.norm() * K.norm()))
    assert found.exact
    assert expected < 0.99
    assert found.value == pytest.approx(expected, rel=1e-10)


def test_random_vectors_estimate_the_kernel_alignment():
    before, after = trained(40)
    trials = TASK.sample(60, 5)
    exact = regime.kernel_alignment(before, after, trials, probes=20)
    estimates = [regime.kernel_alignment(before, after, trials, probes=2, rng=seed) for seed in range(8)]
    assert exact.exact
    assert not any(one.exact for one in estimates)
    values = [one.value for one in estimates]
    assert np.mean(values) == pytest.approx(exact.value, abs=2.5 * np.std(values) / math.sqrt(8))
    assert np.std(values) < 2 * np.mean([one.error for one in estimates])


def test_a_kernel_stays_where_only_the_readout_of_a_linear_network_learns():
    before, after = trained(trained=("output",), nonlinearity="identity")
    assert not torch.equal(before.output_weights, after.output_weights)
    assert regime.kernel_alignment(before, after, TASK).value == pytest.approx(1, abs=1e-12)
    assert regime.kernel_alignment(before, after, TASK, ["recurrent"]).value < 1 - 1e-6


def test_connections_that_do_not_exist_do_not_count():
    before, after = trained(density=0.4)
    trials = TASK.sample(3, 5)
    mask = (after.recurrent_weights != 0).flatten()

    def kernel(network):
        W = network.recurrent_weights.detach()

        def outputs(entries):
            weights = [one if one is None else one.detach() for one in network.weights]
            weights[1] = W.flatten().index_put((mask.nonzero()[:, 0],), entries).view(W.shape)
            return plain(trials.inputs.double(), Weights(*weights), network.dynamics).outputs[trials.mask != 0]

        J = jacrev(outputs)(W.flatten()[mask])
        return J @ J.t()

    K0, K = kernel(before), kernel(after)
    expected = float((K0 * K).sum() / (K0.norm() * K.norm()))
    assert regime.kernel_alignment(before, after, trials, ["recurrent"]).value == pytest.approx(expected, rel=1e-10)


def test_noise_adds_the_loss_of_its_variance_along_the_outputs_alone():
    N, dt, steps = 10, 0.1, 200
    e = np.eye(N)
    network = rs.RateRNN(e[:, :1], np.zeros((N, N)), e[1:2] * 2, dt=dt, nonlinearity="identity")
    inputs = torch.sin(torch.arange(steps) / 7.0).expand(400, 1, steps).transpose(1, 2)
    trials = rs.Trials(inputs, torch.zeros_like(inputs), torch.ones_like(inputs))
    size = 0.5
    found = regime.noise_loss(network, trials, size)
    assert (found.without, found.silent, found.components) == pytest.approx((0, 0, 0), abs=1e-12)
    states = network(inputs, return_states=True)[1].detach().double().flatten(0, 1)
    sigma = size * float((states - states.mean(0)).square().sum(1).mean().sqrt())
    # h[t+1] = (1 - dt) h[t] + sqrt(dt) sigma xi, from 0.
    decay = (1 - dt) ** (2 * np.arange(1, steps + 1))
    variance = sigma**2 * dt * np.mean(1 - decay) / (1 - (1 - dt) ** 2)
    assert found.outputs == pytest.approx(0.5 * 4 * variance, rel=0.02)


def test_the_meters_are_measurements_of_a_job():
    names = ["activity", "kernel", "noise"]
    job = rs.Job(
        task={"name": "flipflop", "duration": 12.0},
        network={"hidden_size": 12, "output_norm": 1.0},
        training={"epochs": 3},
        measurements=names,
    )
    done = job.run()
    found = done.measurements
    again = job.measure(done.before, done.after, found, tuple(names))
    for name in ("output_alignment", "fit_dimension", "kernel_alignment", "representation_alignment"):
        assert 0 <= float(found[name]) <= 12
        assert again[name].identical(found[name])
    assert float(found.output_alignment) <= float(found.output_alignment_bound)
    assert float(found.output_noise_loss) > float(found.random_noise_loss) > 0
    with pytest.raises(rs.InputError, match=r"kernel.*rate network"):
        rs.Job(task="flipflop", network={"kind": "gru"}, measurements=["kernel"]).check()
    gated = rs.Job(
        task={"name": "flipflop", "duration": 8.0},
        network={"kind": "gru", "hidden_size": 5},
        training={"epochs": 2},
        measurements=["activity"],
    )
    assert float(gated.run().measurements.participation_ratio) <= 5
