"""Tasks: what drives the network and what it should produce. One task a file; all draw `Trials`.

`trials.py` states the contract. To add a task, write a frozen dataclass, a subclass of `BuiltInTask`, in a file of its
own (`romo.py` is a model), import it here and add it to `TASKS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rankscope.errors import InputError
from rankscope.tasks.cosine import Cosine as Cosine
from rankscope.tasks.custom import CustomTask as CustomTask
from rankscope.tasks.custom import as_task, plain, rebuild
from rankscope.tasks.decisions import ContextDependentDecision as ContextDependentDecision
from rankscope.tasks.decisions import MultisensoryDecision as MultisensoryDecision
from rankscope.tasks.decisions import PerceptualDecision as PerceptualDecision
from rankscope.tasks.delays import DelayedMatch as DelayedMatch
from rankscope.tasks.delays import ParametricWorkingMemory as ParametricWorkingMemory
from rankscope.tasks.fixed_point import FixedPoint as FixedPoint
from rankscope.tasks.flipflop import FlipFlop as FlipFlop
from rankscope.tasks.mante import Mante as Mante
from rankscope.tasks.neurogym import NeuroGym as NeuroGym
from rankscope.tasks.recorded import Recorded as Recorded
from rankscope.tasks.romo import Romo as Romo
from rankscope.tasks.sentiment.task import Sentiment as Sentiment
from rankscope.tasks.trials import BuiltInTask as BuiltInTask
from rankscope.tasks.trials import Task as Task
from rankscope.tasks.trials import Trials as Trials
from rankscope.tasks.trials import steps_in as steps_in
from rankscope.user_code import is_reference
from rankscope.validation import choice

#: Tasks that need nothing else, by name.
TASKS: dict[str, type[BuiltInTask]] = {
    cls.name: cls
    for cls in (
        Cosine,
        FixedPoint,
        FlipFlop,
        Mante,
        Romo,
        PerceptualDecision,
        ParametricWorkingMemory,
        MultisensoryDecision,
        ContextDependentDecision,
        DelayedMatch,
    )
}

#: Tasks that need an extra or data, by name.
OPTIONAL_TASKS: dict[str, type[BuiltInTask]] = {cls.name: cls for cls in (NeuroGym, Recorded, Sentiment)}


def make(task: str | Mapping[str, Any] | Task, **parameters: Any) -> BuiltInTask:
    """Return a task by name or description.

    Parameters
    ----------
    task : str, mapping or task
        The name of a built-in task, a key of `TASKS` or `OPTIONAL_TASKS` such as "flipflop"; a class of your own as
        "file.py:Class" or "package.module:Class"; a mapping of "name" and parameters, as `describe` returns; or a
        task, which is returned with the attributes of the built-in ones.
    **parameters
        Parameters of the task; those left out keep their default values.

    Raises
    ------
    InputError
        If the name or a parameter is unknown (the nearest one is given), if a parameter is impossible, if the task
        needs an extra that is not installed, or if a class of your own cannot be loaded, fails, or has changed since
        it was described.
    """
    if isinstance(task, Mapping):
        if "recorded" in task and "name" not in task:
            task = {"name": "recorded", "file": task["recorded"], **{k: v for k, v in task.items() if k != "recorded"}}
        if "name" not in task:
            raise InputError(f"task must be a name or a mapping with a name, got {dict(task)!r}")
        described = {str(key): value for key, value in task.items() if key != "name"}
        for name in parameters:
            if name in described:
                raise InputError(f"{name} must be given once, got it in the task's description and beside it")
        return make(task["name"], **described, **parameters)
    if not isinstance(task, str) and isinstance(task, Task):
        if parameters:
            raise InputError(f"parameters go with the name of a task, got {parameters!r} beside {task!r}")
        return as_task(task)
    if is_reference(task):
        return rebuild({"name": task, **parameters})
    kinds = TASKS | OPTIONAL_TASKS
    build: Any = kinds[choice("task", task, kinds)]  # Any: the parameters differ from task to task
    known = [field.name for field in dataclasses.fields(build)]
    for parameter in parameters:
        choice(f"parameter of {task}", parameter, known)
    made: BuiltInTask = build(**parameters)
    return made


def describe(task: Task) -> dict[str, Any]:
    """Return a task as plain values, its "name" and its parameters, such that `make(describe(task))` equals it.

    All parameters are included, also those with default values. A class of your own is named "file.py:Class" or
    "package.module:Class", and `source` is a hash of its source.

    Raises
    ------
    InputError
        If `task` has no `sample`, or its parameters cannot be described as JSON.
    """
    complete = as_task(task)
    if isinstance(complete, CustomTask):
        return complete.describe()
    return {"name": complete.name, **plain(complete.parameters(), "task")}


def steps_per_epoch(task: str | Mapping[str, Any] | Task, batch_size: int = 32) -> int:
    """Return the approximate number of time steps of an epoch: of one batch, or of one pass over finite data.

    Neither data nor an extra is needed for a task given by name or description, as in `make`.
    """
    if not isinstance(task, (str, Mapping)):
        task = describe(task)
    described = {"name": task} if isinstance(task, str) else dict(task)
    kind = (TASKS | OPTIONAL_TASKS).get(described.pop("name", ""))
    return make(task).steps if kind is None else kind.expected_steps(batch_size, **described)
