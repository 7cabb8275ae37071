"""Weights in pieces, made by torch: the change is that of the effective weight, or the weight is left out."""

import copy

import pytest
import torch
from checkpoint_cases import reasons
from torch import nn
from torch.nn.utils import parametrizations

import rankscope as rs


def learned(module):
    """Return a copy with other parameters."""
    after = copy.deepcopy(module)
    with torch.no_grad():
        for number, parameter in enumerate(after.parameters()):
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    return after


def effective(module, x):
    """Return the weight that the module computes with, in evaluation."""
    module.eval()
    module(x)
    return module.weight.detach().clone()


MODULES = {
    "linear": (lambda: nn.Linear(6, 5), (3, 6)),
    "square": (lambda: nn.Linear(5, 5), (3, 5)),
    "convolution": (lambda: nn.Conv1d(3, 4, 2), (1, 3, 7)),
    "transposed": (lambda: nn.ConvTranspose1d(3, 4, 2), (1, 3, 7)),
}
NORMS = {
    "weight norm": lambda module: parametrizations.weight_norm(module),
    "weight norm, columns": lambda module: parametrizations.weight_norm(module, dim=1),
    "weight norm, whole": lambda module: parametrizations.weight_norm(module, dim=None),
    "spectral norm": parametrizations.spectral_norm,
    "old weight norm": nn.utils.weight_norm,
    "old spectral norm": nn.utils.spectral_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*weight_norm.*:DeprecationWarning")
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", MODULES)
def test_the_effective_weight_is_measured(kind, norm):
    torch.manual_seed(0)
    make, shape = MODULES[kind]
    before, after = NORMS[norm](make()), NORMS[norm](make())
    expected = (effective(after, torch.ones(shape)) - effective(before, torch.ones(shape))).double()
    frame = rs.compare(before.state_dict(), after.state_dict())
    assert list(frame.index) == ["weight"]
    assert frame.loc["weight"].norm == pytest.approx(expected.norm().item(), rel=1e-5)
    values = torch.linalg.svdvals(expected.flatten(1))
    assert frame.loc["weight"].singular_values[: len(values)] == pytest.approx(values.tolist(), rel=1e-4, abs=1e-6)


def test_a_scaled_direction_changes_nothing():
    before = parametrizations.weight_norm(nn.Linear(16, 16))
    after = copy.deepcopy(before)
    with torch.no_grad():
        after.parametrizations.weight.original1.mul_(4)
    frame = rs.compare(before.state_dict(), after.state_dict())
    assert frame.empty
    assert reasons(frame)["weight"] == "the same before and after"


class Double(nn.Module):
    def forward(self, weight):
        return 2 * weight


@pytest.mark.parametrize(
    "make",
    [
        lambda: parametrizations.orthogonal(nn.Linear(5, 5)),
        lambda: nn.utils.parametrize.register_parametrization(nn.Linear(5, 5), "weight", Double()),
    ],
)
def test_other_parametrizations_are_left_out_and_no_piece_is_measured(make):
    before = make()
    after = learned(before)
    frame = rs.compare(before.state_dict(), after.state_dict())
    assert frame.empty
    assert reasons(frame)["weight"].startswith("stored as a parametrization that is not known")
    assert list(rs.compare(before, after).index) == ["weight"]  # modules know their weights
