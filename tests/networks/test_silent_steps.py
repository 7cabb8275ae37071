"""Steps before anything is heard are left out, and nobody can tell."""

import pytest
import torch

import rankscope as rs
from rankscope.networks.recurrence import silent_steps


def inputs_after(silent, steps=9, batch=4, channels=2):
    inputs = torch.randn(batch, steps, channels, generator=torch.Generator().manual_seed(0))
    inputs[:, :silent] = 0
    return inputs


def network(engine="auto", **options):
    task = rs.tasks.FlipFlop(channels=2)
    return rs.RateRNN.initialize(task, hidden_size=32, gain=1.2, rng=0, engine=engine, **options)


def count(net, inputs, noise=None):
    return silent_steps(inputs, net.weights, net.dynamics, noise)


@pytest.mark.parametrize("convention", ["current", "rate"])
@pytest.mark.parametrize("phi", ["tanh", "relu", "identity"])
@pytest.mark.parametrize("silent", [0, 1, 5, 9])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_outputs_states_and_gradients(silent, phi, convention, dtype, close):
    inputs, found = inputs_after(silent).to(dtype), []
    for engine in ("fused", "plain"):
        net = network(engine, nonlinearity=phi, convention=convention, dtype=dtype)
        outputs, states = net(inputs, return_states=True)
        (outputs.sin().sum() + states.square().sum()).backward()
        found.append([outputs, states, *(p.grad for p in net.parameters())])
    for fused, plain in zip(*found, strict=True):
        assert (fused - plain).norm() <= close * plain.norm()


def test_how_many():
    assert [count(network(), inputs_after(silent)) for silent in (0, 1, 5, 8)] == [0, 1, 5, 8]
    assert count(network(), inputs_after(9)) == 8  # a pass has at least one step
    inputs = inputs_after(5)
    inputs[3, 2, 1] = torch.nan  # one trial, one channel
    assert count(network(), inputs) == 2


def test_not_where_the_network_moves_by_itself():
    inputs = inputs_after(5)
    assert count(network(trained=("recurrent", "bias")), inputs) == 0
    assert count(network(trained=("recurrent", "initial_state")), inputs) == 0
    assert count(network(nonlinearity="softplus"), inputs) == 0
    assert count(network(readout_nonlinearity="softplus"), inputs) == 0
    assert count(network(), inputs, torch.zeros(4, 9, 32)) == 0


def test_gradients_of_the_inputs_are_whole():
    found = []
    for engine in ("fused", "plain"):
        inputs = inputs_after(5).requires_grad_()
        network(engine)(inputs).sin().sum().backward()
        found.append(inputs.grad)
    assert (found[0][:, :5] != 0).any()
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_one_workspace_serves_batches_that_begin_at_different_times():
    net = network()
    for silent in (0, 3, 6, 1):
        net(inputs_after(silent)).sum().backward()
    assert len(net.workspaces._free) == 1
