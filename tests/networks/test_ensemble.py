"""Many networks as batched products do what each does by the book."""

import pytest
import torch

import rankscope as rs
from rankscope.networks.ensemble import can_run_together, ensemble
from rankscope.networks.recurrence import Weights, plain

E, BATCH, STEPS, N = 3, 4, 7, 5


def random_weights(rng, bias=True):
    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=rng).requires_grad_()

    rest = (draw(E, N), draw(E, N)) if bias else (None, None)
    return Weights(draw(E, N, 2), draw(E, N, N), draw(E, 2, N), *rest)


def one(weights, e):
    return Weights(*(None if w is None else w[e] for w in weights))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("phi", ["tanh", "relu", "softplus", "identity"])
def test_outputs_and_gradients_are_those_of_each_by_the_book(phi, bias):
    rng = torch.Generator().manual_seed(0)
    weights = random_weights(rng, bias)
    inputs = torch.randn(E, BATCH, STEPS, 2, dtype=torch.float64, generator=rng)
    seen = torch.randn(E, BATCH, STEPS, 2, dtype=torch.float64, generator=rng)
    network = rs.RateRNN(*(w[0].detach() for w in weights[:3]), dt=0.3, nonlinearity=phi)
    outputs = ensemble(inputs, weights, network.dynamics)
    by_the_book = torch.stack([plain(inputs[e], one(weights, e), network.dynamics).outputs for e in range(E)])
    torch.testing.assert_close(outputs, by_the_book, rtol=1e-12, atol=1e-12)
    learned = [w for w in weights if w is not None]
    found = torch.autograd.grad((seen * outputs).sum(), learned)
    expected = torch.autograd.grad((seen * by_the_book).sum(), learned)
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-10)


def test_a_network_does_not_see_the_others():
    weights = random_weights(torch.Generator().manual_seed(1))
    inputs = torch.ones(E, BATCH, STEPS, 2, dtype=torch.float64)
    network = rs.RateRNN(*(w[0].detach() for w in weights[:3]))
    before = ensemble(inputs, weights, network.dynamics)
    with torch.no_grad():
        weights.recurrent[1] = torch.nan
    after = ensemble(inputs, weights, network.dynamics)
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=0, atol=0)
    gradient = torch.autograd.grad(after[0].sum(), weights.recurrent)[0]
    assert torch.isfinite(gradient[0]).all()


def test_what_it_does_not_know():
    weights = [w[0].detach() for w in random_weights(torch.Generator().manual_seed(2))[:3]]
    assert can_run_together(rs.RateRNN(*weights).dynamics)
    assert not can_run_together(rs.RateRNN(*weights, convention="rate").dynamics)
    assert not can_run_together(rs.RateRNN(*weights, readout_nonlinearity="identity").dynamics)
    assert not can_run_together(rs.RateRNN(*weights, nonlinearity=torch.sin).dynamics)
