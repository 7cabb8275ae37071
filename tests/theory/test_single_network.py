"""The theory of one given network, beside that network: its whole matrix, trained step by step."""

import functools

import numpy as np
import pytest
import torch
from linear_cases import (
    agree,
    gradient_descent,
    largest_real_eigenvalue,
    random_network,
    readout_of_shuffled,
    resolvent,
    singular_values,
)
from scipy.integrate import solve_ivp

import rankscope as rs
from rankscope.errors import InputError
from rankscope.theory import InfiniteWidth, SingleNetwork
from rankscope.theory.single_network import spectral_radius


def theory_of(N, gain, seed, target, accuracy=1e-8):
    W0, m, w = random_network(N, gain, seed)
    return (W0, m, w), SingleNetwork(W0, m, w, target, accuracy)


CASES = [
    # N, gain, target: the first few are so small that the theory takes the whole matrix.
    (2, 0.5, 1.0),
    (16, 0.6, -1.0),
    (60, 0.0, 2.0),
    (100, 0.8, -1.0),
]


@pytest.mark.parametrize(("N", "gain", "target"), CASES)
def test_descent_is_what_the_network_does(N, gain, target):
    step = 0.8
    (W0, m, w), theory = theory_of(N, gain, seed=3, target=target)
    rate, epochs = step * theory.stable_learning_rate, 40
    found = theory.descend(rate, epochs)
    edge = min(1.03 * spectral_radius(W0), (1 + spectral_radius(W0)) / 2)
    for epoch, (W, z, gradient) in enumerate(gradient_descent(W0, m, w, target, rate, epochs)):
        at = found.isel(tau=epoch)
        assert float(at["readout"]) == pytest.approx(z.item(), abs=1e-7 * abs(target))
        assert float(at["gradient_norm"]) == pytest.approx(np.linalg.norm(gradient), rel=1e-6)
        assert float(at["loss"]) == pytest.approx((target - z.item()) ** 2 / 2, rel=1e-6, abs=1e-12)
        if epoch % 13 == 0:
            s = singular_values(W - W0)
            np.testing.assert_allclose(at["singular_value"], s[: at.sizes["singular_index"]], atol=1e-7)
            assert float(at["change_norm"]) == pytest.approx(np.linalg.norm(s), abs=1e-7)
            assert float(at["outlier"]) == pytest.approx(largest_real_eigenvalue(W, edge), abs=1e-6, nan_ok=True)
    np.testing.assert_allclose(found["tau"], rate * np.arange(epochs))
    np.testing.assert_array_equal(found["epoch"], np.arange(epochs))


@pytest.mark.parametrize(("N", "gain", "target"), CASES)
def test_the_flow_is_what_the_network_does(N, gain, target):
    (W0, m, w), theory = theory_of(N, gain, seed=4, target=target)
    half = theory.convergence_time(0.25)

    def velocity(_, W):
        R = resolvent(W.reshape(N, N))
        a, b = R @ m, R.T @ w
        return ((target - (w.T @ a).item()) * b @ a.T).ravel()

    W = solve_ivp(velocity, (0, half), W0.ravel(), method="DOP853", rtol=1e-9, atol=1e-11).y[:, -1].reshape(N, N)
    at = theory.solve([half]).isel(tau=0)
    assert float(at["readout"]) == pytest.approx((w.T @ resolvent(W) @ m).item(), abs=1e-6 * abs(target))
    np.testing.assert_allclose(at["singular_value"], singular_values(W - W0)[: at.sizes["singular_index"]], atol=1e-7)
    assert float(at["gradient_norm"]) == pytest.approx(np.linalg.norm(velocity(0, W.ravel())), rel=1e-5)


@pytest.mark.parametrize(("gain", "cosine", "target"), [(0.6, -0.7, 2.0), (0.0, 1.0, 2.0)])
def test_input_and_output_may_point_the_same_way(gain, cosine, target):
    W0, m, w = random_network(80, gain, seed=5)
    w = w - m * (m.T @ w)
    w = cosine * m + (1 - cosine**2) ** 0.5 * w / np.linalg.norm(w)
    theory = SingleNetwork(W0, m, w, target)
    rate = 0.3 * theory.stable_learning_rate
    found = theory.descend(rate, 30)
    trained = list(gradient_descent(W0, m, w, target, rate, 30))
    np.testing.assert_allclose(found["readout"], [z.item() for _, z, _ in trained], atol=1e-8)
    W = trained[-1][0]
    s = singular_values(W - W0)
    np.testing.assert_allclose(found["singular_value"][-1], s[: found.sizes["singular_index"]], atol=1e-8)
    edge = 1.03 * spectral_radius(W0)
    assert float(found["outlier"][-1]) == pytest.approx(largest_real_eigenvalue(W, edge), abs=1e-6, nan_ok=True)


@pytest.mark.parametrize(("gain", "target", "rate"), [(0.6, 1.0, 0.009)])
def test_a_trained_network_follows_it(gain, target, rate):
    # The paper's own learning rates; gradient descent through all steps of the trial, in single precision.
    task = rs.tasks.FixedPoint(target=target, duration=81)
    network = rs.RateRNN.initialize(
        task, hidden_size=256, gain=gain, rng=1, nonlinearity="identity", trained=("recurrent",)
    )
    theory = SingleNetwork.of(network, target)
    rate, epochs = rate * (1 - gain**2) ** 2, 90
    steps = theory.descend(rate, epochs)
    assert not steps["outlier"][-1] > 0.9
    history = rs.train(
        network,
        task,
        epochs=epochs,
        rng=0,
        optimizer="sgd",
        learning_rate=rate,
        batch_size=1,
        recorded_epochs=[epochs - 1],
    )
    np.testing.assert_allclose(history.losses**0.5, steps["loss"] ** 0.5, atol=0.01 * target / 2**0.5)
    np.testing.assert_allclose(
        history.gradient_norms, steps["gradient_norm"], atol=0.01 * float(steps["gradient_norm"].max())
    )
    s = history.singular_values[-1, :2]
    np.testing.assert_allclose(s, steps["singular_value"][-1, :2], rtol=0.01)


@functools.cache
def shuffled_many_times(gain, target, shuffles=200, N=200):
    (W0, m, w), theory = theory_of(N, gain, seed=6, target=target)
    rate, epochs = 0.5 * theory.stable_learning_rate, 60
    *_, (W, _, _) = gradient_descent(W0, m, w, target, rate, epochs)
    rng = np.random.default_rng(0)
    readouts = np.array([readout_of_shuffled(W0, W, m, w, rng).item() for _ in range(shuffles)])
    initial = (target - (w.T @ resolvent(W0) @ m).item()) ** 2
    return readouts, initial, float(theory.descend(rate, epochs)["shuffled_loss"][-1])


@pytest.mark.parametrize(("gain", "target"), [(0.3, 2.0), (0.6, 1.0)])
def test_loss_after_shuffle_is_that_of_many_shuffles(gain, target):
    readouts, initial, predicted = shuffled_many_times(gain, target)
    # The theory has the loss of the mean readout; one shuffle scatters about it by 1 / sqrt(N).
    scatter = readouts.var(ddof=1)
    assert scatter < 4 / (200 * (1 - gain**2))
    agree((target - readouts) ** 2 / initial, predicted + scatter / initial, resolution=2 / 200)
    # It can be told from no change, and from a change that is all kept.
    assert 0.01 < predicted < 0.95


@pytest.mark.parametrize(("gain", "target"), [(0.6, 2.0)])
def test_networks_are_on_average_as_if_infinitely_wide(gain, target):
    N, limit = 250, InfiniteWidth(gain, target)
    theories = [theory_of(N, gain, seed, target, 1e-5)[1] for seed in range(10)]
    ends = [theory.solve([np.inf]).isel(tau=0) for theory in theories]
    expected = limit.solve([np.inf]).isel(tau=0)
    agree([theory.convergence_time() for theory in theories], limit.convergence_time(), 0.02 * limit.convergence_time())
    for name in ("change_norm", "shuffled_loss", "outlier"):
        # Near the bulk, an outlier cannot be told from it.
        if name != "outlier" or expected[name] > 1.2 * gain:
            agree([float(end[name]) for end in ends], float(expected[name]), 2 / N)
    for index in range(2):
        agree([float(end["singular_value"][index]) for end in ends], float(expected["singular_value"][index]), 1 / N)
    readouts = [theory.solve([0.0])["readout"].item() for theory in theories]
    assert np.var(readouts) == pytest.approx(1 / (1 - gain**2) / N, rel=1)


@pytest.mark.parametrize("N", [5, 60, 250])
def test_spectral_radius(N):
    for gain in (0.0, 0.5, 0.9):
        W0 = random_network(N, gain, seed=8)[0]
        exact = torch.linalg.eigvals(torch.as_tensor(W0)).abs().max().item()
        assert spectral_radius(W0) == pytest.approx(exact, rel=0.01)
    # All moduli the same: nothing for an iteration to go by.
    rotation = torch.linalg.qr(torch.as_tensor(random_network(N, 1.0, seed=8)[0])).Q.numpy()
    assert spectral_radius(0.5 * rotation) == pytest.approx(0.5, rel=0.01)


W0, m, w = random_network(20, 0.5, seed=9)


def test_a_target_that_cannot_be_learned_is_refused():
    at_rest = (w.T @ resolvent(W0) @ m).item()
    with pytest.raises(InputError, match="target must differ from the readout before learning, got"):
        SingleNetwork(W0, m, w, at_rest).solve([1.0])
    # With one vector for both, and nothing between, the readout is 1 / (1 - x): its sign cannot change.
    with pytest.raises(InputError, match=r"target must be reachable by gradient flow, got \[\[-1.0\]\]"):
        SingleNetwork(0 * W0, m, m, -1.0).solve([1.0])
