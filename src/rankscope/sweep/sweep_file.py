"""`Sweep`: a job, a grid of values for its options, and a number of samples; in Python or in a YAML file.

    task: flipflop
    network: {hidden_size: 64}
    training: {epochs: 150}
    grid:
      network.gain: [0.0, 0.6, 1.2, 1.8]
    samples: 4

Every combination of the grid is run `samples` times, each network with a seed that follows from what it is. A grid may
vary any option of the job, by its path ("training.learning_rate") or by its name alone where that is unique
("learning_rate"). In a file, options may also be given by their name alone: ``epochs: 150``.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator

from rankscope.description import Description
from rankscope.errors import InputError
from rankscope.networks.gated import GATED_OPTIONS
from rankscope.networks.gates import GATES
from rankscope.networks.rate import RATE_OPTIONS
from rankscope.sweep.job import Job
from rankscope.tasks import OPTIONAL_TASKS, TASKS
from rankscope.training import TrainingConfig
from rankscope.user_code import is_reference, load_user_code
from rankscope.validation import choice, integer

LARGEST_FILE = 100_000
MOST_VALUES = 20_000
MOST_BRACKETS = 100
"""Largest number of values in a file, those that aliases repeat included: a few lines can stand for gigabytes."""
LARGEST_NUMBER = 10**9
LARGEST_SHOWN = 1e300
MOST_RECORDS = 10**6
MOST_JOBS = 20_000
SECTIONS = ("task", "network", "training")
NOT_LABELS = ("task", "network.kind", "network.gain", "network.hidden_size")
"""Coordinates of every result anyway."""


class Sweep(Description):
    """Many jobs.

    Parameters
    ----------
    base
        The job that all others differ from.
    grid
        Path or unique name of an option -> its values.
    samples
        Networks for each combination, which differ only in their seeds.

    Raises
    ------
    InputError
        If an option is unknown or a value is impossible.
    """

    base: Job
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    samples: int = 1

    @field_validator("base", mode="before")
    @classmethod
    def _base(cls, value: Any) -> Any:
        return Job(**value) if isinstance(value, Mapping) else value

    @field_validator("grid", mode="before")
    @classmethod
    def _grid(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise InputError(f"grid must be a mapping such as {{'gain': [0.5, 1.0]}}, got {value!r:.200}")
        for name, values in value.items():
            if isinstance(values, str | Mapping) or not hasattr(values, "__len__") or not len(values):
                raise InputError(f"grid.{name} must be a list of values, got {values!r:.200}")
        grid = {name: [_plain(one) for one in values] for name, values in value.items()}
        for name, values in grid.items():
            repeated = next((one for one, count in Counter(map(_comparable, values)).items() if count > 1), None)
            if repeated is not None:
                raise InputError(f"grid.{name} must have different values, got {repeated!s:.200} more than once")
        return grid

    @field_validator("samples", mode="before")
    @classmethod
    def _samples(cls, value: Any) -> Any:
        return integer("samples", value, minimum=1)

    def jobs(self) -> list[Job]:
        """Return the jobs, those that take longest first.

        Raises
        ------
        InputError
            If a path of the grid is unknown, or a combination is impossible.
        """
        from rankscope.sweep.cost import multiplications

        count = math.prod(len(values) for values in self.grid.values()) * self.samples
        if count > MOST_JOBS:
            raise InputError(
                f"a sweep must have at most {MOST_JOBS} networks, got {count:.6g} (samples times the grid)"
            )
        paths = {name: resolve(self.base, name) for name in self.grid}
        varied = [n for name, values in self.grid.items() if paths[name] == "training.recorded_epochs" for n in values]
        for records in (self.base.training.recorded_epochs, *varied):
            if isinstance(records, int) and records > MOST_RECORDS:
                raise InputError(f"recorded_epochs must be at most {MOST_RECORDS} in a sweep, got {records}")
        jobs = [
            self._job(dict(zip(self.grid, combination, strict=True)), paths, sample)
            for combination in itertools.product(*self.grid.values())
            for sample in range(self.samples)
        ]
        return sorted(jobs, key=multiplications, reverse=True)

    def _job(self, at: Mapping[str, Any], paths: Mapping[str, str], sample: int) -> Job:
        fields = {
            "task": self.base.task,
            "network": dict(self.base.network),
            "training": {name: getattr(self.base.training, name) for name in self.base.training.model_fields_set},
            "measurements": self.base.measurements,
            "labels": {"sample": sample, **self.base.labels},
        }
        for name, value in at.items():
            section, _, option = paths[name].partition(".")
            if option:
                fields[section] = {**_spec(fields[section]), option: value}
            else:
                fields[section] = value
            if paths[name] not in NOT_LABELS:
                fields["labels"][name.rpartition(".")[2]] = _label(value)
        short = {name.rpartition(".")[2]: value for name, value in at.items()}
        seed = seed_of(self.base.seed, self.base.task_name, sorted(map(str, short.items())), sample)
        return Job(**fields, seed=seed)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Sweep:
        """Return the sweep in a YAML file.

        Raises
        ------
        InputError
            If the file is missing or is not YAML, a key is unknown (the nearest known one is named), or a value is
            impossible; the message names the file, the field and the value.
        """
        path = Path(path)
        content = _content(path)
        try:
            grid, samples = content.pop("grid", {}), content.pop("samples", 1)
            sweep = cls(base=job_from_options(content), grid=grid, samples=samples)
            _check_small(sweep.jobs())
            return sweep
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def seed_of(*labels: Any) -> int:
    """Return a seed that follows from labels, not from an order of running."""
    return int.from_bytes(hashlib.sha256(json.dumps(labels).encode()).digest()[:6], "big")


def resolve(job: Job, name: str, what: str = "grid key", others: tuple[str, ...] = ()) -> str:
    """Return the path of an option of a job, given the path or the name alone.

    Parameters
    ----------
    what, others
        For error messages: what `name` is, and other possible names.

    Raises
    ------
    InputError
        If there is no such option, or several.
    """
    if name in ("task", "network"):
        return name
    options = {section: _options(job, section) for section in SECTIONS}
    section, dot, option = name.partition(".")
    if dot:
        choice(f"option of {section}", option, options[choice(what, section, SECTIONS)])
        return name
    having = [section for section, known in options.items() if name in known]
    if not having:
        choice(what, name, dict.fromkeys([*others, *(option for known in options.values() for option in known)]))
    if len(having) > 1:
        raise InputError(f"{what} must be one of {', '.join(f'{one}.{name}' for one in having)}, got {name!r}")
    return f"{having[0]}.{name}"


def _options(job: Job, section: str) -> list[str]:
    """Return the names of the options of a section."""
    if section == "training":
        return list(TrainingConfig.model_fields)
    if section == "task":
        name = job.description["task"]["name"]
        if is_reference(name):
            return list(inspect.signature(load_user_code("task", name)).parameters)
        return list(inspect.signature((TASKS | OPTIONAL_TASKS)[name]).parameters)
    kind = job.network["kind"]
    if is_reference(kind):
        return ["kind", *list(inspect.signature(load_user_code("network kind", kind)).parameters)[2:]]
    known = GATED_OPTIONS if kind in GATES else RATE_OPTIONS
    return ["kind", *(name for name in known if name != "rng")]


def job_from_options(content: dict[str, Any]) -> Job:
    """Return a job from its fields and from options by path or unique name, such as "network.gain" or "gain".

    Raises
    ------
    InputError
        If an option is unknown or its value impossible.
    """
    content = dict(content)
    fields = {name: content.pop(name) for name in list(content) if name in Job.model_fields}
    if "task" not in fields:
        raise InputError("task is missing")
    base = Job(**fields)
    for name, value in content.items():
        path = resolve(base, name, "key", (*Job.model_fields, "grid", "samples"))
        section, _, option = path.partition(".")
        fields[section] = {**_spec(fields.get(section, {})), option: value}
    return Job(**fields)


def _check_small(jobs: list[Job]) -> None:
    """Build task and a tiny network for each kind of job, whatever sizes a file names."""
    kinds = {}
    for job in jobs:
        spec = {**job.network, "hidden_size": 8} if "hidden_size" in job.description["network"] else job.network
        kinds[json.dumps([job.description["task"], spec, job.measurements], sort_keys=True, default=str)] = job, spec
    for job, spec in kinds.values():
        Job(task=job.task, network=spec, training=job.training, measurements=job.measurements).check()


def _comparable(value: Any) -> Any:
    """Return a value that equals that of the same option, 1 and 1.0 included, and can be counted."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number else json.dumps(value, sort_keys=True, default=str)


def _spec(section: Any) -> dict[str, Any]:
    return {"name": section} if isinstance(section, str) else dict(section)


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"a sweep must be a YAML file, got {str(path)!r}, which does not exist")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{path} must be smaller than {LARGEST_FILE} bytes, got {path.stat().st_size}")
    try:
        text = path.read_text(encoding="utf-8")
        depth = itertools.accumulate((letter in "[{") - (letter in "]}") for letter in text)
        if max(depth, default=0) > MOST_BRACKETS:  # the time that the library takes grows with the square of the depth
            raise ValueError(f"it has more than {MOST_BRACKETS} brackets inside each other")
        content = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:
        # Besides errors of its own, the library raises what its constructors raise, for example for impossible dates.
        raise InputError(f"{path} is not readable YAML: {error!s:.500}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path} must be a mapping such as 'task: flipflop', got {type(content).__name__}")
    _check_values(path, content)
    return content


def _check_values(path: Path, content: dict[str, Any]) -> None:
    """Refuse too many values, huge numbers, and content that contains itself, before other code traverses it."""
    waiting: list[Any] = [content]
    seen = 1
    while waiting and seen <= MOST_VALUES:
        value = waiting.pop()
        if type(value) in (int, float) and abs(value) > LARGEST_NUMBER:
            got = f"{value:.3g}" if abs(value) < LARGEST_SHOWN else f"one beyond {LARGEST_SHOWN:g}"
            raise InputError(f"{path} must hold numbers up to {LARGEST_NUMBER:g}, got {got}")
        held: list[Any] = []
        if isinstance(value, dict):
            held = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            held = list(value)
        seen += len(held)
        waiting += held
    if waiting:
        raise InputError(f"{path} must hold at most {MOST_VALUES} values, got more, or one that contains itself")


def _plain(value: Any) -> Any:
    """Return a numpy scalar as a Python number."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _label(value: Any) -> Any:
    """Return a value as a label: numbers and text as they are, lists and mappings as one word."""
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    if isinstance(value, Mapping):
        return str(value.get("name", json.dumps(value, sort_keys=True, default=str)))
    return "none" if value is None else value
