"""Networks trained together end where each ends alone."""

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.training import train_together

TASK = rs.tasks.FlipFlop(duration=20)
GAINS = (0.0, 0.6, 1.5)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]
PAPER_GAINS = [round(0.3 * step, 1) for step in range(11)]


def networks(**options):
    return [
        rs.RateRNN.initialize(TASK, hidden_size=24, gain=gain, rng=seed, **options) for seed, gain in enumerate(GAINS)
    ]


def fourth_power(outputs, targets, mask):
    return (mask * (outputs - targets) ** 4).sum() / mask.sum()


def both(epochs=20, device=None, kinds=None, **options):
    alone, together = networks(**(kinds or {})), networks(**(kinds or {}))
    rngs = range(10, 13)
    each = [
        rs.train(network, TASK, epochs, rng, batch_size=8, **options) for network, rng in zip(alone, rngs, strict=True)
    ]
    at_once = train_together(together, TASK, epochs, list(rngs), batch_size=8, device=device, **options)
    return alone, together, each, at_once


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "sgd", "learning_rate": 0.1},
        {"clip_norm": 0.01},
        {"recorded_epochs": [0, 7], "eigenvalues": 3, "record_weights": True},
        {"loss": fourth_power},
        {"kinds": {"trained": ("recurrent", "bias", "initial_state"), "nonlinearity": "relu"}},
    ],
    ids=["adam", "sgd", "clipped", "recorded", "loss", "bias"],
)
def test_twenty_steps_agree_with_each_alone(options, device):
    alone, together, each, at_once = both(device=device, **options)
    for one, other, history, found in zip(alone, together, each, at_once, strict=True):
        np.testing.assert_allclose(found.losses, history.losses, rtol=2e-5)
        np.testing.assert_allclose(found.gradient_norms, history.gradient_norms, rtol=1e-4)
        np.testing.assert_array_equal(found.recorded_epochs, history.recorded_epochs)
        np.testing.assert_allclose(found.singular_values, history.singular_values, atol=1e-4)
        if history.eigenvalues is not None:
            np.testing.assert_allclose(found.eigenvalues.real, history.eigenvalues.real, atol=1e-4)
            np.testing.assert_allclose(found.weights, history.weights, atol=2e-5)
        assert found.status == history.status == "finished"
        for name, weights in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], weights, rtol=1e-4, atol=2e-5)


def of_the_paper(task, size, gains, dtype):
    drawn = [rs.RateRNN.initialize(task, hidden_size=size, gain=gain, rng=seed) for seed, gain in enumerate(gains)]
    return [network.to(dtype) for network in drawn]


def alone_and_together(task, size, gains, dtype, device, epochs=20):
    alone, at_once = (of_the_paper(task, size, gains, dtype) for _ in range(2))
    options = {"recorded_epochs": [0, epochs - 1]}
    expected = [rs.train(network, task, epochs, seed, **options) for seed, network in enumerate(alone)]
    found = train_together(at_once, task, epochs, list(range(len(gains))), device=device, **options)
    return zip(alone, expected, at_once, found, strict=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["flipflop", "mante", "romo"])
def test_the_papers_tasks_agree_to_single_precision(name, device):
    task = rs.tasks.make(name)
    for alone, history, other, found in alone_and_together(task, 64, (0.0, 0.3, 0.6, 0.9), torch.float32, device):
        np.testing.assert_allclose(found.losses, history.losses, rtol=1e-5)
        np.testing.assert_allclose(found.gradient_norms, history.gradient_norms, rtol=1e-4)
        np.testing.assert_allclose(found.singular_values, history.singular_values, atol=2e-6)
        torch.testing.assert_close(other.recurrent_weights, alone.recurrent_weights, rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["flipflop", "mante", "romo"])
def test_they_agree_at_each_gain_in_double_precision(name, device):
    # Above g = 1 a rounding grows within a trial and from epoch to epoch: after three epochs up to a million times.
    task = rs.tasks.make(name)
    for alone, history, other, found in alone_and_together(task, 64, PAPER_GAINS, torch.float64, device, 3):
        np.testing.assert_allclose(found.losses, history.losses, rtol=1e-8)
        torch.testing.assert_close(other.recurrent_weights, alone.recurrent_weights, rtol=0, atol=1e-8)


def wild_networks():
    some = networks(nonlinearity="relu")
    with torch.no_grad():
        some[1].output_weights *= 1000
        some[2].output_weights *= 300
    return some


def test_each_ends_in_its_own_way():
    # The first step of the second one is enough to stop, that of the third is so long that its loss explodes.
    options = {"batch_size": 8, "optimizer": "sgd", "learning_rate": 0.1, "stop_below": 0.6, "recorded_epochs": 7}
    rngs, alone_rngs, seen = ([np.random.default_rng(seed) for seed in range(3)] for _ in range(3))
    seen.clear()
    together, by_one = wild_networks(), wild_networks()
    found = train_together(together, TASK, 40, rngs, progress=lambda *each: seen.append(each[0]), **options)
    expected = [rs.train(one, TASK, 40, rng, **options) for one, rng in zip(by_one, alone_rngs, strict=True)]
    assert {history.status for history in expected} == {"finished", "diverged", "stopped"}
    for history, alone in zip(found, expected, strict=True):
        assert (history.status, history.epochs) == (alone.status, alone.epochs)
        np.testing.assert_array_equal(history.recorded_epochs, alone.recorded_epochs)
    for one, other in zip(together, by_one, strict=True):
        torch.testing.assert_close(other.recurrent_weights, one.recurrent_weights, rtol=1e-4, atol=1e-4)
    assert seen == list(range(1, 41))
    assert [rng.random() for rng in rngs] == [rng.random() for rng in alone_rngs]


@pytest.mark.parametrize("device", DEVICES)
def test_each_can_be_continued_alone_or_with_others(tmp_path, device):
    options = {"batch_size": 8, "recorded_epochs": [0, 3, 9], "device": device}
    whole = networks()
    expected = train_together(whole, TASK, 12, [0, 1, 2], **options)
    paths = [tmp_path / str(e) for e in range(3)]
    epochs = iter(range(1, 99))

    def stop(*_):
        if next(epochs) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_together(networks(), TASK, 12, [0, 1, 2], checkpoints=paths, progress=stop, **options)
    del options["device"]
    alone = rs.train(networks()[0], TASK, 12, 0, checkpoint=paths[0], **options)
    rest = networks()[1:]
    found = train_together(rest, TASK, 12, [1, 2], checkpoints=paths[1:], device=device, **options)
    for history, other in zip([alone, *found], expected, strict=True):
        np.testing.assert_allclose(history.losses, other.losses, rtol=2e-5)
        np.testing.assert_array_equal(history.recorded_epochs, other.recorded_epochs)
    torch.testing.assert_close(rest[1].recurrent_weights, whole[2].recurrent_weights, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", [{}, {"optimizer": "sgd"}, {"schedule": {"name": "StepLR", "step_size": 2}}])
def test_a_resumed_group_is_the_same_to_the_bit(tmp_path, device, options):
    whole, resumed = networks(), networks()
    train_together(whole, TASK, 9, [0, 1, 2], device=device, **options)
    paths = [tmp_path / str(e) for e in range(3)]
    train_together(networks(), TASK, 4, [0, 1, 2], device=device, checkpoints=paths, **options)
    train_together(resumed, TASK, 9, [0, 1, 2], device=device, checkpoints=paths, **options)
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(one.recurrent_weights, other.recurrent_weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda some: some[:0], "at least one"),
        (lambda some: some[0], "must be a list"),
        (lambda some: [*some, rs.RateRNN.initialize(TASK, hidden_size=25, rng=0)], "got another at 3"),
        (
            lambda some: [*some, rs.RateRNN.initialize(TASK, 24, rng=0, nonlinearity="relu")],
            "got another at 3",
        ),
        (lambda some: [rs.RateRNN.initialize(TASK, 24, rng=0, noise_std=0.1)], "no noise"),
        (lambda some: [rs.RateRNN.initialize(TASK, 24, rng=0, convention="rate")], "current convention"),
        (lambda some: [rs.RateRNN.initialize(TASK, 24, rng=0, trained=()) for _ in some], "something to train"),
    ],
)
def test_networks_that_cannot_be_trained_together(change, message):
    with pytest.raises(rs.InputError, match=message):
        train_together(change(networks()), TASK, 2, [0, 1, 2])
    with pytest.raises(rs.InputError, match="rngs must have one source for each of 3"):
        train_together(networks(), TASK, 2, [0, 1])
    with pytest.raises(rs.InputError, match="checkpoints must have a file for each of 3"):
        train_together(networks(), TASK, 2, [0, 1, 2], checkpoints=["one"])


def test_trials_of_one_shape():
    class Growing:
        dt, steps = 0.5, 4

        def sample(self, batch_size, rng):
            self.steps += 1
            task = TASK if self.steps < 6 else rs.tasks.FlipFlop(duration=30)
            return task.sample(batch_size, rng)

    with pytest.raises(rs.InputError, match="trials of one shape"):
        train_together(networks(), Growing(), 2, [0, 1, 2])
