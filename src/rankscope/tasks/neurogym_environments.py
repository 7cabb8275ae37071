"""NeuroGym's environments: the registry, exact seeding, and the trials of a session.

NeuroGym's own `seed` leaves out some sources of randomness and gives one seed to several, so that the length of a
delay, for example, can predict the correct answer. `session` gives every source a stream of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.validation import choice

MISSING = "NeuroGym is not installed; its tasks need the extra rankscope[neurogym]: pip install 'rankscope[neurogym]'"

STEPS = {
    "AnnubesEnv-v0": 30,
    "ContextDecisionMaking-v0": 78,
    "DelayComparison-v0": 52,
    "DelayMatchCategory-v0": 56,
    "DelayMatchSample-v0": 64,
    "DelayMatchSampleDistractor1D-v0": 106,
    "DelayPairedAssociation-v0": 90,
    "DualDelayMatchSample-v0": 80,
    "GoNogo-v0": 30,
    "HierarchicalReasoning-v0": 92,
    "IntervalDiscrimination-v0": 73,
    "MotorTiming-v0": 130,
    "MultiSensoryIntegration-v0": 23,
    "OneTwoThreeGo-v0": 125,
    "PerceptualDecisionMaking-v0": 44,
    "PerceptualDecisionMakingDelayResponse-v0": 133,
    "ProbabilisticReasoning-v0": 70,
    "PulseDecisionMaking-v0": 250,
    "ReachingDelayResponse-v0": 60,
    "ReadySetGo-v0": 90,
    "ToneDetection-v0": 40,
    "perceptualdecisionmaking.ibl20-v0": 44,
    "perceptualdecisionmaking.roitman02-v0": 44,
    "yang19.dmc-v0": 64,
    "yang19.dms-v0": 64,
    "yang19.dnmc-v0": 64,
    "yang19.dnms-v0": 64,
}
"""Steps of a trial of the environments that NeuroGym 2.3.1 tags as supervised: the study's list and its cost where
NeuroGym is not installed."""
USUAL_STEPS = 64

PARAMETERS: dict[str, dict[str, Any]] = {
    # Without defaults for the first two: light, sound or, in half of the trials, neither. The fixation cue is there
    # because a network without bias cannot respond without any input.
    "AnnubesEnv-v0": {"options": {"session": {"v": 0.5, "a": 0.5}, "catch_prob": 0.5, "fix_intensity": 1}},
    # Its pulses last 10 ms.
    "PulseDecisionMaking-v0": {"dt": 0.1},
}
"""Parameters of the task `NeuroGym` that an environment needs."""

ANSWERED_AT_THE_END = ("ToneDetection-v0",)
"""Environments whose ground truth is the answer from the first step on, before the stimulus that determines it."""

TOLERANCE = 1e-6
"""By which a ground truth may exceed the bounds of continuous actions, for rounding."""

Array = NDArray[Any]


class Trial(NamedTuple):
    """One trial of an environment: (steps, in) observations, (steps, ...) ground truth, period -> its steps.

    `answer` is the environment's own description of what is right in this trial, if it gives one.
    """

    observations: Array
    ground_truth: Any
    periods: dict[str, tuple[int, int]]
    answer: Any = None


def environments(tag: str | None = None) -> tuple[str, ...]:
    """Return the names of NeuroGym's environments, or of those with a tag such as "supervised"; collections last.

    Raises
    ------
    InputError
        If NeuroGym is not installed.
    """
    registry = registration()
    names = (*sorted(registry.ALL_ENVS), *sorted(registry.ALL_COLLECTIONS_ENVS))
    return names if tag is None else tuple(name for name in names if tag in _tags(name))


def installed() -> bool:
    """Return whether NeuroGym can be imported, without importing it."""
    return importlib.util.find_spec("neurogym") is not None


def registration() -> Any:
    """Import NeuroGym's registry without side effects, and return it."""
    # Gymnasium changes the warning filters and sets environment variables for pygame, which is not used here.
    variables = dict(os.environ)
    try:
        with warnings.catch_warnings(action="ignore"):  # Gymnasium warns about NeuroGym
            return importlib.import_module("neurogym.envs.registration")
    except ImportError as error:
        raise InputError(MISSING) from error
    finally:
        for name in set(os.environ) - set(variables):
            del os.environ[name]


def check_known(environment: object) -> None:
    """Raise `InputError` unless NeuroGym or Gymnasium has an environment of this name."""
    known = environments()  # imports NeuroGym, which registers them
    registered = importlib.import_module("gymnasium").registry
    if not isinstance(environment, str) or (":" not in environment and environment not in registered):
        choice("environment", environment, known)


def make_environment(name: str, step: float, options: Mapping[str, Any]) -> Any:
    """Return a new environment with steps of `step` milliseconds, not yet seeded.

    Raises
    ------
    InputError
        If the environment does not accept the step and the options.
    """
    step = round(step, 9)
    try:
        with warnings.catch_warnings(action="ignore"):  # Gymnasium warns about NeuroGym
            return registration().make(name, **options, dt=int(step) if step.is_integer() else step)
    except InputError:
        raise
    except Exception as error:  # whatever the environment raises
        if isinstance(error, TypeError):
            for option in options:
                choice(f"option of {name}", option, sorted(_keywords(name)) or [option])
        reason = str(error).partition(" was raised from the environment creator")[0]
        raise InputError(
            f"environment {name!r} cannot be made with a step of {step:g} ms and options = {dict(options)!r}: {reason}"
        ) from error


def check_options(name: str, step: float, options: Mapping[str, Any], periods: Iterable[str]) -> None:
    """Raise `InputError` for a period in `timing` or an outcome in `rewards` that the environment does not have.

    NeuroGym merges these mappings into its own and ignores names that it does not use.

    Parameters
    ----------
    periods
        Names of the periods of drawn trials.
    """
    given = {option: options[option] for option in ("timing", "rewards") if isinstance(options.get(option), Mapping)}
    if not given:
        return
    others = {key: value for key, value in options.items() if key not in given}
    default = make_environment(name, step, others).unwrapped
    for option, values in given.items():
        known = {*map(str, getattr(default, option, {})), *(periods if option == "timing" else ())}
        for key in values:
            if known:
                choice(f"{option} of {name}", key, sorted(known))


def _keywords(name: str) -> set[str]:
    """Return the keyword arguments of an environment's class except dt; none if they cannot be known."""
    try:
        default = make_environment(name, 100.0, {})
    except InputError:
        return set()
    found: set[str] = set()
    for kind in type(default.unwrapped).__mro__:
        if "__init__" not in vars(kind):
            continue
        parameters = inspect.signature(vars(kind)["__init__"]).parameters.values()
        found |= {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
        if not any(one.kind == one.VAR_KEYWORD for one in parameters):
            return found - {"self", "dt"}
    return set()


def session(name: str, step: float, options: Mapping[str, Any], count: int, rng: np.random.Generator) -> list[Trial]:
    """Return the first `count` trials of a new environment, in the order in which it presents them.

    Raises
    ------
    InputError
        If the environment cannot be made, does not draw trials, or leaves a trial without ground truth.
    """
    seed = np.random.SeedSequence(rng.integers(2**32, size=4).tolist())
    environment = make_environment(name, step, options)
    with warnings.catch_warnings(action="ignore"):  # Gymnasium warns about NeuroGym
        bases = _seed(environment, seed)
        try:
            new_trial = environment.get_wrapper_attr("new_trial")
            trials = [_next_trial(environment, new_trial, bases) for _ in range(count)]
        except Exception as error:  # whatever the environment raises
            raise InputError(
                f"environment {name!r} must be one that draws trials (new_trial), got {type(error).__name__}: {error}"
            ) from error
    if any(trial.ground_truth is None for trial in trials):
        raise InputError(f"environment {name!r} must set a ground truth in every trial, got none")
    return trials


def check_step(name: str, step: float, tau: float, options: Mapping[str, Any]) -> None:
    """Raise `InputError` unless every period of fixed length lasts a step; `step` and `tau` are in milliseconds."""
    timing = getattr(make_environment(name, step, options).unwrapped, "timing", {})
    for period, duration in timing.items():
        lengths = duration if isinstance(duration, (list, tuple)) else [duration]
        for length in lengths:
            is_number = isinstance(length, (int, float)) and not isinstance(length, bool)
            if is_number and 0 < length < step * (1 - 1e-9):
                raise InputError(
                    f"dt must be at most {length / tau:g}, so that the period {period!r} of {name} ({length:g} ms with "
                    f"tau = {tau:g} ms) lasts one step or more, got {step / tau!r}"
                )


def check_learnable(name: str, observations: Any, actions: Any, trials: list[Trial], again: list[Trial]) -> None:
    """Raise `InputError` unless a network can learn from trials of an environment with these spaces.

    `trials` and `again` are those of two sessions with the same seed.
    """
    about = f"environment {name!r}"
    discrete = getattr(actions, "n", None) is not None and not actions.shape
    if len(getattr(observations, "shape", None) or ()) != 1:
        raise InputError(f"{about} must have observations that are vectors, got the space {observations}")
    if not discrete and len(getattr(actions, "shape", None) or ()) != 1:
        raise InputError(f"{about} must have actions that are discrete or vectors, got the space {actions}")
    shape = () if discrete else actions.shape
    for trial in trials:
        steps = len(trial.observations)
        if trial.observations.shape != (steps, *observations.shape) or trial.ground_truth.shape != (steps, *shape):
            raise InputError(
                f"{about} must have an observation and a ground truth at every step, got shapes "
                f"{trial.observations.shape} and {trial.ground_truth.shape}"
            )
        _check_targets(name, actions, trial)
    if not all(map(_same, trials, again)):
        raise InputError(
            f"{about} must draw the same trials from the same seed, got different ones: it has a source of randomness "
            "that is not an attribute"
        )


def _check_targets(name: str, actions: Any, trial: Trial) -> None:
    """Raise `InputError` unless the ground truth of a trial consists of actions that the environment accepts."""
    truth = np.asarray(trial.ground_truth)
    about = f"environment {name!r} must have a ground truth within its actions {actions}"
    if truth.dtype.kind not in "iubf" or not np.isfinite(truth).all():
        raise InputError(f"{about}, got {truth.dtype} values such as {truth.ravel()[:3].tolist()}")
    if getattr(actions, "n", None) is None or actions.shape:
        low, high = np.asarray(actions.low, dtype=float), np.asarray(actions.high, dtype=float)
        outside = truth[(truth < low - TOLERANCE) | (truth > high + TOLERANCE)]
    else:
        start = int(getattr(actions, "start", 0))
        outside = truth[(truth != np.floor(truth)) | (truth < start) | (truth >= start + int(actions.n))]
        # NeuroGym rounds what it stores as the action of each step, but not the description of the trial.
        answer = trial.answer
        if not outside.size and isinstance(answer, float | np.floating) and answer != np.floor(answer):
            raise InputError(f"{about}, got the number {float(answer):g}, which is no choice between actions")
    if outside.size:
        got = ", ".join(f"{value:g}" for value in np.unique(outside)[:4])
        raise InputError(f"{about}, got {got}: it cannot be learned from examples")


def _same(one: Trial, other: Trial) -> bool:
    return one.periods == other.periods and all(map(np.array_equal, one[:2], other[:2]))


def _seed(environment: Any, seed: np.random.SeedSequence) -> list[Any]:
    """Seed every source of randomness in an environment with a stream of its own; return the environments it wraps.

    Sources are numpy generators among the attributes of the environment, of those it wraps, and of its schedules and
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
                # Gymnasium creates its own source on first access.
                found.np_random = np.random.default_rng(0)
                if hasattr(found, "start_ind"):
                    bases.append(found)
            waiting += vars(found).values()
    for base in bases:
        # HierarchicalReasoning draws its first block when it is made, before it can be seeded.
        new_block = getattr(base, "new_block", None)
        if callable(new_block):
            new_block()
    return bases


def _next_trial(environment: Any, new_trial: Any, bases: list[Any]) -> Trial:
    """Make an environment draw its next trial, and return it."""
    for base in bases:
        # Otherwise the periods and ground truth of the previous trial remain where this one sets none.
        for name in ("start_ind", "end_ind"):
            getattr(base, name).clear()
        vars(base).pop("gt", None)
    new_trial()
    base = environment.unwrapped
    periods = {period: (int(start), int(base.end_ind[period])) for period, start in base.start_ind.items()}
    truth: Any = getattr(base, "gt", None)
    answer = (getattr(base, "trial", None) or {}).get("ground_truth")
    return Trial(np.array(base.ob), None if truth is None else np.array(truth), periods, answer)


def _tags(name: str) -> list[str]:
    registry = registration()
    module, _, kind = registry.ALL_EXTENDED_ENVS[name].partition(":")
    entry = getattr(importlib.import_module(module), kind)
    if not isinstance(entry, type):  # a function: only what it returns has tags
        with warnings.catch_warnings(action="ignore"):  # Gymnasium warns about NeuroGym
            entry = registry.make(name).unwrapped
    return list(entry.metadata.get("tags") or [])
