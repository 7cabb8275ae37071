"""Single steps, initial states, Jacobians and time constants."""

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.errors import InputError

TASK = rs.tasks.FlipFlop(duration=8)
DOUBLE = torch.float64
MAKE = {
    "rate": lambda: rs.RateRNN.initialize(TASK, 6, rng=0, dtype=DOUBLE, bias=torch.arange(6.0).double() / 9),
    "rate convention": lambda: rs.RateRNN.initialize(TASK, 6, rng=0, dtype=DOUBLE, convention="rate"),
    "callable": lambda: rs.RateRNN.initialize(TASK, 6, rng=0, dtype=DOUBLE, nonlinearity=torch.sin),
    "tau": lambda: rs.RateRNN.initialize(TASK, 6, rng=0, dtype=DOUBLE, tau=[0.1, 1, 2, 3, 4, 5]),
    "dale": lambda: rs.RateRNN.initialize(TASK, 6, rng=0, dtype=DOUBLE, dale=0.5),
    **{
        kind: lambda kind=kind: rs.GatedRNN.initialize(TASK, kind, 3, 2, rng=0, dtype=DOUBLE)
        for kind in ("rnn", "gru", "lstm")
    },
}


@pytest.mark.parametrize("kind", MAKE)
def test_steps_equal_the_forward_pass_and_the_jacobian_is_their_derivative(kind):
    network = MAKE[kind]()
    size = 12 if kind == "lstm" else 6
    inputs = TASK.sample(4, rng=0).inputs.double()
    start = torch.randn(4, size, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    outputs, states = network(inputs, initial_state=start, return_states=True)
    state = start
    for t in range(inputs.shape[1]):
        state = network.step(state, inputs[:, t])
        last = state if kind.startswith(("rate", "callable", "tau", "dale")) else state[:, 3:6]
        torch.testing.assert_close(states[:, t], last, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(network(inputs[:1], initial_state=start[0]), outputs[:1], rtol=1e-9, atol=1e-12)
    expected = torch.autograd.functional.jacobian(lambda h: network.step(h, inputs[0, 0]), start[0])
    torch.testing.assert_close(network.jacobian(start[0], inputs[0, 0]), expected)
    torch.testing.assert_close(network.jacobian(start, inputs[:, 0])[0], expected)
    torch.testing.assert_close(network.step(start[0]), network.step(start[0], torch.zeros(2)))


def test_the_gradient_reaches_an_initial_state_of_each_trial():
    gradients = []
    for engine in ("fused", "plain"):
        network = rs.RateRNN.initialize(TASK, 6, rng=0, dtype=DOUBLE, engine=engine)
        start = torch.linspace(-1, 1, 24, dtype=DOUBLE).view(4, 6).requires_grad_()
        network(TASK.sample(4, rng=0).inputs, initial_state=start).square().sum().backward()
        gradients.append(start.grad)
    torch.testing.assert_close(*gradients)


def test_time_constants_are_those_of_the_equation_and_are_learned(tmp_path):
    network = rs.RateRNN.initialize(TASK, 6, rng=0, tau=2.0, trained=("recurrent", "tau"))
    slow = rs.RateRNN.initialize(TASK, 6, rng=0, dt=0.25)
    inputs = TASK.sample(3, rng=0).inputs
    torch.testing.assert_close(network(inputs), slow(inputs))
    before = network.snapshot()
    rs.train(network, TASK, 5, 0, learning_rate=0.05)
    assert float((network.tau.detach() - 2).abs().min()) > 0
    curve = rs.truncation_curve(before, network, TASK.sample(8, rng=0), ranks=[0, 6])
    assert curve.scores[1] == pytest.approx(curve.full, rel=1e-5)
    network.save(tmp_path / "network.safetensors", before)
    loaded = rs.RateRNN.load(tmp_path / "network.safetensors")
    assert torch.equal(loaded.tau, network.tau)
    assert torch.equal(loaded(inputs), network(inputs))
    assert rs.RateRNN.initialize(TASK, 6, trained=("tau",)).tau.tolist() == [1] * 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: MAKE["rate"]().step(torch.zeros(5)),
            r"state must be a tensor \(6,\) or \(batch, 6\), got shape \(5,\)",
        ),
        (lambda: MAKE["rate"]().step(torch.zeros(6), torch.zeros(3)), r"inputs must be a tensor \(2,\) or \(1, 2\)"),
        (lambda: MAKE["lstm"]().jacobian(torch.zeros(6)), r"state must be a tensor \(12,\) or \(batch, 12\)"),
        (
            lambda: MAKE["gru"]()(torch.zeros(2, 3, 2), initial_state=torch.zeros(3, 6)),
            r"initial_state must be a tensor \(6,\) or \(2, 6\)",
        ),
        (
            lambda: MAKE["rate"]()(torch.zeros(2, 3, 2), initial_state=torch.zeros(7)),
            r"initial_state must be a tensor \(6,\) or \(2, 6\), got shape \(7,\)",
        ),
        (lambda: rs.RateRNN.initialize(TASK, 6, tau=0.0), "tau must be finite numbers > 0, got .0.0, 0.0"),
        (lambda: rs.RateRNN.initialize(TASK, 6, tau=np.ones(3)), r"tau must have shape"),
        (
            lambda: rs.RateRNN.initialize(TASK, 6, tau=1.0, engine="fused"),
            "engine must be 'auto' or 'plain' for a network",
        ),
        (
            lambda: rs.train_together([rs.RateRNN.initialize(TASK, 6, tau=1.0)], TASK, 2, [0]),
            "no noise and no tau",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
