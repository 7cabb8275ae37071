"""`Sweep`: a job, a grid of values for its options, and a number of samples; in Python or in a YAML file.

    task: flipflop
    network: {hidden_size: 64}
    training: {epochs: 150}
    grid:
      network.gain: [0.0, 0.6, 1.2, 1.8]
    samples: 4

Every combination of the grid is run `samples` times, each network with a seed that follows from what it is: from its
task, network and training without the number of epochs, what is recorded, and `paired` options. A grid may vary any
option of the job, by its path ("training.learning_rate") or by its name alone where that is unique ("learning_rate"),
or a whole task or network. In a file, options may also be given by their name: ``epochs: 150``.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from rankscope.description import Description
from rankscope.errors import InputError
from rankscope.networks.gated import GATED_OPTIONS
from rankscope.networks.gates import GATES
from rankscope.networks.rate import RATE_OPTIONS
from rankscope.sweep.axes import SECTIONS, SOURCES, canonical, key_of
from rankscope.sweep.job import Job
from rankscope.sweep.yaml_text import read_sweep
from rankscope.tasks import OPTIONAL_TASKS, TASKS
from rankscope.training import TrainingConfig
from rankscope.user_code import is_reference, load_user_code
from rankscope.validation import choice, integer

MOST_RECORDS = 10**6
MOST_JOBS = 20_000
RECORDING = (
    *("recorded_epochs", "singular_values", "eigenvalues", "record_weights", "matrices", "validation_every"),
    "kept_epochs",
)
"""Options of a training that change what is recorded, and nothing else."""


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
    paired
        Names from the grid. Jobs that differ only in these have the same seed: the same initial weights where the sizes
        agree, and the same trials.

    Raises
    ------
    InputError
        If an option is unknown or a value is impossible.
    """

    base: Job
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    samples: int = 1
    paired: tuple[str, ...] = ()

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
            repeated = next((one for one, count in Counter(map(key_of, values)).items() if count > 1), None)
            if repeated is not None:
                raise InputError(f"grid.{name} must have different values, got {repeated!s:.200} more than once")
        return grid

    @field_validator("samples", mode="before")
    @classmethod
    def _samples(cls, value: Any) -> Any:
        return integer("samples", value, minimum=1)

    @field_validator("paired", mode="before")
    @classmethod
    def _paired(cls, value: Any) -> Any:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise InputError(f"paired must be a list of names from the grid, got {value!r}; write [{value}]")
        return tuple(value)

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
        for path, times in Counter(paths.values()).items():
            if times > 1:
                both = ", ".join(name for name in paths if paths[name] == path)
                raise InputError(f"grid must name every option once, got {both}, which are all {path}")
        paired = [self._path(name) for name in self.paired]
        varied = [n for name, values in self.grid.items() if paths[name] == "training.recorded_epochs" for n in values]
        for records in (self.base.training.recorded_epochs, *varied):
            if isinstance(records, int) and records > MOST_RECORDS:
                raise InputError(f"recorded_epochs must be at most {MOST_RECORDS} in a sweep, got {records}")
        jobs = [
            self._job(dict(zip(paths.values(), combination, strict=True)), sample, paired)
            for combination in itertools.product(*self.grid.values())
            for sample in range(self.samples)
        ]
        return sorted(jobs, key=multiplications, reverse=True)

    def _path(self, name: str) -> str:
        """Return the path of a name of `paired`, which the grid may spell in another way."""
        path = resolve(self.base, name, "paired")
        if path not in {resolve(self.base, known) for known in self.grid}:
            raise InputError(f"paired must name options of the grid ({', '.join(self.grid)}), got {name!r}")
        return path

    def _job(self, at: Mapping[str, Any], sample: int, paired: Sequence[str]) -> Job:
        """Return one job; `at` has the value of each path, whole tasks and networks first."""
        fields = {
            "task": self.base.task,
            "network": dict(self.base.network),
            "training": {name: getattr(self.base.training, name) for name in self.base.training.model_fields_set},
            "measurements": self.base.measurements,
            "labels": {"sample": sample, **self.base.labels},
        }
        for path, value in sorted(at.items(), key=lambda item: "." in item[0]):
            section, _, option = path.partition(".")
            if option:
                fields[section] = {**_spec(fields[section]), option: value}
            elif section == "network":  # a kind, or options that replace those of the base
                fields[section] = {**fields[section], **({"kind": value} if isinstance(value, str) else value)}
            else:
                fields[section] = value
        job = Job(**fields)
        return job.with_seed(seed_of(self.base.seed, *_what_it_is(job, paired), sample))

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
        content = read_sweep(path)
        try:
            given = {name: content.pop(name) for name in ("grid", "samples", "paired") if name in content}
            sweep = cls(base=job_from_options(content), **given)
            _check_small(sweep.jobs())
            return sweep
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def seed_of(*labels: Any) -> int:
    """Return a seed that follows from labels, not from an order of running."""
    return int.from_bytes(hashlib.sha256(json.dumps(labels).encode()).digest()[:6], "big")


def _what_it_is(job: Job, paired: Sequence[str]) -> list[Any]:
    """Return what determines a network, besides the seed and the number of epochs, without the paired options."""
    skipped = {"training.epochs", *(f"training.{name}" for name in RECORDING), *paired}
    return [
        [section, name, canonical(value, SOURCES)]
        for section in SECTIONS
        if section not in skipped
        for name, value in sorted(job.description[section].items())
        if f"{section}.{name}" not in skipped and name not in SOURCES
    ]


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
        path = resolve(base, name, "key", (*Job.model_fields, "grid", "samples", "paired"))
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


def _spec(section: Any) -> dict[str, Any]:
    return {"name": section} if isinstance(section, str) else dict(section)


def _plain(value: Any) -> Any:
    """Return a numpy scalar as a Python number."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
