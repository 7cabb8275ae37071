"""The input-driven fixed point: its one trial."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.errors import InputError
from rankscope.tasks import FixedPoint


def test_equals_the_recorded_batches(reference):
    trials = FixedPoint(target=0.5, duration=21).sample(1, rng=0)
    with np.load(reference("traces/fixed_point_linear_sgd.npz")) as trace:
        for step in range(20):
            for name in ("inputs", "targets", "mask"):
                np.testing.assert_array_equal(trace[name][step], getattr(trials, name).numpy())


def test_example_by_hand():
    trials = FixedPoint(target=2, duration=3).example()
    assert trials.inputs.flatten().tolist() == [0, 0, 1, 1, 1, 1]
    assert trials.targets.flatten().tolist() == [0, 0, 0, 0, 2, 2]
    assert trials.mask.flatten().tolist() == [0, 0, 0, 0, 1, 1]


@settings(deadline=None, max_examples=40)
@given(
    dt=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    target=st.floats(-4, 4, width=32),
    onset=st.integers(0, 5),
    between=st.integers(0, 20),
    loss_window=st.integers(1, 3),
    batch=st.integers(1, 4),
)
def test_every_fixed_point_task_is_consistent(dt, target, onset, between, loss_window, batch):
    duration = onset + between + loss_window
    task = FixedPoint(target=target, dt=dt, duration=duration, onset=onset, loss_window=loss_window)
    trials = task.sample(batch, rng=0)
    time = np.round(np.arange(task.steps) * dt, 9)
    assert len(time) == round(duration / dt)
    for row in range(batch):
        np.testing.assert_array_equal(trials.inputs[row, :, 0], time >= onset)
        np.testing.assert_array_equal(trials.mask[row, :, 0], time >= duration - loss_window)
        np.testing.assert_array_equal(trials.targets[row, :, 0], target * trials.mask[row, :, 0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"duration": 0}, "duration must be a finite number > 0, got 0"),
        ({"onset": -1}, "onset must be a finite number >= 0, got -1"),
        ({"onset": 102}, r"onset must be at most duration - loss_window = 100, .*got 102"),
        ({"onset": 100.5}, r"onset must be at most duration - loss_window = 100, .*got 100\.5"),
        ({"loss_window": 102}, r"loss_window must be at most duration = 101, got 102"),
        ({"loss_window": 0}, "loss_window must be a finite number > 0, got 0"),
        ({"dt": 2}, "dt must be at most 1, so that loss_window = 1 lasts one step or more, got 2"),
        ({"target": float("nan")}, "target must be a finite number, got nan"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        FixedPoint(**wrong)
