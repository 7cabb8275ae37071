"""The autonomous cosine: targets at the time of each readout, and the mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.errors import InputError
from rankscope.tasks import Cosine


def test_example_by_hand():
    trials = Cosine().example()
    targets = trials.targets[0, :, 0].numpy()
    assert targets[0] == pytest.approx(np.cos(2 * np.pi * 0.1 / 5))  # after one step, time 0.1
    assert targets[24] == pytest.approx(-1)  # time 2.5, half a period
    assert targets[49] == pytest.approx(1)  # time 5, one period
    assert targets[199] == pytest.approx(1)  # time 20, to the end of the trial
    assert trials.mask[0, :, 0].tolist() == [1] * 100 + [0] * 100  # two periods
    assert not trials.inputs.any()


@settings(deadline=None, max_examples=40)
@given(
    dt=st.sampled_from([0.05, 0.1, 0.25, 0.5]),
    period=st.integers(2, 8),
    mask_periods=st.integers(1, 3),
    longer=st.integers(0, 10),
    batch=st.integers(1, 3),
)
def test_the_target_is_the_state_after_each_step_of_a_rotation(dt, period, mask_periods, longer, batch):
    task = Cosine(period=period, duration=mask_periods * period + longer, dt=dt, mask_periods=mask_periods)
    trials = task.sample(batch, rng=0)
    turn, state = np.exp(2j * np.pi * dt / period), 1.0 + 0.0j
    for step in range(task.steps):
        state *= turn
        np.testing.assert_allclose(trials.targets[:, step, 0], state.real, atol=1e-5)
    masked = round(mask_periods * period / dt)
    assert trials.steps == masked + round(longer / dt)
    assert trials.mask[:, :masked].all()
    assert not trials.mask[:, masked:].any()
    assert not trials.inputs.any()


def test_masked_stretch_may_fill_the_trial_or_be_a_fraction_of_a_period():
    assert Cosine(duration=10).example().mask.sum() == 100
    assert Cosine(mask_periods=0.5).example().mask.sum() == 25


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"period": 0}, "period must be a finite number > 0, got 0"),
        ({"duration": -1}, "duration must be a finite number > 0, got -1"),
        ({"mask_periods": 5}, r"mask_periods must be between .* = 0\.02 and duration / period = 4, got 5"),
        ({"mask_periods": 0.01}, r"mask_periods must be between dt / period = 0\.02 .*got 0\.01"),
        ({"mask_periods": 0}, "mask_periods must be a finite number > 0, got 0"),
        ({"duration": 9}, r"mask_periods must be between .* and duration / period = 1\.8, got 2\.0"),
        ({"dt": 2.5}, r"dt must be below period / 2 = 2\.5, .*got 2\.5"),
        ({"dt": 30}, "dt must be at most 20, so that duration = 20 lasts one step or more, got 30"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Cosine(**wrong)
