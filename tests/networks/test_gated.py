"""GatedRNN: equations, initial weights, embedding, dropout, sequences of different lengths."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

import rankscope as rs
from rankscope.errors import InputError
from rankscope.tasks import FlipFlop

TASK = FlipFlop(channels=3, duration=20)
INPUTS = TASK.sample(4, rng=0).inputs.double()
VECTORS = np.random.default_rng(0).normal(size=(41, 6)).astype(np.float32)
KINDS = ("rnn", "gru", "lstm")


def network(kind="gru", size=5, num_layers=1, rng=0, **options):
    return rs.GatedRNN.initialize(TASK, kind, size, num_layers, rng, **options)


def sentences(lengths=(2, 5, 1, 5, 3)):
    """Indices of words, padded, (batch, time, 1), and their lengths."""
    rng = np.random.default_rng(1)
    rows = np.zeros((len(lengths), max(lengths), 1), np.float32)
    for row, length in zip(rows, lengths, strict=True):
        row[:length, 0] = rng.integers(1, len(VECTORS), length)
    return torch.from_numpy(rows), torch.tensor(lengths)


def classifier(kind="lstm", num_layers=2, rng=0, **options):
    options = {"embedding": VECTORS, "readout": "last", "hidden_size": 16, **options}
    return rs.GatedRNN(1, 1, kind, num_layers=num_layers, rng=rng, **options)


def written_out(net):
    """One layer in numpy, the gates in the order r, z, n or i, f, g, o."""
    w = {name: value.numpy() for name, value in net.state_dict().items()}
    N, count = net.hidden_size, len(w["rnn.bias_hh_l0"]) // net.hidden_size
    h = c = np.zeros((len(INPUTS), N))
    outputs = []

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for u in INPUTS.numpy().swapaxes(0, 1):
        x = np.split(u @ w["rnn.weight_ih_l0"].T + w["rnn.bias_ih_l0"], count, axis=1)
        y = np.split(h @ w["rnn.weight_hh_l0"].T + w["rnn.bias_hh_l0"], count, axis=1)
        if net.kind == "rnn":
            h = np.tanh(x[0] + y[0])
        elif net.kind == "gru":
            r, z = sigmoid(x[0] + y[0]), sigmoid(x[1] + y[1])
            h = (1 - z) * np.tanh(x[2] + r * y[2]) + z * h
        else:
            i, f, o = (sigmoid(x[k] + y[k]) for k in (0, 1, 3))
            c = f * c + i * np.tanh(x[2] + y[2])
            h = o * np.tanh(c)
        outputs.append(h @ w["readout.weight"].T + w["readout.bias"])
    return np.stack(outputs, 1)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_is_its_equation(kind):
    net = network(kind, dtype=torch.float64)
    with torch.no_grad():
        np.testing.assert_allclose(net(INPUTS), written_out(net), atol=1e-12)


def through_torch(net, inputs, lengths, start):
    """Outputs of the layers as torch runs them."""
    if start is not None:
        parts = start.unflatten(1, (-1, net.hidden_size)).transpose(0, 1)
        start = tuple(parts.chunk(2)) if net.kind == "lstm" else parts
    if lengths is not None:
        inputs = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        _, last = net.rnn(inputs, start)
        return net.readout((last[0] if net.kind == "lstm" else last)[-1])[:, None]
    states, _ = net.rnn(inputs.transpose(0, 1), start)
    return net.readout(states.transpose(0, 1))


# 64 units have compiled cells in single precision.
@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 5), (torch.float32, 5), (torch.float32, 64)])
@pytest.mark.parametrize("case", ["every", "last", "start"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_torch(kind, case, dtype, size):
    net = rs.GatedRNN(3, 2, kind, size, 2, rng=0, dtype=dtype, readout="last" if case == "last" else "every")
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(1), dtype=dtype)
    inputs = draw(7, 11, 3).requires_grad_()
    start = draw(7, 2 * size * (2 if kind == "lstm" else 1)).requires_grad_() if case == "start" else None
    lengths = torch.tensor([3, 11, 5, 5, 1, 9, 3]) if case == "last" else None
    outputs, expected = net(inputs, lengths, initial_state=start), through_torch(net, inputs, lengths, start)
    wanted = [inputs, *net.parameters(), *([] if start is None else [start])]
    weights = draw(outputs.shape)
    found = [outputs, *torch.autograd.grad((outputs * weights).sum(), wanted)]
    correct = [expected, *torch.autograd.grad((expected * weights).sum(), wanted)]
    for ours, theirs in zip(found, correct, strict=True):
        error = float((ours - theirs).detach().abs().max() / theirs.detach().abs().max())
        assert error < (1e-13 if dtype == torch.float64 else 5e-6)


def test_layers_and_channels():
    net = network("lstm", 5, num_layers=2)
    assert net.recurrent_names() == ("rnn.weight_hh_l0", "rnn.weight_hh_l1")
    assert net(INPUTS).shape == (4, 40, 3)
    assert net(INPUTS).dtype == torch.float32
    assert net.rnn.weight_ih_l0.shape == (20, 3)
    assert net.hidden_size == 5


def test_the_seed_decides_and_torchs_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    one, same, other = network(rng=1), network(rng=np.random.default_rng(1)), network(rng=2)
    double = network(rng=1, dtype=torch.float64)
    assert torch.equal(torch.rand(3), expected)
    for name, weights in one.state_dict().items():
        assert torch.equal(weights, same.state_dict()[name])
        assert torch.equal(weights, double.state_dict()[name].float())
        assert not torch.equal(weights, other.state_dict()[name])


def test_sizes_of_the_initial_weights():
    uniform, normal = (network(size=100, gain=gain).requires_grad_(False) for gain in (None, 1.5))
    for name, weights in uniform.state_dict().items():
        assert float(weights.abs().max()) <= 0.1, name
        assert name == "readout.bias" or float(weights.abs().max()) > 0.09, name
    assert float(uniform.rnn.weight_hh_l0.std()) == pytest.approx(0.1 / 3**0.5, rel=0.02)
    assert float(normal.rnn.weight_hh_l0.std()) == pytest.approx(0.15, rel=0.02)
    assert float(normal.rnn.weight_hh_l0.abs().max()) > 0.4
    assert float(normal.rnn.weight_ih_l0.abs().max()) <= 0.1
    # the eigenvalues of a gate fill the disc of radius g
    radius = torch.linalg.eigvals(normal.rnn.weight_hh_l0[:100]).abs().max()
    assert 1.3 < float(radius) < 1.75


def test_a_snapshot_is_independent():
    net = network()
    net(INPUTS).sum().backward()
    twin = net.snapshot()
    assert all(p.grad is None for p in twin.parameters())
    with torch.no_grad():
        net.rnn.weight_hh_l0.add_(1)
    assert torch.equal(twin.rnn.weight_hh_l0 + 1, net.rnn.weight_hh_l0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 3])
def test_padding_has_no_influence(kind, layers):
    net = classifier(kind, layers).eval()
    words, lengths = sentences()
    together = net(words, lengths)
    assert together.shape == (5, 1, 1)
    alone = [net(words[row : row + 1, :length]) for row, length in enumerate(lengths)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=1e-5)
    every = classifier(kind, layers, readout="every").eval()(words, lengths)
    read_last = every[torch.arange(5), lengths - 1]
    torch.testing.assert_close(together[:, 0], read_last, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_through_lengths_are_those_of_the_sequences_alone(kind):
    words, lengths = sentences()
    together, alone = (classifier(kind, train_embedding=True, dtype=torch.float64) for _ in range(2))
    together(words, lengths).square().sum().backward()
    sum(alone(words[i : i + 1, :n]).square().sum() for i, n in enumerate(lengths)).backward()
    for ours, theirs in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_embedding_initialization_and_training():
    net = classifier(hidden_size=100)
    assert float(net.rnn.weight_ih_l0.detach().abs().max()) == pytest.approx(1 / 6**0.5, rel=0.05)
    assert float(net.rnn.weight_ih_l1.detach().abs().max()) == pytest.approx(0.1, rel=0.05)
    assert not net.embedding.requires_grad
    assert classifier(train_embedding=True).embedding.requires_grad
    assert net.inner_names() == ("rnn.weight_hh_l0", "rnn.weight_hh_l1", "rnn.weight_ih_l1")
    assert [gate.name for gate in net.gates] == ["input", "forget", "cell", "output"]


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"dropout": 0.5, "num_layers": 1}, {"input_dropout": 0.5}])
@pytest.mark.parametrize("readout", ["every", "last"])
def test_dropout_acts_in_training_only(options, readout):
    words, lengths = sentences()
    net = classifier(readout=readout, **options)
    assert not torch.equal(net(words, lengths), net(words, lengths))
    plain = classifier(readout=readout, num_layers=options.get("num_layers", 2))
    assert torch.equal(net.eval()(words, lengths), plain(words, lengths))


class Words:
    """A task with an embedding and a readout of its own."""

    embedding, readout = VECTORS, "last"

    def sample(self, batch_size, rng):
        words, _ = sentences((5,) * batch_size)
        return rs.Trials(words, words, torch.ones_like(words))


def test_the_task_provides_embedding_and_readout():
    net = rs.GatedRNN.initialize(Words(), "gru", 8, rng=0)
    assert net.embedding.shape == VECTORS.shape
    assert net(sentences()[0]).shape == (5, 1, 1)
    assert rs.GatedRNN.initialize(Words(), "gru", 8, rng=0, readout="every")(sentences()[0]).shape == (5, 5, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "grru"}, r"kind must be one of 'rnn', 'gru', 'lstm', got 'grru' \(did you mean 'gru'\?\)"),
        ({"size": 0}, "hidden_size must be a whole number >= 1, got 0"),
        ({"num_layers": 1.5}, "num_layers must be a whole number >= 1, got 1.5"),
        ({"gain": -1}, "gain must be a finite number >= 0, got -1"),
        ({"rng": "x"}, "rng must be a seed"),
        ({"dropout": 1}, "dropout must be a finite number >= 0 and < 1, got 1"),
        ({"input_dropout": -0.1}, "input_dropout must be"),
        ({"readout": "lost"}, r"readout must be one of 'every', 'last', got 'lost' \(did you mean 'last'\?\)"),
        ({"layers": 2}, "option must be one of 'kind', 'hidden_size', 'num_layers'"),
        ({"embedding": VECTORS}, "input_size must be 1 with an embedding"),
        ({"embedding": VECTORS[0]}, r"embedding must hold finite numbers \(vocabulary, size\), got shape \(6,\)"),
        ({"dtype": torch.float16}, "dtype must be torch.float32 or torch.float64, got torch.float16"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        network(**options)


@pytest.mark.parametrize("inputs", [INPUTS[..., :2], INPUTS[0], INPUTS[:0], 3])
def test_inputs_that_are_refused(inputs):
    with pytest.raises(InputError, match=r"inputs must be a non-empty tensor \(batch, time, 3\)"):
        network()(inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda words, lengths: (words - 1, lengths), "inputs must be whole numbers from 0 to 40"),
        (lambda words, lengths: (words + 30, lengths), "inputs must be whole numbers from 0 to 40"),
        (lambda words, lengths: (words + 0.5, lengths), "inputs must be whole numbers from 0 to 40"),
        (lambda words, lengths: (words, lengths[:2]), "lengths must be a tensor of 5 whole numbers"),
        (lambda words, lengths: (words, lengths.float()), "lengths must be a tensor of 5 whole numbers, got torch.fl"),
        (lambda words, lengths: (words, lengths - 1), "lengths must be from 1 to 5, the steps of the inputs, got 0"),
        (lambda words, lengths: (words, lengths + 1), "lengths must be from 1 to 5, the steps of the inputs, got 2"),
    ],
)
def test_words_and_lengths_that_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        classifier()(*change(*sentences()))
