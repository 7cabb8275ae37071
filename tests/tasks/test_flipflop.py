"""The flip-flop: targets follow from inputs, and pulses have the right statistics."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.errors import InputError
from rankscope.tasks import FlipFlop


@pytest.fixture(params=["ours", "flipflop_adam", "flipflop_sgd_recurrent_only"])
def batch(request, reference):
    if request.param == "ours":
        trials = FlipFlop().sample(640, rng=0)
        return trials.inputs.numpy(), trials.targets.numpy(), trials.mask.numpy()
    with np.load(reference(f"traces/{request.param}.npz")) as trace:
        assert json.loads(str(trace["meta"]))["dt"] == 0.5
        return tuple(np.concatenate(trace[key]) for key in ("inputs", "targets", "mask"))


def onsets_of(inputs):
    """Steps at which pulses start in one trial (time, channels); pulses are known not to touch."""
    on = (inputs != 0).any(axis=1).astype(int)
    return np.flatnonzero(np.diff(on, prepend=0) == 1)


def check_trial(inputs, targets, mask, *, first=2, width=2, delay=10, gaps=(20, 59), amplitude=1.0, height=0.5):
    """Read the pulses off the inputs, write down what has to follow, and compare; all lengths in steps."""
    steps, onsets = len(inputs), onsets_of(inputs)
    assert onsets[0] == first
    assert np.all(np.diff(onsets) >= gaps[0])
    assert np.all(np.diff(onsets) <= gaps[1])
    assert steps - onsets[-1] <= gaps[1]  # or there would have been another pulse
    want_inputs, want_targets, want_mask = (np.zeros_like(inputs, dtype=float) for _ in range(3))
    for onset, following in zip(onsets, [*onsets[1:], steps], strict=True):
        (channel,) = np.flatnonzero(inputs[onset])
        sign = np.sign(inputs[onset, channel])
        want_inputs[onset : onset + width, channel] = sign * amplitude
        want_targets[onset + delay : following, channel] = sign * height
        want_mask[onset + delay : following] = 1
    np.testing.assert_allclose(inputs, want_inputs, rtol=1e-6)
    np.testing.assert_allclose(targets, want_targets, rtol=1e-6)
    np.testing.assert_array_equal(mask, want_mask)
    assert mask.any()


def test_every_trial_holds_the_sign_of_its_last_pulse(batch):
    for trial in zip(*batch, strict=True):
        check_trial(*trial)


def test_intervals_channels_and_signs_are_uniform(batch):
    inputs, _, _ = batch
    n = len(inputs)
    onsets = [onsets_of(trial) for trial in inputs]
    # the first distance between pulses always ends within the trial, so no cut distorts it: uniform on 20..59
    first_gaps = np.array([found[1] - found[0] for found in onsets])
    assert (first_gaps.min(), first_gaps.max()) == (20, 59)
    assert abs(first_gaps.mean() - 39.5) < 4 * 11.54 / np.sqrt(n)
    assert abs(first_gaps.std() - 11.54) < 1.0
    # the sign, the channel, and whether the channel changes: fair coins, and independent ones
    pulses = [trial[found] for trial, found in zip(inputs, onsets, strict=True)]
    sign = np.array([pulse.sum(axis=1)[:2] for pulse in pulses])
    channel = np.array([pulse[:2, 1] != 0 for pulse in pulses])
    coins = [
        sign > 0,
        channel,
        (sign > 0) ^ channel,
        sign[:, :1] == sign[:, 1:],
        channel[:, :1] ^ channel[:, 1:],
    ]
    for coin in coins:
        assert abs(coin.mean() - 0.5) < 4 * 0.5 / np.sqrt(coin.size)


def test_every_interval_is_equally_likely():
    inputs = FlipFlop().sample(8000, rng=1).inputs.numpy()
    on = (inputs[:, 3:] != 0).any(axis=2)
    gaps = on[:, 2:].argmax(axis=1) + 3  # from onset 2; columns 0 and 1 are steps 3 and 4
    counts = np.bincount(gaps, minlength=60)
    assert counts[:20].sum() == 0
    assert len(counts) == 60
    assert np.all(np.abs(counts[20:] - 200) < 5 * np.sqrt(200))


@st.composite
def flipflops(draw):
    whole = st.integers
    pulse = draw(whole(1, 3))
    interval_min = pulse + draw(whole(0, 4))
    first, delay = draw(whole(0, 3)), draw(whole(1, 5))
    return FlipFlop(
        channels=draw(whole(1, 4)),
        dt=draw(st.sampled_from([0.1, 0.25, 0.5, 1.0])),
        duration=first + delay + draw(whole(1, 30)),
        first_pulse=first,
        pulse=pulse,
        interval_min=interval_min,
        interval_max=interval_min + draw(whole(0, 10)),
        decision_delay=delay,
        amplitude=draw(st.sampled_from([0.3, 1, 2])),
        target=draw(st.sampled_from([0.1, 0.5, 1])),
    )


@settings(deadline=None, max_examples=60)
@given(flipflops(), st.integers(0, 100))
def test_every_trial_of_every_flipflop_is_consistent(task, seed):
    def steps(duration):
        return round(duration / task.dt)  # all durations above are whole numbers, all dt divide 1

    gaps = (steps(task.interval_min + task.decision_delay), steps(task.interval_max + task.decision_delay))
    for trials in (task.sample(4, rng=seed), task.example()):
        assert trials.inputs.shape == (len(trials), steps(task.duration), task.channels)
        for trial in zip(trials.inputs.numpy(), trials.targets.numpy(), trials.mask.numpy(), strict=True):
            check_trial(
                *trial,
                first=steps(task.first_pulse),
                width=steps(task.pulse),
                delay=steps(task.decision_delay),
                gaps=gaps,
                amplitude=task.amplitude,
                height=task.target,
            )


def test_example_by_hand():
    trials = FlipFlop().example()
    inputs, targets, mask = trials.inputs[0].numpy(), trials.targets[0].numpy(), trials.mask[0].numpy()
    want_inputs, want_targets, want_mask = np.zeros((3, 100, 2))
    want_inputs[[2, 3], 0] = 1
    want_inputs[[42, 43], 1] = -1
    want_inputs[[82, 83], 0] = -1
    want_targets[12:42, 0] = 0.5
    want_targets[52:82, 1] = -0.5
    want_targets[92:, 0] = -0.5
    want_mask[12:42] = want_mask[52:82] = want_mask[92:] = 1
    np.testing.assert_array_equal(inputs, want_inputs)
    np.testing.assert_array_equal(targets, want_targets)
    np.testing.assert_array_equal(mask, want_mask)


def test_the_shortest_trial_still_has_a_decision():
    assert FlipFlop(duration=6.5).sample(50, rng=0).mask.sum(dim=1).tolist() == [[1, 1]] * 50


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": 0}, "channels must be a whole number >= 1, got 0"),
        ({"channels": 2.0}, "channels must be a whole number"),
        ({"pulse": 0}, "pulse must be a finite number > 0, got 0"),
        ({"pulse": 6}, "pulse must be at most interval_min = 5, .*got 6"),
        ({"first_pulse": -1}, "first_pulse must be a finite number >= 0, got -1"),
        ({"interval_min": 26}, "interval_min must be at most interval_max = 25, got 26"),
        ({"interval_max": 4}, r"interval_min must be at most interval_max = 4, got 5\.0"),
        ({"decision_delay": -5}, "decision_delay must be a finite number >= 0, got -5"),
        ({"duration": 6}, r"duration must be longer than first_pulse \+ decision_delay = 6 .*got 6"),
        ({"first_pulse": 45}, r"duration must be longer than first_pulse \+ decision_delay = 50 .*got 50"),
        ({"amplitude": 0}, "amplitude must be a finite number > 0, got 0"),
        ({"target": -0.5}, r"target must be a finite number > 0, got -0\.5"),
        ({"dt": 1.5}, r"dt must be at most 1, so that pulse = 1 lasts one step or more, got 1\.5"),
        (
            {"dt": 6, "pulse": 6, "interval_min": 6, "first_pulse": 0},
            "dt must be at most 5, so that decision_del",
        ),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        FlipFlop(**wrong)
