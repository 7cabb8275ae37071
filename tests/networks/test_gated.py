"""GatedRNN: the equations of its cells, its initial weights, and its files."""

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.errors import InputError
from rankscope.tasks import FlipFlop

TASK = FlipFlop(channels=3, duration=20)
INPUTS = TASK.sample(4, rng=0).inputs.double()


def network(kind="gru", size=5, layers=1, rng=0, **options):
    return rs.GatedRNN.initialize(TASK, kind, size, layers, rng, **options)


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


def test_layers_and_channels():
    net = network("lstm", 5, layers=2)
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_files_hold_the_function_before_and_after(tmp_path, dtype):
    before, after = (network("lstm", layers=2, rng=rng, dtype=dtype) for rng in (1, 2))
    after.save(tmp_path / "both", initial=before)
    for original, initial in ((after, False), (before, True)):
        read = rs.GatedRNN.load(tmp_path / "both", initial)
        assert read.kind == "lstm"
        assert torch.equal(read(INPUTS), original(INPUTS))
    # what anybody's checkpoints are compared with reads it, too
    assert "rnn.weight_hh_l1[g]" in rs.compare(tmp_path / "both").index
    with pytest.raises(InputError, match="is not a rankscope network"):
        rs.RateRNN.load(tmp_path / "both")
    after.save(tmp_path / "one")
    with pytest.raises(InputError, match="must hold the tensors of a GatedRNN, but"):
        rs.GatedRNN.load(tmp_path / "one", initial=True)
    with pytest.raises(InputError, match=r"must be a file that GatedRNN.save wrote"):
        rs.GatedRNN.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "grru"}, r"kind must be one of 'rnn', 'gru', 'lstm', got 'grru' \(did you mean 'gru'\?\)"),
        ({"size": 0}, "hidden_size must be a whole number >= 1, got 0"),
        ({"layers": 1.5}, "layers must be a whole number >= 1, got 1.5"),
        ({"gain": -1}, "gain must be a finite number >= 0, got -1"),
        ({"rng": "x"}, "rng must be a seed"),
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
