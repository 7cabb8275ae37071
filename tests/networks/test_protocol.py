"""Networks of any class: recurrent matrices, effective weights, randomness, lengths."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import rankscope as rs
from rankscope.errors import InputError
from rankscope.networks.protocol import hidden_size_of, matrices_of, outputs_of, recurrent_names


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
        (nn.Unflatten(0, (1, -1)), r"got a tensor of shape \(1, 2, 3, 1\)"),
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


class Half(nn.Module):
    """A parametrization."""

    def forward(self, weights):
        return weights / 2


def parametrized(network, name="rnn.weight_hh_l0"):
    path, _, last = name.rpartition(".")
    parametrize.register_parametrization(network.get_submodule(path), last, Half())
    return network


TASK = rs.tasks.FlipFlop(channels=3, duration=10)
INPUTS = TASK.sample(3, rng=0).inputs


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (rs.RateRNN.initialize(TASK, 8, rng=0), "recurrent_weights"),
        (rs.GatedRNN.initialize(TASK, "lstm", 8, 2, rng=0), "rnn.weight_hh_l1"),
    ],
)
def test_effective_weights_of_parametrized_networks(network, name):
    halved = network.snapshot()
    with torch.no_grad():
        halved.get_parameter(name).div_(2)
    parametrized(network, name)
    assert recurrent_names(network) == recurrent_names(halved)
    for found, weights in matrices_of(network).items():
        assert torch.equal(weights, halved.get_parameter(found)), found
    assert torch.equal(matrices_of(network, [name])[name], halved.get_parameter(name))
    assert torch.equal(outputs_of(network, INPUTS), outputs_of(halved, INPUTS))
    copy = network.snapshot()
    outputs_of(copy, INPUTS).sum().backward()
    assert matrices_of(copy)[name].requires_grad
    assert torch.equal(outputs_of(copy, INPUTS), outputs_of(halved, INPUTS))
    assert hidden_size_of(network) == 8


class Layers(nn.Module):
    """torch's layers inside a module of the user's."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def forward(self, inputs):
        return self.rnn(inputs)[0]


def test_parametrized_layers_inside_other_modules_are_used():
    torch.manual_seed(0)
    halved = Layers()
    network = Layers()
    network.load_state_dict(halved.state_dict())
    with torch.no_grad():
        halved.rnn.weight_hh_l0.div_(2)
    parametrized(network)
    torch.testing.assert_close(outputs_of(network, INPUTS, 0), outputs_of(halved, INPUTS, 0))


def test_lengths_reach_networks_that_take_them():
    lengths = torch.tensor([10, 4, 7])
    network = rs.GatedRNN(3, 2, "gru", 6, rng=0, readout="last")
    assert torch.equal(outputs_of(network, INPUTS, 0, lengths), network(INPUTS, lengths))
    assert outputs_of(Layers(), INPUTS, 0, lengths).shape == (3, 20, 4)  # reads every step, so padding is harmless
    last = nn.Sequential(nn.Flatten(), nn.Linear(60, 1), nn.Unflatten(1, (1, 1)))
    with pytest.raises(InputError, match=r"network must take lengths, as in forward\(inputs, lengths\)"):
        outputs_of(last, INPUTS, 0, lengths)
