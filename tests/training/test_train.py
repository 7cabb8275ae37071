"""Training a rate network: equal to a plain loop, reproducible, and the ways in which it ends."""

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.tasks import FixedPoint, FlipFlop

TASK = FlipFlop(duration=20)
PARTS = {"input": "input_weights", "recurrent": "recurrent_weights", "output": "output_weights"} | {
    name: name for name in ("bias", "initial_state")
}


def network(task=TASK, seed=0, size=16, **options):
    return rs.RateRNN.initialize(task, hidden_size=size, gain=0.9, rng=seed, **options)


def weights(net):
    return {name: w.clone() for name, w in net.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def batches(count, seed=0, task=TASK):
    rng = np.random.default_rng(seed)
    return [task.sample(4, rng) for _ in range(count)]


def reference_training(net, trials, optimizer, clip_norm=None):
    """What the loop is, in plain torch: tanh units, the current convention, dt of the task."""
    W_in, W, W_out = (p.detach().clone().requires_grad_() for p in net.weights[:3])
    steps = optimizer([W_in, W, W_out])
    losses, norms = [], []
    for batch in (b.to(W.dtype) for b in trials):
        h, outputs = torch.zeros(len(batch), len(W), dtype=W.dtype), []
        for u in batch.inputs.unbind(1):
            h = 0.5 * h + 0.5 * (torch.tanh(h) @ W.t() + u @ W_in.t())
            outputs.append(torch.tanh(h) @ W_out.t())
        loss = 0.5 * (batch.mask * (torch.stack(outputs, 1) - batch.targets) ** 2).sum() / batch.mask.sum()
        gradients = torch.autograd.grad(loss, [W_in, W, W_out])
        norm = torch.sqrt(sum((g**2).sum() for g in gradients))
        scale = 1.0 if clip_norm is None else min(1.0, clip_norm / float(norm))
        for parameter, gradient in zip([W_in, W, W_out], gradients, strict=True):
            parameter.grad = gradient * scale
        steps.step()
        losses.append(loss.item())
        norms.append(float(norm))
    return losses, norms, [W_in, W, W_out]


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize(
    ("name", "rate", "build"),
    [
        ("adam", 0.01, lambda p: torch.optim.Adam(p, lr=0.01)),
        ("sgd", 0.3, lambda p: torch.optim.SGD(p, lr=0.3)),
        ("adam", None, lambda p: torch.optim.Adam(p, lr=0.05 / 16)),
    ],
)
def test_equals_the_loop_written_out(name, rate, build, clip_norm):
    net, trials = network(dtype=torch.float64), batches(8)
    losses, norms, ends = reference_training(net, trials, build, clip_norm)
    history = rs.train(net, trials, optimizer=name, learning_rate=rate, clip_norm=clip_norm)
    # torch adds 1e-6 to the norm it clips by
    tolerance = 1e-9 if clip_norm is None else 1e-4
    np.testing.assert_allclose(history.losses, losses, rtol=tolerance)
    np.testing.assert_allclose(history.gradient_norms, norms, rtol=tolerance)
    assert max(norms) > 0.05  # some were clipped
    for ours, theirs in zip(net.weights, ends, strict=False):
        if ours is not None:
            torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=0, atol=tolerance)


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    nets = [network() for _ in range(4)]
    seeds = (5, 5, np.random.default_rng(5), 6)
    histories = [rs.train(net, TASK, 6, seed, batch_size=4) for net, seed in zip(nets, seeds, strict=True)]
    for net, history in zip(nets[1:3], histories[1:3], strict=True):
        np.testing.assert_array_equal(history.losses, histories[0].losses)
        np.testing.assert_array_equal(history.gradient_norms, histories[0].gradient_norms)
        assert same(weights(net), weights(nets[0]))
    assert not np.array_equal(histories[3].losses, histories[0].losses)
    assert not same(weights(nets[3]), weights(nets[0]))


def test_noise_comes_from_the_same_seed():
    nets = [network(noise_std=0.2) for _ in range(3)]
    losses = [
        rs.train(net, batches(5), rng=seed, recorded_epochs=0).losses for net, seed in zip(nets, (1, 1, 2), strict=True)
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert same(weights(nets[0]), weights(nets[1]))
    assert not np.array_equal(losses[0], losses[2])  # the trials were the same


def test_recording_does_not_touch_the_training(tmp_path):
    calls = [
        {},
        {"recorded_epochs": 0},
        {"recorded_epochs": 7, "record_weights": True, "singular_values": 2},
        {"checkpoint": tmp_path / "here", "checkpoint_seconds": 0},
        {"progress": lambda *_: None},
    ]
    nets = [network(noise_std=0.1) for _ in calls]
    histories = [rs.train(net, TASK, 7, 0, batch_size=4, **call) for net, call in zip(nets, calls, strict=True)]
    for net, history in zip(nets, histories, strict=True):
        np.testing.assert_array_equal(history.losses, histories[0].losses)
        assert same(weights(net), weights(nets[0]))


@pytest.mark.parametrize(
    "trained", [("recurrent",), ("input", "output"), ("bias",), ("initial_state", "recurrent"), tuple(PARTS)]
)
def test_only_trained_parts_change(trained):
    start = torch.full((16,), 0.1)
    drawn = network()
    net = rs.RateRNN(*drawn.weights[:3], bias=start, initial_state=start, trained=trained)
    before = weights(net)
    rs.train(net, TASK, 3, 0, batch_size=4)
    changed = {name for name, w in weights(net).items() if not torch.equal(w, before[name])}
    assert changed == {PARTS[part] for part in trained}


class Own:
    """A task with nothing but the one method that is required."""

    def __init__(self):
        self.calls = []

    def sample(self, batch_size, rng):
        self.calls.append(batch_size)
        return TASK.sample(batch_size, rng)


def test_a_task_needs_only_sample():
    own, one, other = Own(), network(), network()
    history = rs.train(one, own, 4, 0, batch_size=3)
    np.testing.assert_array_equal(history.losses, rs.train(other, TASK, 4, 0, batch_size=3).losses)
    assert own.calls == [3, 3, 3, 3]
    rs.train(one, own, 1)
    assert own.calls[-1] == 32


def test_a_list_and_a_generator_give_the_same():
    trials = batches(5)
    listed = rs.train(network(), trials)
    generated = rs.train(network(), (batch for batch in trials))
    shorter = rs.train(network(), (batch for batch in trials), 3)
    np.testing.assert_array_equal(listed.losses, generated.losses)
    np.testing.assert_array_equal(listed.losses[:3], shorter.losses)
    assert [h.status for h in (listed, generated, shorter)] == ["finished"] * 3
    # a generator yields no more batches than are needed
    rest = iter(trials)
    rs.train(network(), rest, 2)
    assert len(list(rest)) == 3


def test_an_iterable_that_ends_early_says_so_and_a_list_is_repeated():
    with pytest.warns(UserWarning, match="ended after 4 of 9 epochs"):
        history = rs.train(network(), iter(batches(4)), 9)
    assert (history.epochs, history.status) == (4, "exhausted")
    assert history.diverged_epoch is None
    repeated = rs.train(network(), batches(4), 9)
    assert (repeated.epochs, repeated.status) == (9, "finished")
    np.testing.assert_array_equal(repeated.losses, rs.train(network(), [*batches(4), *batches(4), *batches(1)]).losses)


@pytest.mark.parametrize(
    ("trials", "epochs", "total"),
    [(TASK, 4, 4), (batches(4), None, 4), (batches(4), 9, 9), (iter(batches(4)), None, None)],
    ids=["task", "list", "short list", "generator"],
)
def test_progress_is_called_once_an_epoch(trials, epochs, total):
    calls = []
    history = rs.train(network(), trials, epochs, 0, batch_size=4, progress=lambda *each: calls.append(each))
    expected = [(k, total or k, loss) for k, loss in enumerate(history.losses, start=1)]
    assert calls == expected
    assert len(calls) == (total if total == 9 else 4)


def test_stop_below():
    task = FixedPoint(duration=10)
    full = rs.train(network(task), task, 200, 0, batch_size=1)
    net = network(task)
    history = rs.train(net, task, 200, 0, batch_size=1, stop_below=0.2)
    n = history.epochs
    assert history.status == "stopped"
    assert 1 < n < 200
    assert history.losses[-1] < 0.2 * history.losses[0] <= history.losses[:-1].min()
    np.testing.assert_array_equal(history.losses, full.losses[:n])
    again = network(task)
    rs.train(again, task, n, 0, batch_size=1)
    assert same(weights(net), weights(again))
    assert rs.convergence_epoch(full.losses, 0.2) == n - 1


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("clip_norm", [None, 1e6])
def test_divergence_is_recorded_and_leaves_the_last_finite_weights(optimizer, clip_norm):
    task = FixedPoint(duration=20)
    call = {"optimizer": optimizer, "learning_rate": 30.0, "batch_size": 1, "clip_norm": clip_norm}
    net, again = (network(task, nonlinearity="identity") for _ in range(2))
    history = rs.train(net, task, 100, 0, **call)
    n = history.epochs
    assert history.status == "diverged"
    assert 1 < n < 100
    assert history.diverged_epoch == n - 1
    assert not np.isfinite([history.losses[-1], history.gradient_norms[-1]]).all()
    assert np.isfinite(history.losses[:-1]).all()
    assert np.isfinite(history.gradient_norms[:-1]).all()
    assert np.isfinite(history.singular_values).all()
    assert all(w.isfinite().all() for w in weights(net).values())
    rs.train(again, task, n - 1, 0, **call)
    assert same(weights(net), weights(again))
