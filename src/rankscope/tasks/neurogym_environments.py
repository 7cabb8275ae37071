"""NeuroGym's environments, one trial at a time and exactly seeded.

What the task (`neurogym.py`) needs of the library is here: its registry, imported without side effects; every source of
randomness in an environment, given a stream of its own; and one trial after the other.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.validation import choice

MISSING = "NeuroGym is not installed; its tasks need the extra rankscope[neurogym]: pip install 'rankscope[neurogym]'"

Array = NDArray[Any]


class Trial(NamedTuple):
    """One trial of an environment: (steps, in) observations, (steps, ...) ground truth, period -> its steps."""

    observations: Array
    ground_truth: Any
    periods: dict[str, tuple[int, int]]


def environments(tag: str | None = None) -> tuple[str, ...]:
    """Return the names of NeuroGym's environments, in alphabetical order, its collections last.

    Parameters
    ----------
    tag
        Only those that NeuroGym tags so, such as "supervised".

    Raises
    ------
    InputError
        If NeuroGym is not installed.
    """
    registry = registration()
    native, collections = (sorted(registry.ALL_ENVS), sorted(registry.ALL_COLLECTIONS_ENVS))
    if tag is None:
        return (*native, *collections)
    return tuple(name for name in (*native, *collections) if tag in _tags(name))


def installed() -> bool:
    """Return whether NeuroGym can be imported; does not import it."""
    return importlib.util.find_spec("neurogym") is not None


def registration() -> Any:
    """Return NeuroGym's registry, imported without what the import would change.

    Gymnasium, on which NeuroGym is built, changes the filters of warnings and sets variables of the process for
    pygame, which nothing here uses.
    """
    variables = dict(os.environ)
    try:
        with quiet():
            return importlib.import_module("neurogym.envs.registration")
    except ImportError as error:
        raise InputError(MISSING) from error
    finally:
        for name in set(os.environ) - set(variables):
            del os.environ[name]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings of Gymnasium about NeuroGym to themselves; the filters are as they were afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_known(environment: object) -> None:
    """Raise `InputError` unless NeuroGym or Gymnasium has an environment of this name."""
    known = environments()
    others = importlib.import_module("gymnasium").registry
    if not isinstance(environment, str) or (":" not in environment and environment not in others):
        choice("environment", environment, known)


def seeded(environment: Any, seed: np.random.SeedSequence) -> list[Any]:
    """Seed every source of randomness in an environment with a stream of its own; return what draws its trials.

    Sources are numpy's generators among its attributes, those of what it wraps, and those of its schedules and
    distributions of durations.
    """
    gymnasium = importlib.import_module("gymnasium")
    bases: list[Any] = []
    seen: set[int] = set()
    waiting = [environment]
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, np.random.RandomState):
            found.seed(seed.spawn(1)[0].generate_state(4))
        elif isinstance(found, np.random.Generator):
            bits: Any = found.bit_generator
            bits.state = type(bits)(seed.spawn(1)[0]).state
        elif isinstance(found, (list, tuple)):
            waiting += found
        elif isinstance(found, dict):
            waiting += found.values()
        elif isinstance(found, gymnasium.Env) or hasattr(found, "rng"):
            if isinstance(found, gymnasium.Env) and not isinstance(found, gymnasium.Wrapper):
                # Gymnasium's own source, which is made when it is first asked for.
                found.np_random = np.random.default_rng(0)
                if hasattr(found, "start_ind"):
                    bases.append(found)
            waiting += vars(found).values()
    for base in bases:
        # HierarchicalReasoning draws its first block when it is made, before anybody can seed it.
        new_block = getattr(base, "new_block", None)
        if callable(new_block):
            new_block()
    return bases


def next_trial(environment: Any, new_trial: Any, bases: list[Any]) -> Trial:
    """Have an environment draw its next trial, and return it; `bases` is what `seeded` returned."""
    for base in bases:
        # Periods and ground truth of the trial before must not pass for this one's.
        for name in ("start_ind", "end_ind"):
            getattr(base, name).clear()
        vars(base).pop("gt", None)
    new_trial()
    base = environment.unwrapped
    periods = {period: (int(start), int(base.end_ind[period])) for period, start in base.start_ind.items()}
    truth: Any = getattr(base, "gt", None)
    return Trial(np.array(base.ob), None if truth is None else np.array(truth), periods)


def _tags(name: str) -> list[str]:
    """Return the tags of an environment of the registry."""
    registry = registration()
    module, _, kind = registry.ALL_EXTENDED_ENVS[name].partition(":")
    entry = getattr(importlib.import_module(module), kind)
    if not isinstance(entry, type):  # a function that makes one, which has to be asked
        with quiet():
            entry = registry.make(name).unwrapped
    return list(entry.metadata.get("tags") or [])
