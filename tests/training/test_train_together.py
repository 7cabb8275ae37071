"""Networks that are trained together end where each ends alone."""

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.training.together import train_together

TASK = rs.tasks.FlipFlop(duration=20)
GAINS = (0.0, 0.6, 1.5)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no graphics card here")
    ),
]


def networks(**options):
    return [
        rs.RateRNN.initialise(TASK, hidden_size=24, gain=gain, rng=seed, **options) for seed, gain in enumerate(GAINS)
    ]


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
        {"optimiser": "sgd", "learning_rate": 0.1},
        {"clip_norm": 0.01},
        {"recorded_epochs": [0, 7], "eigenvalues": 3},
    ],
    ids=["adam", "sgd", "clipped", "recorded"],
)
def test_twenty_steps_are_those_of_each_alone(options, device):
    alone, together, each, at_once = both(device=device, **options)
    for one, other, history, found in zip(alone, together, each, at_once, strict=True):
        np.testing.assert_allclose(found.losses, history.losses, rtol=2e-5)
        np.testing.assert_allclose(found.gradient_norms, history.gradient_norms, rtol=1e-4)
        np.testing.assert_array_equal(found.recorded_epochs, history.recorded_epochs)
        np.testing.assert_allclose(found.singular_values, history.singular_values, atol=1e-4)
        if history.eigenvalues is not None:
            np.testing.assert_allclose(found.eigenvalues.real, history.eigenvalues.real, atol=1e-4)
        assert found.status == history.status == "finished"
        for name, weights in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], weights, rtol=1e-4, atol=2e-5)


def test_bias_initial_state_and_a_part_that_does_not_learn():
    kinds = {"trained": ("recurrent", "bias", "initial_state"), "nonlinearity": "relu"}
    alone, together, _, _ = both(kinds=kinds)
    for one, other, fresh in zip(alone, together, networks(**kinds), strict=True):
        torch.testing.assert_close(other.bias, one.bias, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(other.initial_state, one.initial_state, rtol=1e-4, atol=2e-5)
        assert other.bias.abs().max() > 0
        torch.testing.assert_close(other.input_weights, fresh.input_weights, rtol=0, atol=0)


def test_one_that_diverges_is_recorded_and_leaves_the_others_alone():
    options = {"optimiser": "sgd", "learning_rate": 0.1}
    wild = networks()
    with torch.no_grad():
        wild[1].output_weights *= 1e25
    kept = wild[1].snapshot()
    histories = train_together(wild, TASK, 20, [10, 11, 12], batch_size=8, **options)
    _, calm, _, expected = both(**options)
    assert [history.status for history in histories] == ["finished", "diverged", "finished"]
    assert histories[1].diverged_epoch == 0
    torch.testing.assert_close(wild[1].recurrent_weights, kept.recurrent_weights, rtol=0, atol=0)
    for e in (0, 2):
        np.testing.assert_allclose(histories[e].losses, expected[e].losses, rtol=1e-6)
        torch.testing.assert_close(wild[e].recurrent_weights, calm[e].recurrent_weights, rtol=1e-5, atol=1e-6)


def test_any_loss():
    def fourth_power(outputs, targets, mask):
        return (mask * (outputs - targets) ** 4).sum() / mask.sum()

    alone, together, each, at_once = both(loss=fourth_power)
    for one, other, history, found in zip(alone, together, each, at_once, strict=True):
        np.testing.assert_allclose(found.losses, history.losses, rtol=2e-5)
        torch.testing.assert_close(other.output_weights, one.output_weights, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda some: some[:0], "at least one"),
        (lambda some: some[0], "must be a list"),
        (lambda some: [*some, rs.RateRNN.initialise(TASK, hidden_size=25, rng=0)], "another kind or size at 3"),
        (
            lambda some: [*some, rs.RateRNN.initialise(TASK, 24, rng=0, nonlinearity="relu")],
            "another kind or size at 3",
        ),
        (lambda some: [rs.RateRNN.initialise(TASK, 24, rng=0, noise_std=0.1)], "no noise"),
        (lambda some: [rs.RateRNN.initialise(TASK, 24, rng=0, convention="rate")], "current convention"),
        (lambda some: [rs.RateRNN.initialise(TASK, 24, rng=0, trained=())], "something to train"),
    ],
)
def test_networks_that_cannot_be_trained_together(change, message):
    with pytest.raises(rs.InputError, match=message):
        train_together(change(networks()), TASK, 2, [0, 1, 2])


def test_a_source_of_trials_for_each():
    with pytest.raises(rs.InputError, match="rngs must have one source for each of 3"):
        train_together(networks(), TASK, 2, [0, 1])


def test_trials_of_one_shape():
    class Growing:
        dt, steps = 0.5, 4

        def sample(self, batch_size, rng):
            self.steps += 1
            task = TASK if self.steps < 6 else rs.tasks.FlipFlop(duration=30)
            return task.sample(batch_size, rng)

    with pytest.raises(rs.InputError, match="trials of one shape"):
        train_together(networks(), Growing(), 2, [0, 1, 2])
