"""Tasks of NeuroGym: environments from cognitive neuroscience as tasks like the others.

A trial of an environment consists of observations, the correct action at each step (its ground truth), and periods. It
becomes a row of a batch, with one-hot targets where actions are discrete, and a mask with the weight of each period.
Trials are never cut; shorter ones are padded. NeuroGym is an extra (`pip install 'rankscope[neurogym]'`), imported when
such a task is made; `neurogym_environments.py` holds everything that depends on it.

References
----------
Molano-Mazon et al. 2022, NeuroGym: an open resource for developing and sharing neuroscience tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch

from rankscope.errors import InputError
from rankscope.tasks.custom import plain
from rankscope.tasks.neurogym_environments import (
    ANSWERED_AT_THE_END,
    Array,
    Trial,
    check_known,
    check_learnable,
    check_options,
    check_step,
    make_environment,
    session,
)
from rankscope.tasks.neurogym_environments import MISSING as MISSING
from rankscope.tasks.neurogym_environments import PARAMETERS as PARAMETERS
from rankscope.tasks.neurogym_environments import STEPS as STEPS
from rankscope.tasks.neurogym_environments import USUAL_STEPS as USUAL_STEPS
from rankscope.tasks.neurogym_environments import environments as environments
from rankscope.tasks.neurogym_environments import installed as installed
from rankscope.tasks.trials import BuiltInTask, Trials
from rankscope.validation import RngLike, choice, generator, integer, number

LOSSES = ("cross_entropy", "squared")
BALANCED = "balanced"
PROBED = 512
"""Trials drawn, with seed 0, to determine the number of steps, the periods, and which of them are decisions."""
COMPARED = 24
"""Trials compared between two sessions of one seed; enough to reach a second block where environments have blocks."""


class Padded(NamedTuple):
    """Trials side by side: (trials, time, in) and (trials, time, ...), and (trials, time) weights, 0 in the padding."""

    observations: Array
    ground_truth: Array
    weights: Array


@dataclass(frozen=True)
class NeuroGym(BuiltInTask):
    """Solve an environment of NeuroGym.

    A batch is the beginning of a session: a new environment draws one trial a row, in the order in which it presents
    them. Batches are padded to the longest trial; padding has input, target and mask 0.

    Parameters
    ----------
    environment : str
        Name in NeuroGym's registry, such as "GoNogo-v0", or of an environment that you registered with Gymnasium
        ("module:Name-v0" imports the module first).
    dt : float
        Length of a step in time constants.
    tau : float
        The time constant in milliseconds, the unit of environments: their step is dt * tau, by default 50 ms.
    options : mapping
        Keyword arguments of the environment except dt, as plain values: {"sigma": 0.5, "timing": {"delay": 500}}.
    weights : mapping or "balanced"
        Period -> weight of each of its steps in the loss; 0 drops them. Other periods have weight 1. "balanced" gives
        the decision periods half of the weight, as `balanced()` does, and is replaced by the resulting weights.
    loss : str or None
        "cross_entropy" or "squared", what `train` minimizes. None selects cross-entropy for discrete actions and
        squared otherwise.
    pool : int
        0 draws new trials for every batch. Otherwise this many trials are drawn once, from `pool_seed`, and batches
        are drawn from them with replacement, which takes negligible time.
    pool_seed : int
        Seed of the pool.

    Raises
    ------
    InputError
        If NeuroGym is missing; if the environment is unknown, cannot be made with these options, or cannot be learned
        from examples: without ground truth, with a ground truth outside its actions, with observations or actions that
        are not vectors, or with randomness that cannot be seeded; if an option is misspelt; if `dt` leaves a period
        without a step; if `weights` names an unknown period or leaves nothing that counts.
    """

    name: ClassVar[str] = "neurogym"

    environment: str = "PerceptualDecisionMaking-v0"
    dt: float = 0.5
    tau: float = 100.0
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] | str = field(default_factory=dict)
    loss: str | None = None
    pool: int = 0
    pool_seed: int = 0

    def __post_init__(self) -> None:
        self._check_number("dt", above=0)
        self._check_number("tau", above=0)
        self._settle("options", _checked_options(self.options))
        balance = self.weights == BALANCED
        self._settle("weights", {} if balance else _checked_weights(self.weights))
        self._settle("pool", integer("pool", self.pool, minimum=0))
        self._settle("pool_seed", integer("pool_seed", self.pool_seed, minimum=0))
        if self.loss is not None:
            choice("loss", self.loss, LOSSES)
        check_known(self.environment)
        check_step(self.environment, self._step, self.tau, self.options)
        self._check_trials()
        if self.loss is None:
            self._settle("loss", "squared" if self._classes is None else "cross_entropy")
        if self.loss == "cross_entropy" and (self._classes or 0) < 2:
            raise InputError(
                f"loss must be 'squared' for {self.environment}, which has no two or more discrete actions, "
                f"got {self.loss!r}"
            )
        if balance:
            self._settle("weights", self._balanced_weights(0.5))

    @classmethod
    def expected_steps(cls, batch_size: int, **parameters: Any) -> int:
        """Return the steps of a trial from a table, without NeuroGym."""
        return STEPS.get(str(parameters.get("environment", cls.environment)), USUAL_STEPS)

    def __hash__(self) -> int:
        return hash(json.dumps(self.parameters(), sort_keys=True))

    def __getstate__(self) -> dict[str, Any]:
        return self.parameters()  # without the cached pool, which is large and can be drawn again

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
        """Number of time steps to which trials are padded: the longest of several hundred (a longer one is not cut)."""
        return max(len(trial.ground_truth) for trial in self._probe)

    @cached_property
    def periods(self) -> tuple[str, ...]:
        """Names of the periods, in the order in which they begin."""
        first: dict[str, int] = {}
        for trial in self._probe:
            for period, (start, _) in trial.periods.items():
                first.setdefault(period, start)
        return tuple(sorted(first, key=first.__getitem__))

    @cached_property
    def decision_periods(self) -> tuple[str, ...]:
        """Names of the periods in which the correct answer differs between trials; all periods if there is none."""
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
        """Return this task with weights that give the decision periods a `share` (0 to 1) of the weight of all steps.

        Decisions are often a few steps at the end of a long trial that otherwise requires fixation only.

        Raises
        ------
        InputError
            If `share` is out of range.
        """
        return self._with(weights=self._balanced_weights(number("share", share, above=0, below=1)))

    def fresh(self) -> NeuroGym:
        """Return the task to evaluate on: this task without a pool."""
        return self._with(pool=0)

    def decisions(self, batch_size: int, rng: RngLike = None) -> Trials:
        """Draw new trials in which only the steps of decision periods count, each with weight 1.

        Environments whose ground truth is the answer from the first step on (ToneDetection) count with the last step
        alone.
        """
        others = [period for period in self.periods if period not in self.decision_periods]
        judged = self._with(weights=dict.fromkeys(others, 0.0), pool=0)
        trials = judged.sample(batch_size, generator(rng))
        if self.environment not in ANSWERED_AT_THE_END:
            return trials
        counted = trials.mask > 0
        remaining = counted.flip(1).cumsum(1).flip(1)  # steps that count, from each step on
        return Trials(trials.inputs, trials.targets, torch.where(counted & (remaining == 1), trials.mask, 0))

    def example(self) -> Trials:
        """Return the first trial of one fixed session."""
        return self._batch(self._padded(self._trials(1, np.random.default_rng(0))))

    def _with(self, **changes: Any) -> NeuroGym:
        """Return this task with other weights or another pool, sharing the trials that describe the environment."""
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
        return self._trials(PROBED, np.random.default_rng(0))

    @property
    def _step(self) -> float:
        return self.dt * self.tau  # in milliseconds

    @cached_property
    def _spaces(self) -> tuple[Any, Any]:
        """Spaces of observations and actions."""
        environment = make_environment(self.environment, self._step, self.options)
        return environment.get_wrapper_attr("observation_space"), environment.get_wrapper_attr("action_space")

    @cached_property
    def _classes(self) -> int | None:
        """Number of discrete actions, or None."""
        actions = getattr(self._spaces[1], "n", None)
        return None if actions is None or self._spaces[1].shape else int(actions)

    def _trials(self, count: int, rng: np.random.Generator) -> list[Trial]:
        return session(self.environment, self._step, self.options, count, rng)

    def _balanced_weights(self, share: float) -> dict[str, float]:
        counts = np.zeros(2)
        for trial in self._probe:
            decided = np.zeros(len(trial.ground_truth), dtype=bool)
            for period in trial.periods.keys() & set(self.decision_periods):
                decided[slice(*trial.periods[period])] = True
            counts += (~decided).sum(), decided.sum()
        if not counts.all():
            return {}
        weight = float(f"{share / (1 - share) * counts[0] / counts[1]:.4g}")
        return dict.fromkeys(self.decision_periods, weight)

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
            for period, weight in cast(Mapping[str, float], self.weights).items():
                if period in trial.periods:
                    padded.weights[row, slice(*trial.periods[period])] = weight
        return padded

    def _batch(self, padded: Padded) -> Trials:
        truth = padded.ground_truth
        if self._classes is not None:
            start = int(getattr(self._spaces[1], "start", 0))
            truth = truth[..., None] == np.arange(start, start + self._classes)
            truth &= (padded.weights > 0)[..., None]
        mask = np.repeat(padded.weights[..., None], self.output_size, axis=2)
        return Trials.from_arrays(padded.observations, truth, mask)

    def _check_trials(self) -> None:
        """Check that trials can be learned from and drawn again, and that the weights fit them."""
        trials, again = (self._trials(COMPARED, np.random.default_rng(0)) for _ in range(2))
        check_learnable(self.environment, *self._spaces, trials, again)
        check_options(self.environment, self._step, self.options, self.periods)
        for period in self.weights:
            choice(f"weights of {self.environment}: period", period, self.periods)
        if self.weights and not any(self._padded([trial]).weights.any() for trial in self._probe):
            raise InputError(f"weights must leave some step of a trial with a weight above 0, got {self.weights!r}")


def obstacle(environment: str, **parameters: Any) -> str | None:
    """Return why an environment cannot be a task with these parameters of `NeuroGym`, or None if it can."""
    try:
        NeuroGym(environment, **parameters)
    except InputError as error:
        return str(error)
    return None


def _checked_options(options: object) -> dict[str, Any]:
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise InputError(f"options must be a mapping of the environment's arguments, got {options!r}")
    if "dt" in options:
        raise InputError(f"options must leave dt to the task (dt times tau milliseconds), got {dict(options)!r}")
    return plain(options, "options")


def _checked_weights(weights: object) -> dict[str, float]:
    if not isinstance(weights, Mapping) or not all(isinstance(period, str) for period in weights):
        raise InputError(f"weights must be a mapping of periods to numbers or {BALANCED!r}, got {weights!r}")
    return {period: number(f"weights[{period!r}]", weight, minimum=0) for period, weight in weights.items()}
