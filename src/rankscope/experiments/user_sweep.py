"""Sweeps that users write: a YAML file that names a task, a grid, and what to leave as it is.

    task: flipflop
    hidden_size: 64
    epochs: 150
    grid:
      gain: [0.0, 0.6, 1.2, 1.8]
    samples: 4

Every combination of the grid is trained `samples` times, each network with a seed that follows from what it is. The
grid may run over any option of the file, and over any parameter of the task.
"""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rankscope.errors import InputError
from rankscope.experiments.base import seed_of
from rankscope.networks.rate import RateRNN
from rankscope.sweep import Job
from rankscope.sweep.cost import multiplications
from rankscope.tasks import make
from rankscope.validation import choice, number

NETWORK_OPTIONS = ("nonlinearity", "readout_nonlinearity", "convention", "noise_std", "trained", "orthogonal")
TRAINING_OPTIONS = ("optimizer", "learning_rate", "batch_size", "clip_norm", "stop_below", "recorded_epochs")
MOST_BYTES = 100_000
MOST_VALUES = 20_000
"""With the values that an alias repeats: a few lines of aliases can stand for more than a memory holds."""
MOST_CELLS = 20_000

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=10**9)]


class SweepFile(BaseModel):
    """What the file may say; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", strict=False)

    task: str
    task_parameters: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    samples: Count = 1
    seed: Annotated[int, Field(ge=0)] = 0
    gain: Annotated[float, Field(ge=0)] = 0.9
    hidden_size: Count = 256
    epochs: Count = 1000
    nonlinearity: str = "tanh"
    readout_nonlinearity: str | None = None
    convention: Literal["current", "rate"] = "current"
    noise_std: Annotated[float, Field(ge=0)] = 0.0
    trained: list[str] = ["input", "recurrent", "output"]
    orthogonal: bool = False
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive | None = None
    batch_size: Count = 32
    clip_norm: Positive | None = None
    stop_below: Positive | None = None
    recorded_epochs: Annotated[int, Field(ge=0, le=10**6)] | None = None


def read_sweep(path: str | os.PathLike[str]) -> list[Job]:
    """Return the jobs of a sweep file, the longest first.

    Raises
    ------
    InputError
        If the file is missing or is not YAML, a key is unknown (the nearest known one is named), or a value cannot be;
        the message names the file, the field and the value. Nothing has been trained by then.
    """
    path = Path(path)
    content = _content(path)
    for key in content:
        _known(f"{path}: key", key, SweepFile.model_fields)
    try:
        sweep = SweepFile(**content)
    except ValidationError as error:
        raise InputError(f"{path}: {_explain(error)}") from error
    try:
        return jobs_of(sweep)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def jobs_of(sweep: SweepFile) -> list[Job]:
    """Return the jobs of a sweep, the longest first.

    Raises
    ------
    InputError
        If a grid key is neither an option nor a parameter of the task, or a combination cannot be.
    """
    parameters = make(sweep.task).parameters()
    for key, values in sweep.grid.items():
        _known("grid key", key, [*_GRID_OPTIONS, *parameters])
        if not values:
            raise InputError(f"grid.{key} must be a list of values, got an empty one")
    count = math.prod(len(values) for values in sweep.grid.values()) * sweep.samples
    if count > MOST_CELLS:
        raise InputError(f"a sweep must be of at most {MOST_CELLS} networks, got {count:.6g} (samples times the grid)")
    jobs = []
    tried = set()
    for combination in itertools.product(*sweep.grid.values()):
        at = dict(zip(sweep.grid, combination, strict=True))
        options = sweep.model_dump() | {key: value for key, value in at.items() if key in _GRID_OPTIONS}
        try:
            SweepFile(**options)
        except ValidationError as error:
            raise InputError(f"grid: {_explain(error)}") from error
        task = make(sweep.task, **sweep.task_parameters, **{k: v for k, v in at.items() if k in parameters})
        labels = {key: _label(value) for key, value in at.items() if key not in ("gain", "hidden_size")}
        network = {key: options[key] for key in ("gain", "hidden_size", *NETWORK_OPTIONS)}
        jobs += [
            Job(
                task=task,
                network=network,
                training={key: options[key] for key in ("epochs", *TRAINING_OPTIONS)},
                seed=seed_of(sweep.seed, sweep.task, sorted(map(str, at.items())), sample),
                labels=labels | {"sample": sample},
            )
            for sample in range(sweep.samples)
        ]
        # A tiny network of each kind, so that an impossible option is named before the first one is trained.
        number("gain", network["gain"], minimum=0)
        kind = repr((task, network | {"hidden_size": 8}))
        if kind not in tried:
            RateRNN.initialize(task, rng=0, **(network | {"hidden_size": 8}))
            tried.add(kind)
    return sorted(jobs, key=multiplications, reverse=True)


_GRID_OPTIONS = ("gain", "hidden_size", "epochs", *NETWORK_OPTIONS, *TRAINING_OPTIONS)


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"a sweep must be a YAML file, got {str(path)!r}, which is not there")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} must be smaller than {MOST_BYTES} bytes, got {path.stat().st_size}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:
        # Besides errors of its own, the library raises whatever its parts stumble over: a date that there is not, say.
        raise InputError(f"{path} is not readable YAML: {error!s:.500}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path} must be a mapping such as 'task: flipflop', got {type(content).__name__}")
    _check_count(path, content)
    return content


def _check_count(path: Path, content: dict[str, Any]) -> None:
    """Refuse values that hold too many, or themselves, before anything goes through all of them."""
    waiting: list[Any] = [content]
    seen = 1
    while waiting and seen <= MOST_VALUES:
        value = waiting.pop()
        held: list[Any] = []
        if isinstance(value, dict):
            held = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            held = list(value)
        seen += len(held)
        waiting += held
    if waiting:
        raise InputError(f"{path} must hold at most {MOST_VALUES} values, got more, or one that holds itself")


def _known(what: str, key: str, known: Any) -> None:
    choice(what, key, known)


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return (
        f"{where}: {first['msg']}, got {first['input']!r:.200}" if first["type"] != "missing" else f"{where} is missing"
    )


def _label(value: Any) -> Any:
    """Return a grid value as a label: numbers and words as they are, lists as one word."""
    if isinstance(value, list):
        return "+".join(map(str, value))
    return "none" if value is None else value
