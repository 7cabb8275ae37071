"""Axes of a run: the options in which its jobs differ, as labels.

A job has labels of its own ("sample", and those that the user gives) and the coordinates task, kind, gain and
hidden_size. An option that differs between jobs and follows from none of these becomes a label too, so that a run opens
as one labelled Dataset whatever its jobs vary. Axes are found from the descriptions of all jobs, finished or not.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from rankscope.networks import GatedRNN, RateRNN
from rankscope.networks.gates import GATES
from rankscope.tasks import OPTIONAL_TASKS, TASKS
from rankscope.training import TrainingConfig

SECTIONS = ("task", "network", "training")
NONE = "none"
"""Label of an option that is None, or that only other jobs have."""
SOURCES = ("source", "content")
"""Options that identify code and data of the user."""
RESERVED = {"loss"}
"""Names of curves that every result has."""
OF_THE_TASK = ("kind", "rng", "dt", "readout", "embedding", "initial_state")
"""Options of a network whose defaults depend on the task, or that are no options."""
Description = Mapping[str, Any]
Path = tuple[str, str]


def options_of(job: Description) -> dict[Path, Any]:
    """Return all options of a job by (section, name), defaults included, given its description."""
    task, network, training = (_section(job, name) for name in SECTIONS)
    filled = {
        "task": {**_task_defaults(str(task.get("name"))), **task},
        "network": {**network_defaults(str(network.get("kind"))), **network},
        "training": {**_training_defaults(), **training},
    }
    return {(section, name): value for section, options in filled.items() for name, value in options.items()}


def labels_of_jobs(jobs: Mapping[str, Description]) -> dict[str, dict[str, Any]]:
    """Return all labels of each job, by digest: those that it has, and those in which the jobs differ."""
    further = axes_of(jobs)
    return {digest: own_labels(job) | further[digest] for digest, job in jobs.items()}


def own_labels(job: Description) -> dict[str, Any]:
    """Return task, kind, gain, hidden_size and the labels of a job, as far as its description contains them."""
    task, network, labels = (_section(job, name) for name in ("task", "network", "labels"))
    named = {"task": short_name(task.get("name")) or None, "kind": short_name(network.get("kind")) or None}
    sizes = {name: network.get(name) for name in ("gain", "hidden_size")}
    return {name: value for name, value in (named | sizes | labels).items() if value is not None}


def axes_of(jobs: Mapping[str, Description], taken: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """Return the further labels that distinguish jobs, by digest.

    Parameters
    ----------
    jobs
        Descriptions of the jobs by digest.
    taken
        Names that no new label may have.

    Returns
    -------
    dict
        Digest -> label -> number, text or bool. All jobs have the same new labels. Among them are task and kind, with
        the whole reference, where two files of the user have a class or function of the same name.
    """
    labels = [own_labels(job) for job in jobs.values()]
    whole = _whole_names(list(jobs.values()))
    for name, values in whole.items():
        labels = [{**one, name: value} for one, value in zip(labels, values, strict=True)]
    common = set.intersection(*map(set, labels)) if labels else set()
    place = Places(len(labels), [[one[name] for one in labels] for name in sorted(common)])
    partial = dict.fromkeys(name for one in labels for name in one if name not in common)
    columns: dict[Path, list[Any]] = {("", name): [one.get(name) for one in labels] for name in partial}
    columns |= _columns([options_of(job) for job in jobs.values()])
    chosen: dict[Path, list[Any]] = {}
    for path, values in columns.items():
        if any(value != values[0] for value in values) and not place.determines(values):
            chosen[path] = values
            place.add(values)
    names = _names(list(chosen), common | {*taken} | RESERVED)
    further = whole | {names[path]: _labels(values) for path, values in chosen.items()}
    if place.ambiguous():
        further["sample"] = place.ranks([job.get("seed") for job in jobs.values()])
    return {digest: {name: column[i] for name, column in further.items()} for i, digest in enumerate(jobs)}


def _whole_names(jobs: Sequence[Description]) -> dict[str, list[Any]]:
    """Return the values of the labels task and kind where code of the user in two places has one short name."""
    found: dict[str, list[Any]] = {}
    for label, section, option in (("task", "task", "name"), ("kind", "network", "kind")):
        names = [_section(job, section).get(option) for job in jobs]
        places: dict[str, set[str]] = {}
        for name in filter(None, names):
            places.setdefault(short_name(name), set()).add(name)
        if any(len(same) > 1 for same in places.values()):
            found[label] = [name if len(places[short_name(name)]) > 1 else short_name(name) for name in names]
    return found


def key_of(value: Any) -> Any:
    """Return a value that is equal for equal options, 0 and 0.0 included, and can be counted."""
    if value is None or isinstance(value, str):
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number else "json " + json.dumps(value, sort_keys=True, default=str)


def canonical(value: Any, without: Sequence[str] = ()) -> Any:
    """Return plain values with whole floats as integers, so that 1 and 1.0 are one, and without some entries."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [canonical(one, without) for one in value]
    if isinstance(value, Mapping):
        return {name: canonical(one, without) for name, one in value.items() if name not in without}
    return value


def labels_of_values(values: Sequence[Any]) -> list[Any]:
    """Return a different label for each of several different values: numbers and text as they are, else short text."""
    found = [_label(value, values) for value in values]
    if len({(type(one) is bool, one) for one in found}) < len(values):
        found = [value if isinstance(value, int | float | str) else _json(value) for value in values]
    return found


def _labels(values: Sequence[Any]) -> list[Any]:
    distinct = {key_of(value): value for value in values}
    label = dict(zip(distinct, labels_of_values(list(distinct.values())), strict=True))
    return [label[key_of(value)] for value in values]


def _label(value: Any, others: Sequence[Any]) -> Any:
    """Return a label for one of several values; of a mapping, its name and what differs from those of that name."""
    if value is None:
        return NONE
    if isinstance(value, list | tuple):
        return "+".join(str(_label(one, [value])) for one in value) or "none of them"
    if not isinstance(value, Mapping):
        return value
    alike = [other for other in others if isinstance(other, Mapping) and _lead(other) == _lead(value)]
    names = sorted({name for other in alike for name in other} - {"name", "kind", "function", *SOURCES})
    differing = [name for name in names if len({key_of(other.get(name)) for other in alike}) > 1]
    return " ".join(filter(None, [_lead(value), *(f"{name}={value.get(name)}" for name in differing)])) or _json(value)


def _lead(value: Mapping[str, Any]) -> str:
    return short_name(value.get("name", value.get("kind", value.get("function"))))


def short_name(reference: Any) -> str:
    """Return the name of the user's code without its file, any other name as it is, and "" for None."""
    return "" if reference is None else str(reference).rpartition(":")[2]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


class Places:
    """The labels of several jobs, as one number for each job that is equal for equal labels."""

    def __init__(self, count: int, columns: Iterable[Sequence[Any]] = ()) -> None:
        self._numbers = [0] * count
        for column in columns:
            self.add(column)

    def add(self, values: Sequence[Any]) -> None:
        """Add a label, given its value for each job."""
        number_of: dict[Any, int] = {}
        pairs = zip(self._numbers, map(key_of, values), strict=True)
        self._numbers = [number_of.setdefault(pair, len(number_of)) for pair in pairs]

    def determines(self, values: Sequence[Any]) -> bool:
        """Return whether jobs with equal labels have equal values."""
        first: dict[int, Any] = {}
        pairs = zip(self._numbers, map(key_of, values), strict=True)
        return all(first.setdefault(number, key) == key for number, key in pairs)

    def ambiguous(self) -> bool:
        """Return whether two jobs have equal labels."""
        return len(set(self._numbers)) < len(self._numbers)

    def ranks(self, seeds: Sequence[Any]) -> list[int]:
        """Return the rank of the seed of each job among the jobs with the same labels."""
        groups: dict[int, list[str]] = {}
        words = [f"{seed!s:>40}" for seed in seeds]
        for number, word in zip(self._numbers, words, strict=True):
            groups.setdefault(number, []).append(word)
        return [sorted(groups[number]).index(word) for number, word in zip(self._numbers, words, strict=True)]


def _columns(options: Sequence[Mapping[Path, Any]]) -> dict[Path, list[Any]]:
    """Return the values of each option, with identities of the user's code and data last."""
    paths = dict.fromkeys(path for one in options for path in one)
    ordered = sorted(paths, key=lambda path: path[1] in SOURCES)
    return {path: [one.get(path) for one in options] for path in ordered}


def _names(paths: Sequence[Path], taken: set[str]) -> dict[Path, str]:
    """Return a name for each path: the option's alone where it is unique."""
    short = [name for _, name in paths]
    return {
        (section, name): name if short.count(name) == 1 and name not in taken else f"{section}.{name}"
        for section, name in paths
    }


def _section(job: Description, name: str) -> dict[str, Any]:
    found = job.get(name)
    return dict(found) if isinstance(found, Mapping) else {}


@cache
def _training_defaults() -> dict[str, Any]:
    return dict(TrainingConfig().model_dump(mode="json"))


@cache
def network_defaults(kind: str) -> Mapping[str, Any]:
    """Return the defaults of the options of a built-in kind of network that depend on nothing else."""
    if kind not in ("rate", *GATES):
        return {}
    classes: Any = RateRNN if kind == "rate" else GatedRNN
    found = plain_defaults(classes) | plain_defaults(classes.initialize)
    return {name: value for name, value in found.items() if name not in OF_THE_TASK}


@cache
def _task_defaults(name: str) -> dict[str, Any]:
    kind: Any = (TASKS | OPTIONAL_TASKS).get(name)
    if kind is None or not dataclasses.is_dataclass(kind):
        return {}
    return {one.name: one.default for one in dataclasses.fields(kind) if _is_plain(one.default)}


def plain_defaults(function: Any) -> dict[str, Any]:
    """Return the defaults of a function's parameters that JSON can hold."""
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if _is_plain(one.default)}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
