"""Loss and gradient of the compiled squared loss equal autograd's in double precision, to rounding."""

import pytest
import torch
from network_cases import make_dynamics

from rankscope.networks.recurrence import Weights, plain
from rankscope.networks.squared_loss import SquaredLoss
from rankscope.training.loss import squared_loss

N, INPUTS, OUTPUTS = 64, 2, 3
PARTS = ("input", "recurrent", "output")
ROUNDING = 2e-6  # relative to the largest entry of a result


def draw_weights():
    rng = torch.Generator().manual_seed(0)
    shapes = {"input": (N, INPUTS), "recurrent": (N, N), "output": (OUTPUTS, N)}
    scale = N**-0.5
    return Weights(**{part: scale * torch.randn(shape, generator=rng) for part, shape in shapes.items()})


def draw_trials(batch, steps, silent=0, seed=1):
    """Inputs that are zero in the first steps, targets, and a mask with zeros, where the targets are NaN."""
    rng = torch.Generator().manual_seed(seed)
    inputs = torch.randn(batch, steps, INPUTS, generator=rng)
    inputs[:, :silent] = 0
    targets, mask = torch.randn(batch, steps, OUTPUTS, generator=rng), torch.rand(batch, steps, OUTPUTS, generator=rng)
    mask[mask < 0.3] = 0
    return inputs, torch.where(mask == 0, torch.nan, targets), mask


def make(weights, dynamics, batch, steps, trained=PARTS):
    """Return the compiled loss and its buffers, which are NaN until they are written."""
    if not SquaredLoss.fits(weights, dynamics):
        pytest.skip("no compiled kernels on this machine")
    buffers = {part: torch.full_like(getattr(weights, part), torch.nan) for part in trained}
    return SquaredLoss(weights, dynamics, batch, steps, buffers), buffers


def assert_as_autograd(loss, gradients, weights, dynamics, trials):
    inputs, targets, mask = (x.double() for x in trials)
    exact = Weights(*(None if w is None else w.double().requires_grad_() for w in weights))
    expected = squared_loss(plain(inputs, exact, dynamics).outputs, targets, mask)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=ROUNDING)
    for part, found in gradients.items():
        wanted = getattr(exact, part).grad
        assert (found - wanted).abs().max() <= ROUNDING * wanted.abs().max(), part


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "identity"])
@pytest.mark.parametrize("silent", [0, 4])
@pytest.mark.parametrize("batch", [1, 7, 32])
def test_equals_autograd_in_double_precision(batch, silent, nonlinearity):
    weights, dynamics = draw_weights(), make_dynamics(nonlinearity)
    compiled, gradients = make(weights, dynamics, batch, 20)
    trials = draw_trials(batch, 20, silent)
    assert_as_autograd(compiled(*trials), gradients, weights, dynamics, trials)


@pytest.mark.parametrize("trained", [("recurrent",), ("output",), ("input", "output"), ("input", "recurrent")])
def test_any_subset_of_the_weights_is_trained(trained):
    weights, dynamics = draw_weights(), make_dynamics()
    compiled, gradients = make(weights, dynamics, 5, 12, trained)
    trials = draw_trials(5, 12, silent=2)
    assert_as_autograd(compiled(*trials), gradients, weights, dynamics, trials)


@pytest.mark.parametrize("silent", [6, 5])
def test_trials_of_one_step_of_input_or_none(silent):
    weights, dynamics = draw_weights(), make_dynamics()
    compiled, gradients = make(weights, dynamics, 3, 6)
    trials = draw_trials(3, 6, silent)
    assert_as_autograd(compiled(*trials), gradients, weights, dynamics, trials)


def test_nothing_remains_of_earlier_trials_or_weights():
    weights, dynamics = draw_weights(), make_dynamics()
    compiled, gradients = make(weights, dynamics, 4, 10)
    other_shape, _ = make(weights, dynamics, 9, 7)
    for turn, silent in enumerate((3, 0, 5, 3)):
        trials = draw_trials(4, 10, silent, seed=turn)
        assert_as_autograd(compiled(*trials), gradients, weights, dynamics, trials)
        other_shape(*draw_trials(9, 7, seed=turn))
        for part, gradient in gradients.items():
            getattr(weights, part).sub_(gradient)
