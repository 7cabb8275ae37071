"""Tasks of NeuroGym: dozens of environments from neuroscience, as tasks like the others.

An environment of NeuroGym draws one trial after another: observations, the action that would be right at each step
(its ground truth), and the periods of the trial. Here a trial becomes a row of a batch, one-hot targets where the
actions are discrete, and a mask that says how much each period counts. NeuroGym is an extra (`pip install
'rankscope[neurogym]'`) and is imported only when such a task is made.

Two things are done otherwise than in NeuroGym's own `Dataset`. That one lays trials end to end and cuts the stream
into pieces; here trials are whole, and shorter ones are padded. And its environments cannot be seeded exactly: their
`seed` leaves out some sources of randomness and gives the same seed to several, so that a delay, say, would tell the
right answer. Here every source gets a stream of its own, all of them derived from `rng`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.tasks.neurogym_environments import (
    MISSING as MISSING,
)
from rankscope.tasks.neurogym_environments import (
    Trial,
    check_known,
    next_trial,
    quiet,
    registration,
    seeded,
)
from rankscope.tasks.neurogym_environments import environments as environments
from rankscope.tasks.neurogym_environments import installed as installed
from rankscope.tasks.trials import BuiltInTask, Trials
from rankscope.validation import choice, integer, number

LOSSES = ("cross_entropy", "squared")
# Trials looked at to find out how long they are and what their periods ask for.
PROBED = 512
# Enough to reach into a second block, where NeuroGym's environments have blocks of their own.
COMPARED = 24
EXAMPLE_SEED = PROBE_SEED = 0

Array = NDArray[Any]


class Padded(NamedTuple):
    """Trials side by side: (trials, time, in) and (trials, time, ...), and (trials, time) weights, 0 in the padding."""

    observations: Array
    ground_truth: Array
    weights: Array


@dataclass(frozen=True)
class NeuroGym(BuiltInTask):
    """An environment of NeuroGym as a task.

    A batch is the beginning of a session: a fresh environment draws one trial a row, in the order in which it would
    present them. Batches are padded to the longest trial; padding has input, target and mask 0. Trials are never cut.

    Parameters
    ----------
    environment : str
        Name in NeuroGym's registry, such as "GoNogo-v0", or of one that you registered there ("module:Name-v0" is
        imported first).
    dt : float
        Length of a step in time constants, as everywhere here.
    tau : float
        The time constant in milliseconds, which is what environments count in: they get a step of dt * tau. With the
        defaults that is 50 ms.
    options : mapping
        Keyword arguments of the environment but dt, as plain values: {"sigma": 0.5, "timing": {"delay": 500}}.
    weights : mapping
        Period -> how much its steps count; 0 drops them. Periods that are not named count 1, so by default all of a
        trial counts alike, fixation too. See also `balanced`.
    loss : str or None
        "cross_entropy" or "squared", what `train` minimizes. None chooses by the actions: cross-entropy where they are
        discrete, squared otherwise.
    pool : int
        0 draws fresh trials. Otherwise so many trials are drawn once, from `pool_seed`, and batches are taken from
        them with replacement, which takes next to no time.
    pool_seed : int
        Seed of the pool.

    Raises
    ------
    InputError
        If NeuroGym is missing; if the environment is unknown, cannot be made with these options, or is not one to
        learn from examples: without ground truth, with observations or actions that are not vectors, or with
        randomness that cannot be seeded; if `dt` leaves a period without a step; if `weights` names a period that
        there is not, or leaves nothing that counts.

    References
    ----------
    Molano-Mazon et al. 2022, NeuroGym: an open resource for developing and sharing neuroscience tasks.
    """

    name: ClassVar[str] = "neurogym"

    environment: str = "PerceptualDecisionMaking-v0"
    dt: float = 0.5
    tau: float = 100.0
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    loss: str | None = None
    pool: int = 0
    pool_seed: int = 0

    def __post_init__(self) -> None:
        self._check_number("dt", above=0)
        self._check_number("tau", above=0)
        self._settle("options", _plain(self.options))
        self._settle("weights", _checked_weights(self.weights))
        self._settle("pool", integer("pool", self.pool, minimum=0))
        self._settle("pool_seed", integer("pool_seed", self.pool_seed, minimum=0))
        if self.loss is not None:
            choice("loss", self.loss, LOSSES)
        check_known(self.environment)
        self._check_periods()
        trials = self._trials(COMPARED, np.random.default_rng(PROBE_SEED))
        self._check_trials(trials)
        if self.loss is None:
            self._settle("loss", "squared" if self._classes is None else "cross_entropy")
        if self.loss == "cross_entropy" and (self._classes or 0) < 2:
            raise InputError(
                f"loss must be 'squared' for {self.environment}, which has no two or more discrete actions, "
                f"got {self.loss!r}"
            )

    def __hash__(self) -> int:
        return hash(json.dumps(self.parameters(), sort_keys=True))

    def __getstate__(self) -> dict[str, Any]:
        # Without what was cached: a pool is large, and is drawn again where it is needed.
        return self.parameters()

    @cached_property
    def input_size(self) -> int:
        """Number of observations at a step."""
        return int(self._spaces[0].shape[0])

    @cached_property
    def output_size(self) -> int:
        """Number of actions where they are discrete, and the length of an action otherwise."""
        return int(self._spaces[1].shape[0]) if self._classes is None else self._classes

    @cached_property
    def steps(self) -> int:
        """Number of time steps to which trials are padded: of the longest of some hundred (a longer one is not cut)."""
        return max(len(trial.ground_truth) for trial in self._probe)

    @cached_property
    def periods(self) -> tuple[str, ...]:
        """Names of the periods, in the order in which they begin."""
        first: dict[str, int] = {}
        for trial in self._probe:
            for period, (start, _) in trial.periods.items():
                first.setdefault(period, start)
        return tuple(sorted(first, key=lambda period: first[period]))

    @cached_property
    def decision_periods(self) -> tuple[str, ...]:
        """Names of the periods in which the right answer is not always the same; all if there is none."""
        undecided = []
        for period in self.periods:
            pieces = (
                trial.ground_truth[slice(*trial.periods[period])] for trial in self._probe if period in trial.periods
            )
            answers = np.concatenate(list(pieces))
            if len(answers) and bool((answers != answers[0]).any()):
                undecided.append(period)
        return tuple(undecided) or self.periods

    def balanced(self, share: float = 0.5) -> NeuroGym:
        """Return this task with weights that give the decision periods `share` of the weight of all steps.

        Decisions are often a few steps at the end of a long trial, of which most ask for nothing but fixation.

        Parameters
        ----------
        share
            0 < share < 1.

        Raises
        ------
        InputError
            If `share` is out of range.
        """
        number("share", share, above=0, below=1)
        counts = np.zeros(2)
        for trial in self._probe:
            decided = self._in_decision(trial)
            counts += (~decided).sum(), decided.sum()
        if not counts.all():
            return self._with(weights={})
        weight = float(f"{share / (1 - share) * counts[0] / counts[1]:.4g}")
        return self._with(weights=dict.fromkeys(self.decision_periods, weight))

    def fresh(self) -> NeuroGym:
        """Return this task without a pool: what to evaluate on, where the training had one."""
        return self._with(pool=0)

    def for_decisions(self) -> NeuroGym:
        """Return this task with only the decision periods counting, each of their steps 1."""
        others = [period for period in self.periods if period not in self.decision_periods]
        return self._with(weights=dict.fromkeys(others, 0.0))

    def example(self) -> Trials:
        """Return the first trial of one fixed session."""
        return self._batch(self._padded(self._trials(1, np.random.default_rng(EXAMPLE_SEED))))

    def _with(self, **changes: Any) -> NeuroGym:
        """Return this task with other weights or another pool; what is known of its environment stays known."""
        other = replace(self, **changes)
        vars(other)["_probe"] = self._probe
        return other

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        if not self.pool:
            return self._batch(self._padded(self._trials(batch_size, rng)))
        chosen = rng.integers(self.pool, size=batch_size)
        return self._batch(Padded(*(array[chosen] for array in self._pooled)))

    @cached_property
    def _pooled(self) -> Padded:
        return self._padded(self._trials(self.pool, np.random.default_rng(self.pool_seed)))

    @cached_property
    def _probe(self) -> list[Trial]:
        return self._trials(PROBED, np.random.default_rng(PROBE_SEED))

    @cached_property
    def _spaces(self) -> tuple[Any, Any]:
        """Spaces of observations and actions."""
        with quiet():
            environment = self._made()
            return environment.get_wrapper_attr("observation_space"), environment.get_wrapper_attr("action_space")

    @cached_property
    def _classes(self) -> int | None:
        """Number of discrete actions, or None."""
        actions = getattr(self._spaces[1], "n", None)
        return None if actions is None or self._spaces[1].shape else int(actions)

    def _made(self) -> Any:
        """Return a fresh environment, not yet seeded."""
        step = round(self.dt * self.tau, 9)
        try:
            return registration().make(self.environment, **self.options, dt=int(step) if step.is_integer() else step)
        except Exception as error:  # whatever the environment raises
            raise InputError(
                f"environment {self.environment!r} cannot be made with a step of {step:g} ms and "
                f"options = {self.options!r}: {error}"
            ) from error

    def _trials(self, count: int, rng: np.random.Generator) -> list[Trial]:
        """Return the first trials of a session."""
        seed = np.random.SeedSequence(rng.integers(2**32, size=4).tolist())
        with quiet():
            environment = self._made()
            bases = seeded(environment, seed)
            try:
                new_trial = environment.get_wrapper_attr("new_trial")
                trials = [next_trial(environment, new_trial, bases) for _ in range(count)]
            except Exception as error:  # whatever the environment raises
                raise InputError(
                    f"environment {self.environment!r} must be one that draws trials (new_trial), got "
                    f"{type(error).__name__}: {error}"
                ) from error
        if any(trial.ground_truth is None for trial in trials):
            raise InputError(f"environment {self.environment!r} must set a ground truth in every trial, got none")
        return trials

    def _in_decision(self, trial: Trial) -> NDArray[np.bool_]:
        decided = np.zeros(len(trial.ground_truth), dtype=bool)
        for period in self.decision_periods:
            if period in trial.periods:
                decided[slice(*trial.periods[period])] = True
        return decided

    def _padded(self, trials: list[Trial]) -> Padded:
        longest = max(self.steps, *(len(trial.ground_truth) for trial in trials))
        shape = (len(trials), longest)
        padded = Padded(
            np.zeros((*shape, self.input_size), dtype=np.float32),
            np.zeros((*shape, *trials[0].ground_truth.shape[1:]), dtype=trials[0].ground_truth.dtype),
            np.zeros(shape, dtype=np.float32),
        )
        for row, trial in enumerate(trials):
            steps = len(trial.ground_truth)
            padded.observations[row, :steps] = trial.observations
            padded.ground_truth[row, :steps] = trial.ground_truth
            padded.weights[row, :steps] = 1
            for period, weight in self.weights.items():
                if period in trial.periods:
                    padded.weights[row, slice(*trial.periods[period])] = weight
        return padded

    def _batch(self, padded: Padded) -> Trials:
        truth = padded.ground_truth
        if self._classes is not None:
            start = int(getattr(self._spaces[1], "start", 0))
            truth = truth[..., None] == np.arange(start, start + self._classes)
            truth &= _inside(padded)[..., None]
        mask = np.repeat(padded.weights[..., None], self.output_size, axis=2)
        return Trials.from_arrays(padded.observations, truth, mask)

    def _check_periods(self) -> None:
        """Check that every period whose length is fixed lasts a step."""
        with quiet():
            timing = getattr(self._made().unwrapped, "timing", {})
        step = self.dt * self.tau
        for period, duration in timing.items():
            lengths = duration if isinstance(duration, (list, tuple)) else [duration]
            for length in lengths:
                is_number = isinstance(length, (int, float)) and not isinstance(length, bool)
                if is_number and 0 < length < step * (1 - 1e-9):
                    raise InputError(
                        f"dt must be at most {length / self.tau:g}, so that the period {period!r} of "
                        f"{self.environment} ({length:g} ms with tau = {self.tau:g} ms) lasts one step or more, "
                        f"got {self.dt!r}"
                    )

    def _check_trials(self, trials: list[Trial]) -> None:
        """Check that trials are such as can be learned from."""
        name = f"environment {self.environment!r}"
        observations, actions = self._spaces
        if len(getattr(observations, "shape", None) or ()) != 1:
            raise InputError(f"{name} must have observations that are vectors, got the space {observations}")
        if self._classes is None and len(getattr(actions, "shape", None) or ()) != 1:
            raise InputError(f"{name} must have actions that are discrete or vectors, got the space {actions}")
        shape = () if self._classes is not None else actions.shape
        for trial in trials:
            steps = len(trial.observations)
            if trial.observations.shape != (steps, *observations.shape) or trial.ground_truth.shape != (steps, *shape):
                raise InputError(
                    f"{name} must have an observation and a ground truth at every step, got shapes "
                    f"{trial.observations.shape} and {trial.ground_truth.shape}"
                )
        again = self._trials(len(trials), np.random.default_rng(PROBE_SEED))
        if not all(map(_equal, trials, again)):
            raise InputError(
                f"{name} must draw the same trials from the same seed, got others: it has a source of randomness that "
                "is not an attribute"
            )
        for period in self.weights:
            choice(f"weights of {self.environment}: period", period, self.periods)
        if self.weights and not any(self._padded([trial]).weights.any() for trial in self._probe):
            raise InputError(f"weights must leave something of a trial that counts, got {self.weights!r}")


def obstacle(environment: str, **parameters: Any) -> str | None:
    """Return why an environment cannot be a task with these parameters of `NeuroGym`, or None if it can."""
    try:
        NeuroGym(environment, **parameters)
    except InputError as error:
        return str(error)
    return None


def _inside(padded: Padded) -> NDArray[np.bool_]:
    """Return where there is a target to show: not in the padding, nor where the weight is 0."""
    inside: NDArray[np.bool_] = padded.weights > 0
    return inside


def _equal(one: Trial, other: Trial) -> bool:
    return (
        np.array_equal(one.observations, other.observations)
        and np.array_equal(one.ground_truth, other.ground_truth)
        and one.periods == other.periods
    )


def _plain(options: object) -> dict[str, Any]:
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise InputError(f"options must be a mapping of the environment's arguments, got {options!r}")
    if "dt" in options:
        raise InputError(f"options must leave dt to the task (dt times tau milliseconds), got {dict(options)!r}")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(options), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"options must be plain values (numbers, words, lists, mappings), got {dict(options)!r}: {error}"
        ) from error
    return plain


def _checked_weights(weights: object) -> dict[str, float]:
    if not isinstance(weights, Mapping) or not all(isinstance(period, str) for period in weights):
        raise InputError(f"weights must be a mapping of periods to numbers, got {weights!r}")
    return {period: number(f"weights[{period!r}]", weight, minimum=0) for period, weight in weights.items()}
