"""Learning from noise alone: closed forms, two ways of integrating, and a network that is trained."""

import numpy as np
import pytest

import rankscope as rs
from rankscope.errors import InputError
from rankscope.theory import NoisyLinear


def test_continuous_time_has_the_published_curves():
    # Schuessler et al., eLife 2024: the loss sigma^2 x^(-1/3), the eigenvalue 1 - x^(1/3) at x = 1 + 3 eta sigma^2 tau,
    # for noise of covariance 2 sigma^2 and a loss without the factor 1/2, which doubles the learning rate.
    sigma, tau = 0.7, np.array([0.0, 0.3, 4.0, 200.0])
    solution = NoisyLinear(noise_std=np.sqrt(2) * sigma).solve(tau)
    x = 1 + 3 * (tau / 2) * sigma**2
    np.testing.assert_allclose(2 * solution["loss"], sigma**2 * x ** (-1 / 3), rtol=1e-12)
    np.testing.assert_allclose(solution["eigenvalue"], 1 - x ** (1 / 3), rtol=1e-12, atol=1e-14)
    end = NoisyLinear(1.0).solve([np.inf]).isel(tau=0)
    assert float(end["loss"]) == 0


@pytest.mark.parametrize("dt", [1e-4, 0.2, 0.5, 0.8])
def test_discrete_time_agrees_with_the_integral_of_its_inverse_speed(dt):
    theory = NoisyLinear(noise_std=1.3, dt=dt, output_norm=0.6)
    tau = np.array([0.0, 1.0, 5.0, 20.0])
    x = 1 - theory.solve(tau)["eigenvalue"].values

    # With y = 1 - dt x the flow has the closed form ln y - y^2 + y^4 / 4 = const - dt^3 sigma^2 |w|^2 tau.
    def left(x):
        y = 1 - dt * x
        return np.log(y) - y**2 + y**4 / 4

    scale = dt**3 * 1.3**2 * 0.6**2
    np.testing.assert_allclose(left(1.0) - left(x), scale * tau, rtol=1e-6, atol=1e-3 * scale)
    # Small steps of descent follow the flow, and learning ends where a step forgets the state.
    descent = theory.descend(0.001, 1001)
    assert float(descent["eigenvalue"][-1]) == pytest.approx(1 - x[1], rel=2e-3)
    end = theory.solve([np.inf])
    assert float(end["loss"][0]) == pytest.approx(0.6**2 * 1.3**2 * dt / 2)


def test_a_network_learns_it():
    N, noise_std, rate, epochs = 24, 1.0, 0.5, 60
    w = np.random.default_rng(1).standard_normal((1, N))
    network = rs.RateRNN(
        np.zeros((N, 1)),
        np.zeros((N, N)),
        w / np.linalg.norm(w),
        nonlinearity="identity",
        noise_std=noise_std,
        trained=("recurrent",),
    )
    task = rs.tasks.FixedPoint(target=0.0, duration=12, loss_window=6)
    history = rs.train(network, task, epochs, rng=0, optimizer="sgd", learning_rate=rate, batch_size=1000)
    predicted = NoisyLinear(noise_std, dt=0.5).descend(rate, epochs + 1)
    # 12 dependent samples in 1000 trials: a scatter of 2 % from epoch to epoch.
    np.testing.assert_allclose(history.losses, predicted["loss"].values[:-1], rtol=0.08)
    W = network.recurrent_weights.detach().numpy()
    along = (network.output_weights @ network.recurrent_weights @ network.output_weights.T).item()
    assert float(predicted["eigenvalue"][-1]) < -0.6
    assert along == pytest.approx(float(predicted["eigenvalue"][-1]), rel=0.01)
    assert along**2 > 0.95 * np.sum(W**2)


def test_an_unstable_descent_is_nan_from_there_on():
    loss = NoisyLinear(1.0, dt=0.5).descend(100.0, 5)["loss"].values
    assert np.isfinite(loss[0])
    assert np.isnan(loss[1:]).all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"noise_std": 0}, "noise_std"),
        ({"noise_std": 1, "dt": 1}, "dt"),
        ({"noise_std": 1, "output_norm": -1}, "output_norm"),
    ],
)
def test_it_refuses(arguments, named):
    with pytest.raises(InputError, match=named):
        NoisyLinear(**arguments)
