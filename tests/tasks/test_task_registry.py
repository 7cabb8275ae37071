"""What all built-in tasks have in common, and making them by name."""

import dataclasses
import json
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch

from rankscope.errors import InputError
from rankscope.tasks import TASKS, Task, describe, make

RANDOM = ("flipflop", "mante", "romo")
every_task = pytest.mark.parametrize("name", sorted(TASKS))


def arrays(trials):
    return [trials.inputs, trials.targets, trials.mask]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("flipflop", (2, 2, 100)),
        ("mante", (4, 1, 96)),
        ("romo", (1, 2, 56)),
        ("fixed_point", (1, 1, 202)),
        ("cosine", (1, 1, 200)),
    ],
)
def test_sizes_of_the_paper(name, sizes):
    task = make(name)
    assert (task.input_size, task.output_size, task.steps) == sizes
    assert task.dt == (0.1 if name == "cosine" else 0.5)
    assert task.autonomous == (name == "cosine")


@every_task
@pytest.mark.parametrize("batch_size", [1, 7])
def test_shapes_and_types(name, batch_size):
    task = make(name)
    trials = task.sample(batch_size, rng=0)
    assert isinstance(task, Task)
    assert trials.inputs.shape == (batch_size, task.steps, task.input_size)
    assert trials.targets.shape == trials.mask.shape == (batch_size, task.steps, task.output_size)
    assert {array.dtype for array in arrays(trials)} == {torch.float32}
    assert set(trials.mask.unique().tolist()) <= {0.0, 1.0}
    assert (trials.mask.sum(dim=(1, 2)) > 0).all()


@every_task
def test_the_same_seed_gives_the_same_bits(name):
    task = make(name)
    assert same(task.sample(5, rng=3), make(name).sample(5, rng=3))
    assert same(task.sample(5, rng=3), task.sample(5, rng=np.random.default_rng(3)))


@pytest.mark.parametrize("name", RANDOM)
def test_other_seeds_and_later_draws_differ(name):
    task = make(name)
    rng = np.random.default_rng(3)
    batches = [task.sample(5, rng=rng), task.sample(5, rng=rng), task.sample(5, rng=4), task.sample(5)]
    assert not any(torch.equal(one.inputs, other.inputs) for one, other in pairwise(batches))


@pytest.mark.parametrize("name", RANDOM)
def test_rows_of_a_batch_are_independent(name):
    task, rng = make(name), np.random.default_rng(0)
    probe = np.random.default_rng(1).standard_normal((task.steps, task.input_size))
    inputs = np.stack([task.sample(3, rng).inputs.numpy() for _ in range(600)])
    correlation = np.corrcoef(np.einsum("dbti,ti->bd", inputs, probe))
    # 1 / sqrt(600) = 0.04 is what chance gives
    assert np.abs(correlation[np.triu_indices(3, 1)]).max() < 0.16


@every_task
def test_callers_may_modify_trials(name):
    task = make(name)
    trials = task.sample(2, rng=0)
    for array in arrays(trials):
        array[0] = 77
        assert not (array[1] == 77).any()
    for draw in (lambda: task.sample(1, rng=0), lambda: task.sample(2, rng=0), task.example):
        before = [array.clone() for array in arrays(draw())]
        for array in arrays(draw()):
            array.fill_(77)
        assert all(torch.equal(a, b) for a, b in zip(before, arrays(draw()), strict=True))


@every_task
def test_example_is_one_fixed_trial(name):
    task = make(name)
    assert len(task.example()) == 1
    assert task.example().steps == task.steps
    assert same(task.example(), make(name).example())


@every_task
def test_tasks_are_values(name):
    task = make(name)
    task.sample(1, rng=0)  # fills the caches, which must not count
    assert task == make(name)
    assert hash(task) == hash(make(name))
    copy = pickle.loads(pickle.dumps(task))
    assert copy == task
    assert same(copy.sample(3, rng=1), task.sample(3, rng=1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.dt = 1.0


@every_task
def test_a_description_rebuilds_the_task(name):
    task = make(name, dt=0.1 if make(name).dt == 0.2 else 0.2)
    described = json.loads(json.dumps(describe(task)))
    assert described["name"] == name
    assert set(described) == {"name", *(field.name for field in dataclasses.fields(task))}
    assert make(described) == task != make(name)


def test_parameters_are_given_once():
    assert make({"name": "romo", "dt": 0.2}) == make({"name": "romo"}, dt=0.2) == make("romo", dt=0.2)
    with pytest.raises(InputError, match="dt must be given once"):
        make({"name": "romo", "dt": 0.2}, dt=0.2)
    with pytest.raises(InputError, match="task must be a name or a mapping with a name"):
        make({"dt": 0.2})
    with pytest.raises(InputError, match="parameters go with the name of a task"):
        make(make("romo"), dt=0.2)


def test_parameters_are_stored_as_plain_numbers():
    task = make("mante", dt=np.float32(0.5), stimulus=20, coherences=[np.float64(1), -1])
    assert {type(value) for value in task.parameters().values()} == {float, tuple}
    assert task.coherences == (1.0, -1.0)
    assert task == make("mante", coherences=(1, -1))


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, "3", True, None])
def test_impossible_arguments_of_sample_are_refused(batch_size):
    with pytest.raises(InputError, match="batch_size must be a whole number >= 1, got"):
        make("romo").sample(batch_size, rng=0)
    with pytest.raises(InputError, match="rng must be a seed"):
        make("romo").sample(1, rng="0")


def test_unknown_names_get_the_nearest():
    with pytest.raises(InputError, match=r"task must be one of .*'flipflip' \(did you mean 'flipflop'\?\)"):
        make("flipflip")
    with pytest.raises(InputError, match="task must be one of"):
        make(3)


def test_unknown_parameters_get_the_nearest():
    with pytest.raises(InputError, match=r"parameter of romo .*'delaymin' \(did you mean 'delay_min'\?\)"):
        make("romo", dt=0.5, delaymin=1)


@every_task
@pytest.mark.parametrize("dt", [0, -0.5, float("nan"), float("inf"), "0.5", None, True])
def test_an_impossible_dt_is_refused(name, dt):
    with pytest.raises(InputError, match=r"dt must be a (finite )?number > 0, got"):
        make(name, dt=dt)


@every_task
def test_every_parameter_is_checked_for_its_type(name):
    for parameter in make(name).parameters():
        with pytest.raises(InputError, match=f"{parameter}.* must be .*got .*wrong"):
            make(name, **{parameter: "wrong"})
        with pytest.raises(InputError, match=f"{parameter}.* must be"):
            make(name, **{parameter: None})
