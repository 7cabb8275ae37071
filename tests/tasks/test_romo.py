"""The Romo task: the target is the larger amplitude, and amplitudes and delays have the right distributions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.errors import InputError
from rankscope.tasks import Romo


def check_trial(inputs, targets, mask, *, phases=(6, 2, 10, 20), delays=(4, 15), height=0.5):
    """Read the two stimuli off one trial, write down what has to follow, and compare; lengths in steps."""
    fixation, width, wait, decide = phases
    on = np.flatnonzero(inputs[:, 0])
    assert len(on) == 2 * width
    assert on[0] == fixation
    start = on[width]
    assert delays[0] <= start - fixation - width <= delays[1]
    first, second = inputs[fixation, 0], inputs[start, 0]
    np.testing.assert_array_equal(inputs[on, 0], [first] * width + [second] * width)
    stimuli_end = start + width
    decision = slice(stimuli_end + wait, stimuli_end + wait + decide)
    want = np.zeros_like(targets)
    if targets.shape[1] == 2:
        want[decision, 0 if first > second else 1] = height
    else:
        want[decision, 0] = height if first > second else -height
    np.testing.assert_allclose(targets, want, rtol=1e-6)
    want = np.zeros_like(mask)
    want[:stimuli_end] = want[decision] = 1
    assert want[decision].shape[0] == decide  # the decision never runs past the end
    np.testing.assert_array_equal(mask, want)
    return first, second, start - fixation - width


def check(trials, **expected):
    arrays = (trials.inputs.numpy(), trials.targets.numpy(), trials.mask.numpy())
    return np.array([check_trial(*trial, **expected) for trial in zip(*arrays, strict=True)]).T


def distance_to_cdf(sample, cdf):
    """Kolmogorov-Smirnov distance; below 1.95 / sqrt(n) with probability 0.999."""
    x = np.sort(sample)
    steps = np.arange(len(x) + 1) / len(x)
    return max(np.abs(cdf(x) - steps[1:]).max(), np.abs(cdf(x) - steps[:-1]).max())


def test_amplitudes_are_uniform_given_that_they_differ():
    n, d = 4000, 0.2
    first, second, _ = check(Romo().sample(n, rng=0))
    assert min(first.min(), second.min()) >= 0.5
    assert max(first.max(), second.max()) <= 1.5
    difference = np.abs(first - second)
    assert difference.min() >= d - 1e-6
    assert abs((first > second).mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
    # area of the two triangles beyond |a - b| = x, relative to that beyond d
    assert distance_to_cdf(difference, lambda x: 1 - (1 - x) ** 2 / (1 - d) ** 2) < 1.95 / np.sqrt(n)
    # one amplitude alone: its density is proportional to the range that is left for the other one
    grid = np.linspace(0, 1, 2001)
    density = np.maximum(0, grid - d) + np.maximum(0, 1 - grid - d)
    cdf = np.cumsum(density) / density.sum()
    for amplitude in (first, second):
        assert distance_to_cdf(amplitude - 0.5, lambda x: np.interp(x, grid, cdf)) < 1.95 / np.sqrt(n)


def test_delays_are_uniform():
    first, second, delays = check(Romo().sample(4000, rng=1))
    counts = np.bincount(delays.astype(int), minlength=16)
    assert len(counts) == 16
    assert counts[:4].sum() == 0
    assert np.all(np.abs(counts[4:] - 4000 / 12) < 5 * np.sqrt(4000 / 12))
    correlation = np.corrcoef([delays, first, second])
    assert np.abs(correlation[0, 1:]).max() < 4 / np.sqrt(4000)


@st.composite
def romos(draw):
    whole = st.integers
    delay_min = draw(whole(1, 4))
    amplitude_min = draw(st.sampled_from([0.1, 0.5, 1.0]))
    span = draw(st.sampled_from([0.5, 1.0]))
    return Romo(
        dt=draw(st.sampled_from([0.1, 0.25, 0.5, 1.0])),
        fixation=draw(whole(0, 3)),
        stimulus=draw(whole(1, 3)),
        delay_min=delay_min,
        delay_max=delay_min + draw(whole(0, 5)),
        decision_delay=draw(whole(0, 4)),
        decision=draw(whole(1, 6)),
        amplitude_min=amplitude_min,
        amplitude_max=amplitude_min + span,
        min_difference=draw(st.sampled_from([0.0, 0.2, 0.45])),
        target=draw(st.sampled_from([0.2, 1.0])),
        outputs=draw(whole(1, 2)),
    )


@settings(deadline=None, max_examples=60)
@given(romos(), st.integers(0, 100))
def test_every_romo_task_is_consistent(task, seed):
    durations = (task.fixation, task.stimulus, task.decision_delay, task.decision)
    phases = tuple(round(duration / task.dt) for duration in durations)
    delays = (round(task.delay_min / task.dt), round(task.delay_max / task.dt))
    trials = task.sample(5, rng=seed)
    assert trials.steps == phases[0] + 2 * phases[1] + delays[1] + phases[2] + phases[3]
    assert trials.targets.shape[2] == task.outputs
    first, second, _ = check(trials, phases=phases, delays=delays, height=task.target)
    assert np.all(np.abs(first - second) >= task.min_difference - 1e-6)
    assert min(first.min(), second.min()) >= task.amplitude_min - 1e-6
    assert max(first.max(), second.max()) <= task.amplitude_max + 1e-6


def test_one_output_gives_a_sign():
    two, one = Romo().sample(50, rng=0), Romo(outputs=1).sample(50, rng=0)
    check(one)
    np.testing.assert_array_equal(one.inputs, two.inputs)
    np.testing.assert_array_equal(one.targets[..., 0], two.targets[..., 0] - two.targets[..., 1])


def test_dt_that_does_not_divide_the_phases():
    task = Romo(dt=0.4)  # fixation 7.5 -> 7, stimuli 2.5 -> 2, delays 5..20, 12.5 -> 12, 25; 28 / 0.4 = 70 steps
    assert task.steps == 70
    check(task.sample(200, rng=0), phases=(7, 2, 12, 25), delays=(5, 19))


def test_example_by_hand():
    trials = Romo().example()
    inputs, targets, mask = np.zeros((56, 1)), np.zeros((56, 2)), np.zeros((56, 2))
    inputs[6:8] = 1.5
    inputs[18:20] = 0.5  # after a delay of 5
    targets[30:50, 0] = 0.5
    mask[:20] = mask[30:50] = 1
    np.testing.assert_array_equal(trials.inputs[0], inputs)
    np.testing.assert_array_equal(trials.targets[0], targets)
    np.testing.assert_array_equal(trials.mask[0], mask)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stimulus": 0}, "stimulus must be a finite number > 0, got 0"),
        ({"decision": -1}, "decision must be a finite number > 0, got -1"),
        ({"fixation": -1}, "fixation must be a finite number >= 0, got -1"),
        ({"decision_delay": -1}, "decision_delay must be a finite number >= 0, got -1"),
        ({"delay_min": 9}, "delay_min must be at most delay_max = 8, got 9"),
        ({"delay_min": 0.2}, r"dt must be at most 0\.2, so that delay_min = 0\.2 lasts one step .*got 0\.5"),
        ({"dt": 1.1}, r"dt must be at most 1, so that stimulus = 1 lasts one step or more, got 1\.1"),
        ({"amplitude_min": 1.5}, r"amplitude_min must be below amplitude_max = 1\.5, got 1\.5"),
        (
            {"min_difference": 1.0},
            r"min_difference must be below amplitude_max - amplitude_min = 1, got 1\.0",
        ),
        ({"min_difference": -0.1}, r"min_difference must be a finite number >= 0, got -0\.1"),
        ({"target": 0}, "target must be a finite number > 0, got 0"),
        ({"outputs": 3}, "outputs must be a whole number >= 1 and <= 2, got 3"),
        ({"outputs": 0}, "outputs must be a whole number >= 1 and <= 2, got 0"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Romo(**wrong)
