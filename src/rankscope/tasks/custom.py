"""A task of the user's own, completed so that jobs can name, describe and rebuild it.

Training needs only `sample`. A job also records everything that determines its result: the parameters of the task
(the fields of a dataclass, or what its method `parameters()` returns) and a hash of the source of its class.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rankscope.errors import InputError
from rankscope.tasks.trials import BuiltInTask, Task, Trials, as_trials
from rankscope.user_code import check_source, load_user_code, reference_to, source_hash
from rankscope.validation import choice

DEFAULT_DT = 0.5
SOURCE = "source"


@dataclass(frozen=True, eq=False)
class CustomTask(BuiltInTask):
    """A task of the user's own with the attributes that the built-in tasks have.

    Whatever the user's class defines is taken from there, also what the package does not know. Two tasks are equal if
    their descriptions are. A `CustomTask` is pickled as its description.

    Parameters
    ----------
    task
        Anything with `sample(batch_size, rng) -> Trials`. `name` is by default the name of its class, `dt` 0.5, `loss`
        None and `autonomous` False; sizes and steps are by default those of one trial drawn with seed 0.

    Raises
    ------
    InputError
        If `task` has no `sample`, or its parameters cannot be described as JSON.
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

    def __getattr__(self, name: str) -> Any:
        if name == "task" or name.startswith("_"):  # not initialized yet, or a protocol of Python's
            raise AttributeError(name)
        return getattr(self.task, name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CustomTask):
            return NotImplemented
        return self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash(json.dumps(self.describe(), sort_keys=True))

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (self.describe(absolute=True),)

    @property
    def input_size(self) -> int:
        """Number of input channels."""
        return int(getattr(self.task, "input_size", self._first.inputs.shape[2]))

    @property
    def output_size(self) -> int:
        """Number of output channels."""
        return int(getattr(self.task, "output_size", self._first.targets.shape[2]))

    @property
    def steps(self) -> int:
        """Number of time steps of a trial."""
        return int(getattr(self.task, "steps", self._first.steps))

    def example(self) -> Trials:
        """Return one fixed trial."""
        own: Any = self.task
        return as_trials(own.example()) if hasattr(own, "example") else self._first

    def fresh(self) -> BuiltInTask:
        """Return the task to evaluate on: what the user's `fresh()` returns, or this task."""
        own: Any = self.task
        return CustomTask(own.fresh()) if hasattr(own, "fresh") else self

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the user's task by name, as plain values."""
        own: Any = self.task
        if hasattr(own, "parameters"):
            described = dict(own.parameters())
        elif dataclasses.is_dataclass(own):
            described = {field.name: getattr(own, field.name) for field in dataclasses.fields(own) if field.init}
        elif not getattr(own, "__dict__", {}):
            described = {}
        elif (arguments := _arguments(own)) is not None:
            described = arguments
        else:
            raise InputError(
                f"task must be a dataclass, have a method parameters(), or keep each argument of its __init__ in an "
                f"attribute of that name and nothing else, so that jobs can distinguish one {type(own).__name__} from "
                f"another, got attributes {sorted(vars(own))}"
            )
        if reserved := {"name", SOURCE} & set(described):
            raise InputError(f"task must not have a parameter called {min(reserved)!r}, got {described!r}")
        return plain(described, "task")

    def describe(self, *, absolute: bool = False) -> dict[str, Any]:
        """Return the reference to the class as `name`, the parameters, and a hash of the source as `source`."""
        kind = type(self.task)
        return {"name": reference_to(kind, absolute=absolute), **self.parameters(), SOURCE: source_hash(kind)}

    @cached_property
    def _first(self) -> Trials:
        return self._draw(1, np.random.default_rng(0))

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        return as_trials(self.task.sample(batch_size, rng))


def _arguments(own: Any) -> dict[str, Any] | None:
    """Return the arguments of an object's `__init__` if its attributes are these and nothing else, otherwise None."""
    attributes = dict(vars(own))
    if set(inspect.signature(type(own)).parameters) != set(attributes):
        return None
    try:
        # An attribute that was computed from its argument is not the argument.
        same = bool(vars(type(own)(**attributes)) == attributes)
    except Exception:  # whatever the class, or a comparison of arrays, raises
        return None
    return attributes if same else None


def as_task(task: Task) -> BuiltInTask:
    """Return a task with all attributes of the built-in ones: itself, or completed as a `CustomTask`."""
    if isinstance(task, BuiltInTask) and type(task).__module__.startswith("rankscope."):
        return task
    return CustomTask(task)


def rebuild(description: Mapping[str, Any]) -> CustomTask:
    """Return the task that `CustomTask.describe` described; the hash of the source may be left out.

    Raises
    ------
    InputError
        If the class cannot be found or has another source, or does not accept the parameters.
    """
    parameters = dict(description)
    reference, expected = parameters.pop("name"), parameters.pop(SOURCE, "")
    kind = load_user_code("task", reference)
    if not isinstance(kind, type):
        raise InputError(f"task must name a class, got {reference!r}, a {type(kind).__name__}")
    check_source("task", reference, kind, expected or None)
    _check_parameters(kind, parameters, reference)
    try:
        task = kind(**parameters)
    except InputError:
        raise
    except Exception as error:  # whatever the class raises
        raise InputError(
            f"task {reference} must accept its parameters, got {type(error).__name__}: {error} with {parameters!r}"
        ) from error
    return CustomTask(task)


def plain(values: Mapping[str, Any], argument: str) -> dict[str, Any]:
    """Return parameters as JSON has them (tuples become lists), or raise `InputError`."""
    try:
        converted: dict[str, Any] = json.loads(json.dumps(dict(values), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{argument} must have values that JSON can represent (finite numbers, text, lists, mappings), got "
            f"{dict(values)!r}: {error}"
        ) from error
    return converted


def _check_parameters(kind: type, parameters: Mapping[str, Any], reference: str) -> None:
    """Raise `InputError` for a parameter that the class does not have, naming the nearest one."""
    try:
        accepted = inspect.signature(kind).parameters
    except (TypeError, ValueError):  # a class without an introspectable signature
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        return
    for name in parameters:
        choice(f"parameter of {reference}", name, accepted)
