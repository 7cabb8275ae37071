"""The contract: what Trials accept and refuse, how time is cut into steps, what counts as a task."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankscope.errors import InputError
from rankscope.tasks import Task, Trials, steps_in


def some_trials(batch: int = 3, steps: int = 5) -> Trials:
    numbers = torch.arange(batch * steps * 2, dtype=torch.float32).reshape(batch, steps, 2)
    return Trials(numbers, numbers[..., :1] + 100, torch.ones(batch, steps, 1))


@pytest.mark.parametrize(
    ("duration", "dt", "steps"),
    [
        (0.3, 0.1, 3),
        (50, 0.5, 100),
        (28, 0.5, 56),
        (20, 0.1, 200),
        (0.99, 0.5, 1),
        (0.4, 0.5, 0),
        (0, 0.5, 0),
    ],
)
def test_steps_in(duration, dt, steps):
    assert steps_in(duration, dt) == steps
    assert type(steps_in(duration, dt)) is int


@given(st.integers(1, 100_000), st.sampled_from([0.1, 0.01, 0.2, 0.3, 0.5, 0.7]))
def test_steps_in_survives_rounding_and_cuts_the_rest(steps, dt):
    assert steps_in(steps * dt, dt) == steps
    assert steps_in((steps + 0.5) * dt, dt) == steps
    np.testing.assert_array_equal(steps_in(np.array([[steps * dt, 0.5 * dt]]), dt), [[steps, 0]])


def test_sizes():
    trials = some_trials(batch=3, steps=5)
    assert (len(trials), trials.batch_size, trials.steps) == (3, 3, 5)
    assert repr(trials) == "Trials(batch_size=3, steps=5, in=2, out=1, torch.float32)"


def test_slicing_keeps_the_batch_axis_and_all_three_parts():
    trials = some_trials(batch=4)
    some = trials[1:3]
    assert len(some) == 2
    assert torch.equal(some.inputs, trials.inputs[1:3])
    assert torch.equal(some.targets, trials.targets[1:3])
    assert torch.equal(some.mask, trials.mask[1:3])
    assert len(trials[-1:]) == 1


@pytest.mark.parametrize("index", [0, [0, 1], None, (slice(1), slice(1))])
def test_other_indices_are_refused(index):
    with pytest.raises(InputError, match=r"slice of the batch, such as trials\[3:4\]"):
        some_trials()[index]


def test_an_empty_batch_is_refused():
    with pytest.raises(InputError, match="none of them 0"):
        some_trials()[3:]


def test_to_dtype_and_device():
    double = some_trials().to(torch.float64)
    assert {double.inputs.dtype, double.targets.dtype, double.mask.dtype} == {torch.float64}
    torch.testing.assert_close(double.to(torch.float32).targets, some_trials().targets)
    moved = some_trials().to("meta")
    assert {moved.inputs.device.type, moved.targets.device.type, moved.mask.device.type} == {"meta"}


@pytest.mark.parametrize("where", ["gpu!", 1.5, None])
def test_to_nowhere_is_refused(where):
    with pytest.raises(InputError, match="where must be a torch device or a floating-point dtype"):
        some_trials().to(where)


def test_to_an_integer_dtype_is_refused():
    with pytest.raises(InputError, match=r"float32 torch tensor, got a torch\.int64 tensor"):
        some_trials().to(torch.int64)


def test_from_arrays():
    trials = Trials.from_arrays([[[1, 2]]], np.array([[[3.5]]]), np.array([[[True]]]))
    assert trials.inputs.tolist() == [[[1, 2]]]
    assert trials.targets.tolist() == [[[3.5]]]
    assert trials.mask.tolist() == [[[1]]]
    assert trials.inputs.dtype == trials.targets.dtype == trials.mask.dtype == torch.float32


GOOD = {"inputs": torch.zeros(2, 3, 4), "targets": torch.zeros(2, 3, 1), "mask": torch.ones(2, 3, 1)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"inputs": np.zeros((2, 3, 4))}, "inputs must be a float32 torch tensor, got ndarray"),
        ({"mask": torch.ones(2, 3, 1, dtype=torch.bool)}, r"mask must be a float32 .*torch\.bool"),
        ({"targets": torch.zeros(2, 3)}, r"targets must have shape \(batch, time, channels\).*\(2, 3\)"),
        ({"inputs": torch.zeros(2, 3, 0)}, "inputs must have shape .* none of them 0"),
        ({"targets": torch.zeros(2, 4, 1)}, r"targets must have the batch and time of inputs, \(2, 3\)"),
        ({"targets": torch.zeros(5, 3, 1)}, r"targets must have the batch and time of inputs, \(2, 3\)"),
        ({"mask": torch.ones(2, 3, 2)}, r"mask must have the shape of targets, \(2, 3, 1\), got \(2, 3, 2\)"),
        ({"mask": torch.ones(2, 3, 1).double()}, r"mask must have the dtype .*float32.*got torch\.float64"),
        (
            {"lengths": torch.tensor([3.0, 1.0])},
            r"lengths must be an int64 tensor of shape .*got a torch\.float32",
        ),
        ({"lengths": torch.tensor([3])}, r"lengths must be an int64 tensor of shape \(2,\), got .*\(1,\)"),
        ({"lengths": torch.tensor([0, 4])}, "lengths must be between 1 and 3, got 0 to 4"),
        ({"mask": torch.ones(2, 3, 1, device="meta")}, "mask must have the dtype and device .*got .*meta"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    Trials(**GOOD)
    with pytest.raises(InputError, match=message):
        Trials(**{**GOOD, **wrong})


def test_a_task_needs_nothing_but_sample():
    class MyTask:
        def sample(self, batch_size: int, rng: np.random.Generator) -> Trials:
            return some_trials(batch_size)

    assert isinstance(MyTask(), Task)
    assert not isinstance(object(), Task)
