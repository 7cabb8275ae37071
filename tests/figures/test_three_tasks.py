"""The figure of the three tasks: values without padding, shared scales, marks."""

import numpy as np
import pytest
from made_up_run import TASKS, fail, forget, line_with, make_run

import rankscope as rs
from rankscope.figures import tasks

STRIPS = {"flipflop": 2, "mante": 2, "romo": 3}  # the inputs of Mante and Romo have a strip of their own


def two_gains():
    return make_run().sel(gain=[0.0, 0.9])


def test_tasks_draws_12_panels():
    run = two_gains()
    panels = np.reshape(tasks(run).get_axes(), (4, 3))
    for task, (trial, loss, singular, truncation) in zip(TASKS, panels.T, strict=True):
        assert len(trial.child_axes) == STRIPS[task]
        for g in (0.0, 0.9):
            one = run.sel(task=task, gain=g).isel(sample=0, hidden_size=0)
            assert line_with(loss, one["loss"] / one["initial_loss"])
            assert line_with(singular, one["singular_value"].sel(matrix="change"))
            assert line_with(truncation, one["truncation_loss"] / one["truncation_loss"][0])
        assert all(ax.get_xlabel() for ax in (loss, singular, truncation))
        assert all(ax.get_ylabel() for ax in trial.child_axes)
    assert all(ax.get_ylabel() for ax in panels[1:, 0])
    assert [ax.get_title() for ax in panels[0]] == ["flip-flop", "Mante", "Romo"]


@pytest.mark.parametrize("task", TASKS)
def test_a_trial_shows_outputs_targets_and_inputs(task):
    run = two_gains()
    inputs, outputs, steps = TASKS[task]
    strips = tasks(run).get_axes()[list(TASKS).index(task)].child_axes
    one = run.sel(task=task).isel(sample=0, hidden_size=0, step=slice(0, steps))
    output_strips = strips[-outputs:]
    for channel, ax in enumerate(output_strips):
        for index in range(2):
            assert line_with(ax, one["example_output"].isel(gain=index, output_channel=channel))
        assert line_with(ax, one["example_target"].isel(gain=0, output_channel=channel))
        assert ax.get_ylim() == output_strips[0].get_ylim()
    for channel in range(inputs):
        ax = output_strips[channel] if task == "flipflop" else strips[0]
        lift = 2.0 * (inputs - 1 - channel) if task != "flipflop" else 0.0
        assert line_with(ax, one["example_input"].isel(gain=0, input_channel=channel) + lift)


def test_the_panels_of_a_row_share_their_scale_and_hold_every_curve():
    run = two_gains()
    run["singular_value"].loc[{"task": "romo", "matrix": "change"}] *= 5
    panels = np.reshape(tasks(run).get_axes(), (4, 3))
    for row in panels[1:]:
        assert len({ax.get_ylim() for ax in row}) == 1
    shown = run["singular_value"].sel(matrix="change").isel(sample=0)
    assert panels[2, 0].get_ylim()[1] > float(shown.max())


def test_no_convergence_and_no_functional_rank_are_not_marked():
    run = fail(two_gains(), task="mante", gain=0.0)
    panels = np.reshape(tasks(run).get_axes(), (4, 3))
    points = [[line for line in ax.get_lines() if len(line.get_xdata()) == 1] for ax in (panels[1, 1], panels[3, 1])]
    assert [len(marks) for marks in points] == [1, 1]  # only those of g = 0.9


def test_the_column_of_a_task_without_networks_is_marked_empty():
    run = forget(two_gains(), task="mante")
    column = np.reshape(tasks(run).get_axes(), (4, 3))[:, 1]
    assert "no measurements" in [text.get_text() for text in column[0].texts]
    assert not any(ax.get_lines() for ax in column)


def test_a_gain_that_was_never_trained_leaves_the_trial_of_the_other():
    run = forget(two_gains(), task="romo", gain=0.0)
    strips = tasks(run).get_axes()[2].child_axes
    assert line_with(strips[0], run["example_input"].sel(task="romo", gain=0.9).isel(sample=0, hidden_size=0)[:12, 0])


def test_tasks_refuses_several_sizes():
    with pytest.raises(rs.InputError, match="dataset must hold one hidden_size, got 2"):
        tasks(make_run((8, 16)))
