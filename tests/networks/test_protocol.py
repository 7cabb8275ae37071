"""What is asked of a network, and which of its matrices are taken for recurrent."""

import numpy as np
import pytest
import torch
from torch import nn

import rankscope as rs
from rankscope.errors import InputError
from rankscope.networks.protocol import hidden_size_of, outputs_of, recurrent_names


class Holds(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(torch.zeros(part)) if isinstance(part, tuple) else part)


class Says(Holds):
    def recurrent_names(self):
        return ("core",)


SQUARE = (4, 4)


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (rs.RateRNN.initialize(rs.tasks.FlipFlop(), 4, rng=0), ["recurrent_weights"]),
        (Holds(core=SQUARE, net=Holds(recurrent_weights=(6, 4))), ["net.recurrent_weights"]),
        (Holds(core=SQUARE, gru=nn.GRU(2, 4, 2)), ["gru.weight_hh_l0", "gru.weight_hh_l1"]),
        (Holds(core=SQUARE, cell=nn.GRUCell(2, 4)), ["cell.weight_hh"]),
        (Holds(first=(3, 4), core=SQUARE, more=nn.Linear(4, 4), gain=(1, 1), bias=(4,)), ["core", "more.weight"]),
        (Holds(left=(8, 2), right=(2, 8), bias=(8,)), ["left", "right"]),
        (Says(core=(3, 4), recurrent_weights=SQUARE), ["core"]),
    ],
)
def test_which_matrices_are_recurrent(network, names):
    assert list(recurrent_names(network)) == names


def test_which_matrices_are_asked_for():
    network = Says(first=(3, 4), core=SQUARE, gru=nn.GRU(2, 4, 2))
    assert recurrent_names(network, ["gru.weight_hh*", "first"]) == ("first", "gru.weight_hh_l0", "gru.weight_hh_l1")
    for wanted, message in [
        (["gru.weight_hhl0"], r"matrices must be one of .* \(did you mean 'gru.weight_hh_l0'\?\)"),
        (["gru.bias_hh_l0"], "matrices must be one of"),
        ("core", r"matrices must be a list of names, got the text 'core'; write \['core'\]"),
        ([], "matrices must name at least one matrix, got none"),
    ]:
        with pytest.raises(InputError, match=message):
            recurrent_names(network, wanted)
    with pytest.raises(InputError, match="network must have a matrix among its parameters, got none"):
        recurrent_names(Holds(bias=(4,)))


def test_hidden_size():
    assert hidden_size_of(Holds(gru=nn.GRU(2, 4))) == 4
    assert hidden_size_of(rs.RateRNN.initialize(rs.tasks.FlipFlop(), 7, rng=0)) == 7
    network = Holds(core=SQUARE)
    network.hidden_size = 9
    assert hidden_size_of(network) == 9


class Random(nn.Module):
    """Noise of torch's, and no parameters."""

    def forward(self, inputs):
        return inputs + torch.rand(inputs.shape, dtype=inputs.dtype)


def test_torchs_randomness_comes_from_rng_and_is_put_back():
    inputs = torch.zeros(2, 3, 1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (outputs_of(Random(), inputs, rng) for rng in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    rng = np.random.default_rng(1)
    assert torch.equal(outputs_of(Random(), inputs, rng), one)
    assert not torch.equal(outputs_of(Random(), inputs, rng), one)


@pytest.mark.parametrize(
    ("module", "got"),
    [
        (nn.GRU(1, 4, batch_first=True), "got tuple; torch's RNN, GRU and LSTM also return their last state"),
        (nn.Flatten(), r"must return a tensor \(2, 3, out\) for inputs \(2, 3, 1\), got a tensor of shape \(2, 3\)$"),
    ],
)
def test_networks_that_return_something_else(module, got):
    if isinstance(module, nn.Flatten):
        module = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 1)), nn.Flatten())
    with pytest.raises(InputError, match=got):
        outputs_of(module, torch.zeros(2, 3, 1), 0)


def test_inputs_get_the_type_of_the_weights():
    network = nn.Linear(1, 1).double()
    assert outputs_of(network, torch.zeros(2, 3, 1), 0).dtype == torch.float64
