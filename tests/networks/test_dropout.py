"""Dropout from 16 random bits a unit."""

import pytest
import torch

from rankscope.networks.dropout import Dropout


@pytest.mark.parametrize("p", [1e-3, 0.1, 0.5, 0.97])
def test_units_are_dropped_with_probability_p_and_the_mean_stays(p):
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(1001, 999, dtype=torch.float64))
    count = dropped.numel()
    error = (p * (1 - p) / count) ** 0.5
    assert float((dropped == 0).double().mean()) == pytest.approx(p, abs=2**-17 + 4 * error)
    assert float(dropped.mean()) == pytest.approx(1, abs=4 * error / (1 - p))
    # Units next to each other share a random word.
    centred = (dropped == 0).double() - p
    assert float((centred[:, 1:] * centred[:, :-1]).mean()) == pytest.approx(0, abs=5 * p * (1 - p) / count**0.5)


def test_the_gradient_passes_where_units_stay():
    x = torch.ones(50, 40, requires_grad=True)
    torch.manual_seed(0)
    y = Dropout(0.25)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())


@pytest.mark.parametrize("layer", [Dropout(0.0), Dropout(0.5).eval()])
def test_nothing_is_dropped_without_need(layer):
    x = torch.ones(3)
    assert layer(x) is x
