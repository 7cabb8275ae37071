"""Training gated networks and any torch module."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import rankscope as rs
from rankscope.errors import InputError
from rankscope.tasks import FlipFlop

TASK = FlipFlop(duration=15)


def gated(kind="gru", layers=1, **options):
    return rs.GatedRNN.initialize(TASK, kind, hidden_size=6, num_layers=layers, rng=0, **options)


class Own(nn.Module):
    """A recurrent network with dropout and noise, in a few lines."""

    def __init__(self, N=6, drop=0.0):
        super().__init__()
        rng = np.random.default_rng(0)
        for name, shape in {"take": (N, 2), "core": (N, N), "give": (2, N), "bias": (N,)}.items():
            setattr(self, name, nn.Parameter(torch.tensor(rng.normal(0, N**-0.5, shape))))
        self.drop = nn.Dropout(drop)

    def forward(self, inputs):
        h, outputs = inputs.new_zeros(len(inputs), len(self.core)), []
        for u in inputs.unbind(1):
            h = torch.tanh(self.drop(h) @ self.core.T + u @ self.take.T + self.bias)
            outputs.append(h @ self.give.T)
        return torch.stack(outputs, 1)


class Noisy(Own):
    def forward(self, inputs, rng=None):
        return super().forward(inputs + torch.tensor(rng.normal(0, 0.1, inputs.shape)))


def reference(net, trials, learning_rate, clip_norm):
    """What a training is, in plain torch, with its own optimizer and clipping."""
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=learning_rate)
    losses, norms = [], []
    for batch in trials:
        z = net(batch.inputs.to(next(net.parameters())))
        loss = 0.5 * (batch.mask * (z - batch.targets) ** 2).sum() / batch.mask.sum()
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(net.parameters(), clip_norm or torch.inf)))
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


@pytest.mark.parametrize("clip_norm", [None, 0.03])
@pytest.mark.parametrize(
    "make", [lambda: gated(dtype=torch.float64), lambda: gated("lstm", 2, dtype=torch.float64), Own]
)
def test_equals_the_loop_written_out(make, clip_norm):
    net, twin = make(), make()
    rng = np.random.default_rng(1)
    trials = [TASK.sample(4, rng) for _ in range(6)]
    losses, norms = reference(twin, trials, 0.01, clip_norm)
    history = rs.train(net, trials, learning_rate=0.01, clip_norm=clip_norm)
    np.testing.assert_allclose(history.losses, losses, rtol=1e-6)
    np.testing.assert_allclose(history.gradient_norms, norms, rtol=1e-5)
    assert max(norms) > 0.03
    for (name, ours), theirs in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5, msg=name)


def test_a_frozen_part_stays():
    net = gated()
    net.rnn.weight_ih_l0.requires_grad_(False)
    before = net.snapshot()
    rs.train(net, TASK, 2, 0, learning_rate=0.01)
    same = {n for n, w in net.state_dict().items() if torch.equal(w, before.state_dict()[n])}
    assert same == {"rnn.weight_ih_l0"}
    net.requires_grad_(False)
    with pytest.raises(InputError, match="must have something to train, got no parameter with requires_grad"):
        rs.train(net, TASK, 2, 0)


def exact(before, after, name):
    change = after.state_dict()[name] - before.state_dict()[name]
    return torch.linalg.svdvals(change.double()).numpy()


def test_each_recorded_matrix_has_its_history():
    net = gated("gru", 2)
    states = {}

    def remember(done, total, loss):
        states[done] = net.snapshot()

    states[0] = net.snapshot()
    options = {"recorded_epochs": [0, 2, 4], "record_weights": True, "singular_values": 4}
    history = rs.train(net, TASK, 5, 0, learning_rate=0.01, progress=remember, **options)
    assert list(history.matrices) == ["rnn.weight_hh_l0", "rnn.weight_hh_l1"]
    for name, seen in history.matrices.items():
        assert seen.singular_values.shape == (3, 4)
        for row, epoch in enumerate([0, 2, 4]):
            np.testing.assert_array_equal(seen.weights[row], states[epoch].state_dict()[name])
            values = exact(states[0], states[epoch], name)
            np.testing.assert_allclose(seen.singular_values[row], values[:4], rtol=1e-3, atol=1e-7)
        assert seen.eigenvalues is None
    first, second = history.matrices.values()
    assert history.singular_values is first.singular_values
    assert history.weights is first.weights
    assert history.eigenvalues is None
    data = history.to_dataset("rnn.weight_hh_l1")
    np.testing.assert_array_equal(data["singular_value_history"], second.singular_values)
    np.testing.assert_array_equal(history.to_dataset()["singular_value_history"], first.singular_values)
    with pytest.raises(InputError, match=r"matrix must be one of .* \(did you mean 'rnn.weight_hh_l1'\?\)"):
        history.to_dataset("rnn.weight_hh_11")


def test_matrices_by_name_and_pattern():
    net = Own()
    history = rs.train(net, TASK, 3, 0, matrices=["ta*", "core"], eigenvalues=2, recorded_epochs=3)
    assert list(history.matrices) == ["take", "core"]
    assert history.matrices["take"].eigenvalues is None
    assert history.matrices["core"].eigenvalues.shape == (3, 2)
    assert list(rs.train(Own(), TASK, 1, 0).matrices) == ["core"]
    with pytest.raises(InputError, match=r"eigenvalues must be 0 as none of the matrices \['take'\] is square, got 2"):
        rs.train(net, TASK, 3, 0, matrices=["take"], eigenvalues=2)
    rate = rs.RateRNN.initialize(TASK, 6, rng=0)
    assert list(rs.train(rate, TASK, 1, 0, matrices=["input_weights"]).matrices) == ["input_weights"]


NETWORKS = {
    "lstm": lambda: gated("lstm", 2),
    "own": Own,
    "noise": Noisy,
    "dropout": lambda: Own(drop=0.3),
}


def weights_of(network):
    return {name: w.clone() for name, w in network.state_dict().items()}


@pytest.mark.parametrize("kind", NETWORKS)
def test_goes_on_bit_for_bit(tmp_path, kind):
    whole, interrupted, resumed = (NETWORKS[kind]() for _ in range(3))
    options = {"recorded_epochs": [0, 1, 4], "record_weights": True, "clip_norm": 0.2}
    expected = rs.train(whole, TASK, 5, 0, **options)

    def stop(done, total, loss):
        torch.rand(1)  # other draws from torch's generator have no influence
        if done == 3:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        rs.train(interrupted, TASK, 5, 0, checkpoint=path, progress=stop, **options)
    found = rs.train(resumed, TASK, 5, 0, checkpoint=path, **options)
    np.testing.assert_array_equal(found.losses, expected.losses)
    for name, seen in expected.matrices.items():
        np.testing.assert_array_equal(found.matrices[name].weights, seen.weights)
        np.testing.assert_array_equal(found.matrices[name].singular_values, seen.singular_values)
    ends = weights_of(resumed)
    assert all(torch.equal(w, ends[name]) for name, w in weights_of(whole).items())
    assert not torch.equal(
        ends[next(iter(expected.matrices))], weights_of(NETWORKS[kind]())[next(iter(expected.matrices))]
    )


class Counting(Own):
    """Its scale depends on the number of forward passes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, inputs):
        self.runs += 1
        return super().forward(inputs) * (1 + 1 / self.runs)


def test_an_interrupted_epoch_restores_the_buffers(tmp_path):
    path = tmp_path / "checkpoint"
    trials = [TASK.sample(4, rng=rng) for rng in range(4)]
    whole, interrupted, resumed = Counting(), Counting(), Counting()

    def loss(outputs, targets, mask):
        if interrupted.runs == 3:
            raise KeyboardInterrupt
        return rs.squared_loss(outputs, targets, mask)

    expected = rs.train(whole, trials, loss=loss)
    with pytest.raises(KeyboardInterrupt):
        rs.train(interrupted, trials, checkpoint=path, loss=loss)
    assert float(interrupted.runs) == 2
    found = rs.train(resumed, trials, checkpoint=path, loss=loss)
    np.testing.assert_array_equal(found.losses, expected.losses)
    assert float(resumed.runs) == 4


def test_the_randomness_of_a_module_comes_from_rng():
    losses = [rs.train(NETWORKS[kind](), TASK, 3, rng).losses for kind in ("dropout", "noise") for rng in (0, 0, 1)]
    quiet = rs.train(Own(), TASK, 3, 0).losses
    for one, same, other in (losses[:3], losses[3:]):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)
        assert not np.array_equal(one, quiet)


def test_evaluating_leaves_dropout_out_and_the_mode_as_it_was():
    net, trials = Own(drop=0.5), TASK.sample(4, rng=0)
    twin = copy.deepcopy(net).eval()
    assert rs.evaluate(net, trials, 0) == rs.evaluate(net, trials, 1) == rs.evaluate(twin, trials, 0)
    assert all(module.training for module in net.modules())
    assert not any(module.training for module in twin.modules())


def test_state_files_of_other_networks_are_refused(tmp_path):
    path = tmp_path / "checkpoint"
    rs.train(gated("gru", 2), TASK, 2, 0, checkpoint=path)
    other = gated("gru", 2)
    with torch.no_grad():
        other.rnn.weight_hh_l1.add_(1)
    for network, options, message in [
        (gated("lstm", 2), {}, "with architecture = "),
        (
            gated("gru", 2),
            {"matrices": ["rnn.weight_hh_l1"]},
            r"with matrices = \['rnn.weight_hh_l0', 'rnn.weight_hh_l1'\]",
        ),
        (other, {}, "got other rnn.weight_hh_l1; remove the checkpoint"),
    ]:
        before = weights_of(network)
        with pytest.raises(InputError, match=message):
            rs.train(network, TASK, 3, 0, checkpoint=path, **options)
        assert all(torch.equal(w, before[name]) for name, w in weights_of(network).items())
    assert rs.train(gated("gru", 2), TASK, 3, 0, checkpoint=path).epochs == 3


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_divergence_is_recorded_and_the_weights_stay(clip_norm):
    def burst(outputs, targets, mask):
        return outputs.square().mean() * (torch.inf if len(outputs) == 3 else 1)

    net = gated()
    trials = [TASK.sample(n, rng=0) for n in (2, 2, 3, 2)]
    states = []
    history = rs.train(
        net,
        trials,
        learning_rate=0.01,
        loss=burst,
        clip_norm=clip_norm,
        progress=lambda *_: states.append(weights_of(net)),
    )
    assert history.status == "diverged"
    assert history.diverged_epoch == 2
    assert all(torch.equal(w, states[1][name]) for name, w in weights_of(net).items())


class Fixed(Own):
    def forward(self, inputs):
        return super().forward(inputs).detach()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Own, "network must be a network: a RateRNN, a GatedRNN or a torch.nn.Module, got the class Own"),
        (None, "network must be a network: .* got NoneType"),
        (Fixed(), "network must have outputs that depend on its parameters"),
        (nn.Dropout(), "network must have a matrix among its parameters, got none"),
        (nn.Linear(2, 3), r"must have one shape \(batch, time, out\)"),
    ],
)
def test_networks_that_are_refused(network, message):
    with pytest.raises(InputError, match=message):
        rs.train(network, TASK, 2, 0)
