"""Fixed points and flow of networks whose fixed points are known."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from scipy.optimize import brentq
from torch import nn

import rankscope as rs
from rankscope import dynamics
from rankscope.measurements import TrainedNetwork, measure

N = 40


def rank_one(strength, u, **options):
    """W = strength u u^T / N."""
    return rs.RateRNN(u[:, None], strength * np.outer(u, u) / N, u[None] / N, **options)


@pytest.mark.parametrize("convention", ["current", "rate"])
@pytest.mark.parametrize("strength", [0.9, 1.1, 1.6])
def test_a_fixed_point_appears_where_the_strength_times_the_slope_is_one(strength, convention):
    rng = np.random.default_rng(0)
    u = rng.standard_normal(N)
    u *= np.sqrt(N) / np.linalg.norm(u)  # lambda <u^2 phi'> = lambda at zero
    network = rank_one(strength, u, convention=convention)
    found = dynamics.fixed_points(network, rng.standard_normal((30, N)))
    assert (found.residuals < 1e-8).all()
    assert found.starts.sum() == 60

    def balance(kappa):
        return strength * np.mean(u * np.tanh(kappa * u)) - kappa

    if strength < 1:
        np.testing.assert_allclose(found.states, np.zeros((1, N)), atol=1e-8)
        assert found.stable.all()
        return
    kappa = brentq(balance, 1e-3, 10)
    if convention == "current":
        states = [np.zeros(N), kappa * u, -kappa * u]
        slope = np.mean(u**2 / np.cosh(kappa * u) ** 2)
    else:
        states = [np.zeros(N), np.tanh(kappa * u), -np.tanh(kappa * u)]
        slope = np.mean(u**2 / np.cosh(kappa * u) ** 2)
    assert len(found.states) == 3
    for expected in states:
        at = np.abs(found.states - expected).max(1).argmin()
        np.testing.assert_allclose(found.states[at], expected, atol=1e-7)
        moves = strength * (1.0 if not expected.any() else slope)
        np.testing.assert_allclose(found.multipliers[at, 0], 0.5 + 0.5 * moves, atol=1e-7)
        assert found.stable[at] == (moves < 1)


def test_the_field_of_a_network_of_that_rank_is_the_mean_field_dynamics():
    rng = np.random.default_rng(1)
    u = rng.standard_normal(N)
    before, after = rank_one(0.0, u), rank_one(1.5, u, dt=0.25)
    one = dynamics.flow(before, after, rs.tasks.FlipFlop(channels=1, duration=10, dt=0.25), count=1, points=9)
    kappa = one.flow_kappa.values[0]
    d = u / np.linalg.norm(u) * np.sign(u.sum())
    expected = [-k + 1.5 * (u @ np.tanh(k * np.sqrt(N) * d)) * (u @ d) / N**1.5 for k in kappa]
    np.testing.assert_allclose(one.flow_velocity.values[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(one.flow_share, 1, atol=1e-6)
    assert float(one.stable_fixed_points_found) == 2


class Own(nn.Module):
    """h + (h - h^3) / 4 for each unit: 3^2 fixed points of which 2^2 are stable."""

    initial_state = torch.zeros(2)

    def step(self, state, inputs=None):
        return state + (state - state**3) / 4


def test_any_network_with_steps_has_its_fixed_points_found():
    starts = np.stack(np.meshgrid(*[np.linspace(-1.3, 1.3, 5)] * 2), -1).reshape(-1, 2)
    found = dynamics.fixed_points(Own(), starts, settling=0)
    assert len(found.states) == 9
    np.testing.assert_allclose(np.sort(found.states, 0), np.repeat([-1, 0, 1], 3)[:, None] * [1, 1], atol=1e-8)
    assert found.stable.sum() == 4
    np.testing.assert_array_equal(found.stable, (np.abs(found.states) > 0.5).all(1))
    for kind in ("gru", "lstm"):
        network = rs.GatedRNN.initialize(rs.tasks.FlipFlop(), kind=kind, hidden_size=4, rng=0)
        own = dynamics.fixed_points(network, inputs=[0.3, -0.2])
        h = torch.as_tensor(own.states, dtype=torch.float64)
        moved = network.double().step(h, torch.tensor([0.3, -0.2], dtype=torch.float64))
        assert float((moved - h).detach().abs().max()) < 1e-8
    with pytest.raises(rs.InputError, match="step"):
        dynamics.fixed_points(nn.Linear(2, 2), starts)


def test_the_flow_is_measured_and_drawn():
    task = rs.tasks.FlipFlop(duration=15)
    network = rs.RateRNN.initialize(task, hidden_size=20, gain=0.5, rng=0)
    before = network.snapshot()
    history = rs.train(network, task, epochs=10, rng=0)
    found = measure(TrainedNetwork(before, network, task, history), ["flow"])
    assert found.flow_velocity.shape == (21, 21, 2)
    # Zeros of the field are fixed points of the whole network: the origin is the middle of the grid.
    np.testing.assert_allclose(found.flow_velocity.values[10, 10], 0, atol=1e-9)
    figure = rs.figures.flow(found)
    assert figure.axes[0].get_xlabel() == r"$\kappa_1$"
    assert isinstance(rs.plot.flow(dynamics.flow(before, network, task, count=1, points=5)), Axes)
    several = found.expand_dims(gain=[0.0, 1.0])
    with pytest.raises(rs.InputError, match="one network"):
        rs.figures.flow(several)
