"""Tasks of the user's own: referred to, described, rebuilt, and refused when their class has changed."""

import pickle
import runpy
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from textwrap import dedent

import numpy as np
import pytest
import torch

import rankscope as rs
from forking import SERVER
from rankscope import tasks

TEXT = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import rankscope as rs


@dataclass
class Mean:
    """Report the mean of a noisy input."""

    length: int = 6
    signs: tuple[int, ...] = (1, -1)
    dt: ClassVar[float] = 0.25

    def sample(self, batch_size, rng):
        inputs = rng.normal(size=(batch_size, self.length, 1))
        return rs.Trials.from_arrays(inputs, np.repeat(inputs.mean(axis=1, keepdims=True), self.length, 1), inputs**0)


class Failing(Mean):
    def __init__(self):
        raise RuntimeError("no such device")


class NoTask:
    pass


def function():
    pass
'''


@dataclass(frozen=True)
class Constant:
    value: float = 1.0
    loss = "cross_entropy"
    name = "constant"
    extra = "attribute of the user's own"

    def sample(self, batch_size, rng):
        ones = np.ones((batch_size, 4, 2))
        return rs.Trials.from_arrays(ones * self.value, ones / 2, ones)


class WithState:
    def __init__(self, size):
        self.size = size

    sample = Constant.sample


class Described(WithState):
    def parameters(self):
        return {"size": self.size}


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(TEXT)
    return path


def sums(task):
    return tasks.describe(task)["name"], float(task.sample(3, rng=0).inputs.sum())


def test_a_class_in_a_file(file):
    task = tasks.make("mine.py:Mean", length=9)
    assert (task.name, task.dt, task.loss, task.steps) == ("Mean", 0.25, None, 9)
    assert (task.input_size, task.output_size, task.autonomous) == (1, 1, False)
    described = tasks.describe(task)
    assert described.pop("source").isalnum()
    assert described == {"name": "mine.py:Mean", "length": 9, "signs": [1, -1]}
    for same in (tasks.make(tasks.describe(task)), tasks.make(str(file) + ":Mean", length=9)):
        assert same == task
        assert hash(same) == hash(task)
    assert task != tasks.make("mine.py:Mean")
    assert torch.equal(task.example().inputs, task.example().inputs)
    assert "mine" not in sys.modules


def test_a_class_in_a_module():
    task = tasks.make(Constant(2.0))
    assert (task.name, task.loss, task.extra) == ("constant", "cross_entropy", "attribute of the user's own")
    described = tasks.describe(Constant(2.0))
    assert described["name"] == f"{__name__}:Constant"
    assert tasks.make(described) == task
    assert tasks.make(f"{__name__}:Described", size=3).parameters() == {"size": 3}


def test_other_processes_rebuild_tasks(file):
    pairs = [tasks.make("mine.py:Mean", length=9), tasks.make("flipflop"), tasks.make(Constant(0.5))]
    with ProcessPoolExecutor(1, SERVER) as executor:
        assert list(executor.map(sums, pairs)) == [sums(task) for task in pairs]


def test_a_class_in_the_script_that_runs(tmp_path, monkeypatch, capsys):
    body = """
        if __name__ == "__main__":
            print("once")
            from rankscope import tasks

            task = tasks.make("script.py:Mean", length=3)
            assert type(task.task) is Mean and tasks.describe(Mean(3)) == tasks.describe(task)
            print(tasks.describe(task)["name"])
    """
    (tmp_path / "script.py").write_text(TEXT + dedent(body))
    monkeypatch.chdir(tmp_path)
    runpy.run_path("script.py", run_name="__main__")
    assert capsys.readouterr().out.split() == ["once", "script.py:Mean"]


def test_a_changed_class_is_refused_and_a_task_in_use_stays(file):
    task = tasks.make("mine.py:Mean")
    described, copy = tasks.describe(task), pickle.dumps(task)
    file.write_text(TEXT.replace("mean(axis=1", "min(axis=1"))
    assert tasks.describe(task) == described
    assert tasks.describe(tasks.make("mine.py:Mean")) != described
    for rebuild in (lambda: tasks.make(described), lambda: pickle.loads(copy)):
        with pytest.raises(rs.InputError, match=r"mine.py:Mean' with the source .*: it has changed"):
            rebuild()
    file.write_text("# a comment\n" + TEXT + "OTHER = 1\n")  # elsewhere in the file
    assert tasks.make(described) == task


def test_threads_describe_tasks_at_the_same_time():
    """The parser of Python 3.11, which reads the source, is not thread-safe."""
    kinds = [type(f"Kind{index}", (Constant,), {}) for index in range(40)] + [Constant] * 40
    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(lambda kind: tasks.describe(kind())["source"], kinds))
    assert len({*found[40:]}) == 1


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("none.py:Mean", r"task must name a file that can be read, got 'none.py'.*No such file"),
        ("mine.py:Maen", "mine.py must be one of .*got 'Maen' .did you mean 'Mean'"),
        ("mine.py:Failing", "RuntimeError: no such device"),
        ("mine.py:NoTask", r"an instance with a method sample\(batch_size, rng\)"),
        ("mine.py:function", "must name a class"),
        ("broken.py:Mean", "must name a file that runs, got 'broken.py': SyntaxError"),
        ("lonely.py:Mean", "No module named 'not_there'; install that module"),
        ("no.such.module:Mean", "must name a module that can be imported"),
        ("mine.py:", "must be 'file.py:name' or"),
    ],
)
def test_references_that_lead_nowhere(file, reference, message):
    (file.parent / "broken.py").write_text("class Mean(:\n")
    (file.parent / "lonely.py").write_text("import not_there\n")
    with pytest.raises(rs.InputError, match=message):
        tasks.make(reference)


def test_unknown_parameters_get_the_nearest(file):
    with pytest.raises(rs.InputError, match=r"parameter of mine.py:Mean .*'lenght' \(did you mean 'length'\?\)"):
        tasks.make("mine.py:Mean", lenght=3)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Constant, "must be an instance"),
        (Described(np.zeros(2)), "that JSON can represent"),
        (Described(float("nan")), "that JSON can represent"),
    ],
)
def test_tasks_that_cannot_be_described(task, message):
    with pytest.raises(rs.InputError, match=message):
        tasks.describe(task)


def test_a_local_class_is_described_but_not_rebuilt():
    @dataclass(frozen=True)
    class Local(Constant):
        pass

    assert tasks.describe(Local(1.0))["value"] == 1.0
    with pytest.raises(rs.InputError, match="top level of a file"):
        tasks.make(tasks.describe(Local(1.0)))


def test_sample_must_return_trials():
    class Tuple:
        def sample(self, batch_size, rng):
            return np.zeros((batch_size, 3, 1)), None, None

    for attempt in (lambda: tasks.make(Tuple()).sample(2), lambda: rs.RateRNN.initialize(Tuple(), 8, rng=0)):
        with pytest.raises(rs.InputError, match=r"must return Trials from sample, got tuple; Trials\.from_arrays"):
            attempt()


class Plain:
    def __init__(self, delay=3, gap=1):
        self.delay, self.gap = delay, gap

    def sample(self, batch_size, rng):
        return rs.tasks.FlipFlop(duration=self.delay).sample(batch_size, rng)


class Computed(Plain):
    def __init__(self, delay=3, gap=1):
        super().__init__(2 * delay, gap)


def test_a_plain_class_is_described_by_the_arguments_that_it_keeps():
    described = tasks.describe(Plain(delay=7))
    assert {name: described[name] for name in ("delay", "gap")} == {"delay": 7, "gap": 1}
    with pytest.raises(rs.InputError, match=r"keep each argument of its __init__"):
        tasks.describe(Computed(delay=7))
