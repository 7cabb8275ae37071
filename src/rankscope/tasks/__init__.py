"""What the network is asked to do: one task a file, all handing out `Trials`.

`trials.py` states the contract that they keep. To add a task, write its file, import it here and
add it to `TASKS`; `make` then knows it by its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from rankscope.tasks.cosine import Cosine as Cosine
from rankscope.tasks.custom import OwnTask as OwnTask
from rankscope.tasks.fixed_point import FixedPoint as FixedPoint
from rankscope.tasks.flipflop import FlipFlop as FlipFlop
from rankscope.tasks.mante import Mante as Mante
from rankscope.tasks.neurogym import NeuroGym as NeuroGym
from rankscope.tasks.romo import Romo as Romo
from rankscope.tasks.trials import BuiltInTask as BuiltInTask
from rankscope.tasks.trials import Task as Task
from rankscope.tasks.trials import Trials as Trials
from rankscope.tasks.trials import steps_in as steps_in
from rankscope.validation import choice

#: The built-in tasks by name.
TASKS: dict[str, type[BuiltInTask]] = {cls.name: cls for cls in (Cosine, FixedPoint, FlipFlop, Mante, Romo)}

#: Tasks that need an extra.
OPTIONAL_TASKS: dict[str, type[BuiltInTask]] = {NeuroGym.name: NeuroGym}


def make(name: str, **parameters: Any) -> BuiltInTask:
    """Return the built-in task of that name.

    Parameters
    ----------
    name : str
        One of `TASKS`: "cosine", "fixed_point", "flipflop", "mante", "romo"; or of `OPTIONAL_TASKS`: "neurogym".
    **parameters
        Parameters of that task; those left out keep the paper's values.

    Raises
    ------
    InputError
        If the name or a parameter is unknown, naming the nearest one, if a parameter is impossible, or if the task
        needs an extra that is not installed.
    """
    kinds = TASKS | OPTIONAL_TASKS
    cls: Any = kinds[choice("task", name, kinds)]  # Any: the parameters differ from task to task
    known = [field.name for field in dataclasses.fields(cls)]
    for parameter in parameters:
        choice(f"parameter of {name}", parameter, known)
    build: Callable[..., BuiltInTask] = cls
    return build(**parameters)
