"""What the forward pass does with inputs and weights: effective matrices, time-first networks, what modules return."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import rankscope as rs
from rankscope.errors import InputError

N = 12
TASK = rs.tasks.FlipFlop(duration=8)


class Own(nn.Module):
    """A rate network whose connectivity is what `weff` returns."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.W = nn.Parameter(torch.rand(N, N) / N**0.5)
        self.take, self.give = nn.Parameter(torch.randn(N, 2)), nn.Parameter(torch.randn(2, N) / N)
        self.register_buffer("sign", torch.where(torch.arange(N) < 9, 1.0, -3.0))
        self.register_buffer("mask", 1 - torch.eye(N))

    def weff(self):
        return self.W.abs() * self.mask * self.sign

    def connectivity(self):
        return self.weff()

    def forward(self, inputs):
        W, h, states = self.connectivity(), inputs.new_zeros(len(inputs), N), []
        for u in inputs.unbind(1):
            h = h + 0.5 * (-h + torch.relu(h) @ W.T + u @ self.take.T)
            states.append(h)
        return torch.relu(torch.stack(states, 1)) @ self.give.T


class Property(Own):
    @property
    def effective(self):
        return self.W.abs() * self.mask * self.sign

    def connectivity(self):
        return self.effective


class LowRankByHand(Own):
    def __init__(self):
        super().__init__()
        self.m, self.n = nn.Parameter(torch.randn(N, 2) / N), nn.Parameter(torch.randn(N, 2) / N)
        self.W.requires_grad_(False)

    def weff(self):
        return self.W + self.m @ self.n.T

    def recurrent_names(self):
        return ("weff",)


class Raw(Own):
    def connectivity(self):
        return self.W


class Hidden(Own):
    def connectivity(self):
        return self.W / 2


class Signed(nn.Module):
    def forward(self, V):
        return V.abs() * torch.where(torch.arange(N) < 9, 1.0, -3.0)


def parametrized():
    network = Raw()
    parametrize.register_parametrization(network, "W", Signed())
    return network


def by_hand(network, W):
    """The same network with the connectivity given."""
    twin = Raw()
    twin.load_state_dict(network.state_dict(), strict=False)
    with torch.no_grad():
        twin.W.copy_(torch.as_tensor(W))
        twin.take.copy_(network.take)
        twin.give.copy_(network.give)
    return twin


@pytest.mark.parametrize(
    ("make", "names", "effective"),
    [
        (Own, ["weff"], lambda net: net.weff()),
        (Property, ["effective"], lambda net: net.effective),
        (LowRankByHand, None, lambda net: net.weff()),
        (parametrized, None, lambda net: net.W),
        (Raw, None, lambda net: net.W),
    ],
    ids=["method", "property", "low rank", "parametrization", "raw"],
)
def test_effective_weights_are_recorded_truncated_and_shuffled(make, names, effective):
    network = make()
    before, trials = copy.deepcopy(network), TASK.sample(16, rng=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = rs.train(
            network,
            TASK,
            4,
            0,
            learning_rate=0.02,
            matrices=names,
            eigenvalues=1,
            record_weights=True,
            recorded_epochs=4,
        )
        curve = rs.truncation_curve(before, network, trials, matrices=names, ranks=[0, 1, 3, N])
        change = rs.change(before, network, matrices=names)
        shuffled = rs.lowrank.shuffled_loss(before, network, trials, 5, matrices=names)
    W0, W = (effective(net).detach().double().numpy() for net in (before, network))
    np.testing.assert_array_equal(history.weights[0], W0.astype(np.float32))
    assert history.eigenvalues[0, 0].real == pytest.approx(np.linalg.eigvals(W0).real.max(), abs=1e-5)
    np.testing.assert_array_equal(change.matrix, W - W0)
    for rank, score in zip(curve.ranks, curve.scores, strict=True):
        assert score == pytest.approx(rs.evaluate(by_hand(network, W0 + change.truncated(rank)), trials), rel=1e-4)
    assert curve.full == rs.evaluate(network, trials)
    assert curve.scores[-1] == pytest.approx(curve.full, rel=1e-4)
    permuted = np.random.default_rng(5).permutation(W0.ravel()).reshape(N, N) + W - W0
    assert shuffled == pytest.approx(rs.evaluate(by_hand(network, torch.tensor(permuted)), trials), rel=1e-4)
    np.testing.assert_array_equal(effective(network).detach().double(), W)  # the network itself is as it was


@pytest.mark.parametrize(("make", "operation"), [(Own, "abs"), (Hidden, "div")])
def test_a_raw_parameter_is_measured_with_a_warning(make, operation):
    network = make()
    before = copy.deepcopy(network)
    with pytest.warns(UserWarning, match=rf"'W' is measured as it is stored.* transforms it\s+first \({operation}\)"):
        rs.train(network, TASK, 2, 0)
    with pytest.warns(UserWarning, match="truncation are not those of the connectivity"):
        rs.truncation_curve(before, network, TASK.sample(4, rng=0), ranks=[0])


class Layer(nn.Module):
    """A layer of torch with a readout, and what it may return."""

    def __init__(self, kind=nn.GRU, returned=lambda z, h: z, channels=2, size=6, **options):
        super().__init__()
        self.layer, self.readout, self.returned = kind(2, size, **options), nn.Linear(size, channels), returned

    def forward(self, inputs):
        h, _ = self.layer(inputs)
        return self.returned(self.readout(h), h)


class InOneMatrix(Raw):
    """Recurrent and input weights side by side."""

    def forward(self, inputs):
        A, h, states = torch.cat([self.W, self.take], 1), inputs.new_zeros(len(inputs), N), []
        for u in inputs.unbind(1):
            h = torch.tanh(torch.cat([h, u], 1) @ A.T)
            states.append(h)
        return torch.stack(states, 1) @ self.give.T


class Summed(Raw):
    """Elementwise products and a sum."""

    def forward(self, inputs):
        h, states = inputs.new_zeros(len(inputs), N), []
        for u in inputs.unbind(1):
            h = torch.tanh((self.W * h[:, None]).sum(-1) + u @ self.take.T)
            states.append(h)
        return torch.stack(states, 1) @ self.give.T


class Cell(Layer):
    def __init__(self, kind):
        super().__init__(kind)

    def forward(self, inputs):
        state, outputs = None, []
        for u in inputs.unbind(1):
            state = self.layer(u, state)
            outputs.append(self.readout(state[0] if isinstance(state, tuple) else state))
        return torch.stack(outputs, 1)


class FixedBatch(Layer):
    def __init__(self):
        super().__init__(batch_first=True)
        self.register_buffer("first", torch.zeros(1, 4, 6))

    def forward(self, inputs):
        return self.readout(self.layer(inputs, self.first)[0])


def weight_normed():
    network = Layer(batch_first=True)
    nn.utils.parametrizations.weight_norm(network.layer, "weight_hh_l0")
    return network


@pytest.mark.parametrize(
    "make",
    [
        *(lambda kind=kind: Layer(kind, batch_first=True) for kind in (nn.RNN, nn.GRU, nn.LSTM)),
        *(lambda kind=kind: Cell(kind) for kind in (nn.RNNCell, nn.GRUCell, nn.LSTMCell)),
        lambda: Layer(returned=lambda z, h: (z, h), batch_first=True),
        lambda: Layer(returned=lambda z, h: {"outputs": z, "states": h}, batch_first=True),
        lambda: nn.GRU(2, 2, batch_first=True),
        InOneMatrix,
        Summed,
        FixedBatch,
        weight_normed,
    ],
)
def test_sensible_modules_train_without_a_word(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rs.train(make(), TASK, 2, 0, batch_size=4).status == "finished"


def lazy():
    network = Layer(batch_first=True)
    network.readout = nn.LazyLinear(2)
    return network


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Layer, "outputs of a trial depend on the inputs of another: it is time-first"),
        (lambda: Layer(returned=lambda z, h: (z, h)), "it is time-first or mixes the batch; pass batch_first=True"),
        (
            lambda: Layer(returned=lambda z, h: z.transpose(0, 1), batch_first=True),
            r"got a tensor of shape \(16, 3, 2\); make it batch-first",
        ),
        (
            lambda: Layer(size=2, returned=lambda z, h: (h, z), batch_first=True),
            "got two tensors of one shape .* return the outputs alone",
        ),
        (lambda: Layer(returned=lambda z, h: (h, z), batch_first=True), "must have one shape"),
        (lambda: Layer(returned=lambda z, h: None, batch_first=True), "got a NoneType"),
        (lazy, "got 'readout.weight' of a lazy layer that has not run; run it once"),
        (lambda: Layer(batch_first=True).half(), "float32 or float64, got torch.float16 in 'layer.weight_ih_l0'"),
        (lambda: Raw().bfloat16(), r"got torch.bfloat16 in 'W', .* network.float\(\) converts them"),
    ],
)
def test_networks_that_are_refused_before_training(make, message):
    network = make()
    before = copy.deepcopy(network)
    with pytest.raises(InputError, match=message):
        rs.train(network, TASK, 2, 0)
    if "lazy" not in message:
        pairs = zip(network.parameters(), before.parameters(), strict=True)
        assert all(torch.equal(w, w0) for w, w0 in pairs)


def test_a_time_first_network_is_not_evaluated_either():
    with pytest.raises(InputError, match="time-first"):
        rs.evaluate(Layer(), TASK.sample(4, rng=0))


class Unused(Own):
    def connectivity(self):
        return self.W.abs() * self.mask * self.sign

    def vector(self):
        return self.sign

    def needs(self, argument):
        return self.W * argument


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["weff"], "got 'weff', which it does not use; compute the matrix in a method"),
        (["vector"], r"must name members that return a matrix, got 'vector', which returns shape \(12,\)"),
        (["needs"], r"matrices must be one of 'W', 'take', 'give', 'connectivity', 'vector', got 'needs'"),
        (["core.weff"], "matrices must be one of"),
        (["forward"], "matrices must be one of"),
    ],
)
def test_members_that_are_no_matrix(names, message):
    with pytest.raises(InputError, match=message):
        rs.train(Unused(), TASK, 2, 0, matrices=names)
