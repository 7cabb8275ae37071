"""Tasks of the user's own in experiments: named, described, told apart, and trained like the built-in ones."""

import inspect
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pytest

import rankscope as rs
from rankscope.experiments import Cell, run_cells
from rankscope.tasks import OwnTask


@dataclass(frozen=True)
class Mean:
    """Say the mean of a noisy input."""

    steps_heard: int = 6
    dt = 0.25

    def sample(self, batch_size, rng):
        inputs = rng.normal(size=(batch_size, self.steps_heard + 2, 1))
        targets, mask = np.zeros_like(inputs), np.zeros_like(inputs)
        targets[:, -2:] = inputs[:, :-2].mean(axis=1, keepdims=True)
        mask[:, -2:] = 1
        return rs.Trials.from_arrays(inputs, targets, mask)


class WithState:
    def __init__(self, size):
        self.size = size

    sample = Mean.sample


class SaysItself(WithState):
    name = "mine"
    loss = "cross_entropy"

    def parameters(self):
        return {"size": self.size}


def test_what_it_says_of_itself():
    task = OwnTask(Mean(5))
    assert (task.name, task.dt, task.steps, task.input_size, task.output_size) == ("Mean", 0.25, 7, 1, 1)
    assert task.parameters()["steps_heard"] == 5
    assert len(task.parameters()["source"]) == 12
    mine = OwnTask(SaysItself(3))
    assert (mine.name, mine.loss, mine.parameters()["size"]) == ("mine", "cross_entropy", 3)
    np.testing.assert_array_equal(task.example().inputs, task.example().inputs)


def test_cells_are_told_apart_by_parameters_and_text():
    digests = {Cell(task, hidden_size=8).digest for task in (Mean(5), Mean(6), SaysItself(5), SaysItself(6))}
    assert len(digests) == 4
    assert Cell(Mean(5), hidden_size=8).digest == Cell(OwnTask(Mean(5)), hidden_size=8).digest
    assert pickle.loads(pickle.dumps(Cell(Mean(5)))) == Cell(Mean(5))

    @dataclass(frozen=True)
    class Mean2(Mean):
        pass

    Mean2.__name__ = "Mean"
    assert Cell(Mean2(5)).digest != Cell(Mean(5)).digest


def test_the_text_of_a_class_is_read_once_by_one_thread_at_a_time(monkeypatch):
    """The parser of Python 3.11 gives a SystemError where two threads use it (a sweep on threads met it)."""
    kinds = [type(f"Kind{number}", (Mean,), {"__doc__": str(number)}) for number in range(3)]
    reading, read = Lock(), []

    def read_alone(kind):
        assert reading.acquire(blocking=False), "two threads read at the same time"
        time.sleep(0.005)
        read.append(kind)
        reading.release()
        return kind.__doc__

    monkeypatch.setattr(inspect, "getsource", read_alone)
    with ThreadPoolExecutor(6) as executor:
        said = list(executor.map(lambda kind: OwnTask(kind()).parameters()["source"], kinds * 4))
    assert sorted(read, key=str) == sorted(kinds, key=str)
    assert len(set(said)) == 3


def test_a_sweep_over_gains(tmp_path):
    cells = [
        Cell(Mean(), gain=gain, hidden_size=8, epochs=3, sample=sample, seed=sample)
        for gain in (0.0, 0.9)
        for sample in (0, 1)
    ]
    with ThreadPoolExecutor(1) as executor:
        report = run_cells(cells, tmp_path, executor=executor)
    assert not report.failed
    run = rs.open_run(tmp_path)
    assert dict(run["change_norm"].sizes) == {"gain": 2, "sample": 2}
    assert run["task"].item() == "Mean"
    assert (run["change_norm"] > 0).all()
    np.testing.assert_allclose(run["time"].values[0, 0, :2], [0.25, 0.5])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Mean, "must be an instance"),
        (3, "method sample"),
        (WithState(3), r"a dataclass or have a method parameters\(\).*'size'"),
        (SaysItself(np.zeros(2)), "that JSON can hold"),
    ],
)
def test_tasks_that_cannot_be_described(task, message):
    with pytest.raises(rs.InputError, match=message):
        Cell(task)


def test_what_is_handed_out_must_be_trials():
    class Tuple:
        def sample(self, batch_size, rng):
            return np.zeros((batch_size, 3, 1)), None, None

    for attempt in (lambda: OwnTask(Tuple()).sample(2), lambda: rs.RateRNN.initialize(Tuple(), 8, rng=0)):
        with pytest.raises(rs.InputError, match=r"must hand out Trials, got tuple; Trials\.from_arrays"):
            attempt()
