"""The equation: the plain engine against what can be worked out without it."""

import math

import pytest
import torch
from network_cases import CONVENTIONS, make_case, make_dynamics

from rankscope.networks import Weights, plain

both_conventions = pytest.mark.parametrize("convention", CONVENTIONS)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


def softplus(x):
    return math.log1p(math.exp(x))


@both_conventions
def test_two_steps_by_hand(convention):
    weights = Weights(
        input=column(1.0, -0.5)[:, None],
        recurrent=torch.tensor([[0.1, -0.2], [0.3, 0.4]], dtype=torch.float64),
        output=column(2.0, 1.0)[None],
        bias=column(0.05, -0.1),
        initial_state=column(0.2, -0.3),
    )
    inputs, noise = column(1.0, -2.0).reshape(1, 2, 1), torch.tensor([[[0.01, -0.02], [0.03, 0.04]]])
    run = plain(inputs, weights, make_dynamics("tanh", "softplus", convention, dt=0.25), noise.double(), True)

    h, kicks, states, outputs = (0.2, -0.3), [(0.01, -0.02), (0.03, 0.04)], [], []
    for u, (kick_1, kick_2) in zip([1.0, -2.0], kicks, strict=True):
        if convention == "current":
            r = (math.tanh(h[0]), math.tanh(h[1]))
            into_1 = 0.1 * r[0] - 0.2 * r[1] + 1.0 * u + 0.05
            into_2 = 0.3 * r[0] + 0.4 * r[1] - 0.5 * u - 0.1
        else:
            into_1 = math.tanh(0.1 * h[0] - 0.2 * h[1] + 1.0 * u + 0.05)
            into_2 = math.tanh(0.3 * h[0] + 0.4 * h[1] - 0.5 * u - 0.1)
        h = (0.75 * h[0] + 0.25 * into_1 + kick_1, 0.75 * h[1] + 0.25 * into_2 + kick_2)
        states.append(h)
        if convention == "current":
            outputs.append(2 * softplus(h[0]) + softplus(h[1]))
        else:
            outputs.append(softplus(2 * h[0] + h[1]))
    torch.testing.assert_close(run.states[0], torch.tensor(states, dtype=torch.float64))
    torch.testing.assert_close(run.outputs[0, :, 0], torch.tensor(outputs, dtype=torch.float64))


@both_conventions
def test_states_are_returned_only_if_asked_for(convention):
    case = make_case()
    run = plain(case.inputs, case.weights, make_dynamics(convention=convention))
    assert run.states is None
    assert run.outputs.shape == (3, 4, 2)


@both_conventions
def test_the_readout_sees_the_input_of_its_own_step_and_none_later(convention):
    case = make_case(steps=6, without=["noise"])
    later = case.inputs.clone()
    later[:, 3] += 1
    dynamics = make_dynamics(convention=convention)
    one, other = (plain(inputs, case.weights, dynamics).outputs for inputs in (case.inputs, later))
    assert torch.equal(one[:, :3], other[:, :3])
    assert (one[:, 3:] != other[:, 3:]).all()


def test_a_step_of_one_time_constant_forgets_the_state():
    case = make_case(without=["noise"])
    _, W, _, b, h = case.weights[:5]
    drive = case.inputs @ case.weights.input.t() + b
    run = plain(case.inputs, case.weights, make_dynamics("relu", convention="current", dt=1.0), return_states=True)
    torch.testing.assert_close(run.states[:, 0], torch.relu(h) @ W.t() + drive[:, 0])
    run = plain(case.inputs, case.weights, make_dynamics("relu", convention="rate", dt=1.0), return_states=True)
    torch.testing.assert_close(run.states[:, 0], torch.relu(h @ W.t() + drive[:, 0]))
    torch.testing.assert_close(run.states[:, 1], torch.relu(run.states[:, 0] @ W.t() + drive[:, 1]))


def test_without_a_nonlinearity_the_conventions_are_one():
    case = make_case()
    current, rate = (
        plain(case.inputs, case.weights, make_dynamics("identity", convention=c), case.noise, True) for c in CONVENTIONS
    )
    torch.testing.assert_close(current.states, rate.states)
    torch.testing.assert_close(current.outputs, rate.outputs)


@both_conventions
@pytest.mark.parametrize("dt", [0.1, 0.5, 1.0])
def test_a_stable_linear_network_settles_at_its_fixed_point(convention, dt):
    case = make_case(hidden=20, batch=1, steps=1, inputs=1, without=["noise", "bias"])
    W = case.weights.recurrent
    W *= 0.8 / torch.linalg.eigvals(W).abs().max()
    inputs = torch.ones(1, round(100 / dt), 1, dtype=torch.float64)
    run = plain(inputs, case.weights, make_dynamics("identity", convention=convention, dt=dt), return_states=True)
    m = case.weights.input[:, 0]
    fixed_point = torch.linalg.solve(torch.eye(20, dtype=torch.float64) - W, m)
    torch.testing.assert_close(run.states[0, -1], fixed_point, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(run.outputs[0, -1], case.weights.output @ fixed_point, rtol=1e-6, atol=1e-6)
    assert (run.states[0, 0] - fixed_point).norm() > 0.1 * fixed_point.norm()


@both_conventions
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "identity"])
def test_a_network_without_connections_decays(convention, nonlinearity):
    case = make_case(steps=8)
    weights = case.weights._replace(recurrent=torch.zeros(5, 5, dtype=torch.float64), bias=None)
    nothing = torch.zeros_like(case.inputs)
    run = plain(nothing, weights, make_dynamics(nonlinearity, convention=convention, dt=0.3), return_states=True)
    decay = 0.7 ** torch.arange(1, 9, dtype=torch.float64)
    torch.testing.assert_close(run.states, (decay[:, None] * weights.initial_state).expand(3, 8, 5))


@both_conventions
def test_small_steps_approach_continuous_time(convention):
    # one unit without recurrence, switched on at time 0: h(t) = 1 - exp(-t), first order in dt
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    errors = []
    for dt in (0.02, 0.01):
        inputs = torch.ones(1, round(2 / dt), 1, dtype=torch.float64)
        dynamics = make_dynamics("identity", convention=convention, dt=dt)
        run = plain(inputs, Weights(one, zero, one), dynamics)
        errors.append(float(run.outputs[0, -1, 0]) - (1 - math.exp(-2)))
    assert 0 < errors[1] < 0.002
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)


def test_no_bias_and_no_initial_state_mean_zero():
    case = make_case()
    zeros = case.weights._replace(bias=torch.zeros(5).double(), initial_state=torch.zeros(5).double())
    none = case.weights._replace(bias=None, initial_state=None)
    one, other = (plain(case.inputs, weights, make_dynamics(), case.noise).outputs for weights in (zeros, none))
    assert torch.equal(one, other)
