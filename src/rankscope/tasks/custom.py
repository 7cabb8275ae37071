"""A task of the user's own among the built-in ones, so that experiments can name, describe and repeat it.

A training needs no more of a task than `sample`. A sweep keeps each network in a file named by everything that
determines it, so it has to know a task's parameters. Of a dataclass these are its fields; any other task may say them
itself, in a method `parameters()`. The text of the class counts among them: a task that has been rewritten is another
task.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from rankscope.errors import InputError
from rankscope.tasks.trials import BuiltInTask, Task, Trials, as_trials

DEFAULT_DT = 0.5

_sources: WeakKeyDictionary[type, str] = WeakKeyDictionary()
_reading = threading.Lock()


@dataclass(frozen=True)
class OwnTask(BuiltInTask):
    """Somebody's own task, as the others are.

    Parameters
    ----------
    task
        Anything with `sample(batch_size, rng) -> Trials`. Its attributes `name`, `dt`, `loss` and `autonomous` are
        heeded where it has them; its name is otherwise that of its class.

    Raises
    ------
    InputError
        If it is no task, or its parameters cannot be written down as JSON.
    """

    task: Task

    def __post_init__(self) -> None:
        if isinstance(self.task, type) or not isinstance(self.task, Task):
            raise InputError(f"task must be an instance with a method sample(batch_size, rng), got {self.task!r}")
        own = self.task
        self._settle("name", str(getattr(own, "name", type(own).__name__)))
        self._settle("dt", float(getattr(own, "dt", DEFAULT_DT)))
        self._settle("loss", getattr(own, "loss", None))
        self._settle("autonomous", bool(getattr(own, "autonomous", False)))
        self.parameters()

    @property
    def input_size(self) -> int:
        """Number of input channels."""
        return int(self.example().inputs.shape[2])

    @property
    def output_size(self) -> int:
        """Number of output channels."""
        return int(self.example().targets.shape[2])

    @property
    def steps(self) -> int:
        """Number of time steps of the example."""
        return self.example().steps

    def example(self) -> Trials:
        """Return one fixed trial."""
        return self._example

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the user's task by name, and a hash of its text as `source`."""
        own: Any = self.task
        if hasattr(own, "parameters"):
            described = dict(own.parameters())
        elif dataclasses.is_dataclass(own):
            described = {field.name: getattr(own, field.name) for field in dataclasses.fields(own)}
        elif not getattr(own, "__dict__", {}):
            described = {}
        else:
            raise InputError(
                f"task must be a dataclass or have a method parameters(), so that a sweep can tell one "
                f"{type(own).__name__} from another, got attributes {sorted(vars(own))}"
            )
        try:
            plain: dict[str, Any] = json.loads(json.dumps(described))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"task must have parameters that JSON can hold (numbers, words, lists), got {described!r}: {error}"
            ) from error
        return plain | {"source": _source(type(own))}

    @cached_property
    def _example(self) -> Trials:
        return self._draw(1, np.random.default_rng(0))

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        return as_trials(self.task.sample(batch_size, rng))


def as_built_in(task: Task) -> BuiltInTask:
    """Return a task as one of the built-in family: itself, or wrapped in `OwnTask`."""
    return task if isinstance(task, BuiltInTask) else OwnTask(task)


def _source(kind: type) -> str:
    """Return twelve hexadecimal digits that change with the text of a class; "" where there is no text.

    A class is read once, while no other thread reads one: the interpreter's parser, which `inspect` asks for where a
    class begins, is not safe to use from two threads (a SystemError in Python 3.11, cpython issue 106905). It is also
    the text that runs: a file that is edited while a sweep computes changes none of its networks.
    """
    with _reading:
        if kind not in _sources:
            _sources[kind] = _read_source(kind)
        return _sources[kind]


def _read_source(kind: type) -> str:
    try:
        text = inspect.getsource(kind)
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
