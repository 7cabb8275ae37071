"""Three decisions on noisy evidence, of one or two channels (Dubreuil et al. 2022).

PerceptualDecision: one channel. MultisensoryDecision: one of two channels or both. ContextDependentDecision: two
channels, of which the context says which one counts. Each has a period of a stimulus, a delay, and a period in which
the sign of the output is the decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from rankscope.errors import InputError
from rankscope.tasks.fixed_set import Array, FixedSetTask, answered
from rankscope.tasks.trials import Trials, steps_in


@dataclass(frozen=True)
class PerceptualDecision(FixedSetTask):
    """Report the sign of a noisy input.

    The input is noise throughout, plus `scale` times a coherence during the stimulus. The target in the decision period
    is the sign of the coherence, 1 or -1, and the mask is 1 there alone.

    Parameters
    ----------
    dt, trials, validation_trials, trials_seed
        As in `FixedSetTask`.
    fixation, stimulus, delay, decision : float
        Lengths of the periods in time constants; fixation and delay may be 0.
    noise : float
        Standard deviation of the noise in each step.
    scale : float
        Input per unit of coherence.
    coherences : tuple of float
        Values that are drawn with equal probability.

    Raises
    ------
    InputError
        If a parameter has the wrong type or sign, or `dt` leaves a period without a step.

    References
    ----------
    Dubreuil et al. 2022, DM.
    """

    name: ClassVar[str] = "perceptual_decision"
    input_size: ClassVar[int] = 1

    fixation: float = 1.0
    stimulus: float = 8.0
    delay: float = 1.0
    decision: float = 0.2
    noise: float = 0.1
    scale: float = 0.1
    coherences: tuple[float, ...] = (-4.0, -2.0, -1.0, 1.0, 2.0, 4.0)

    def __post_init__(self) -> None:
        self._check_set()
        self._check_times("stimulus", "decision", may_be_zero=("fixation", "delay"))
        self._check_number("noise", minimum=0)
        self._check_number("scale", above=0)
        self._check_values("coherences")

    @property
    def steps(self) -> int:
        """Number of time steps of a trial."""
        return self._edges[-1]

    def example(self) -> Trials:
        """Return one trial of the largest coherence, with noise from seed 0."""
        return self._paint(np.array([max(self.coherences)]), np.random.default_rng(0))

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        return self._paint(self._evidence((batch_size,), rng), rng)

    def _evidence(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return np.array(self.coherences)[rng.integers(len(self.coherences), size=shape)]

    def _paint(self, evidence: Array, rng: np.random.Generator) -> Trials:
        """Turn coherences (batch,) into trials; `rng` gives the noise."""
        _, shown, delayed, decided, end = self._edges
        inputs = self._noise(len(evidence), 1, self.noise, rng)
        inputs[:, shown:delayed, 0] += (self.scale * evidence)[:, None].astype(np.float32)
        return answered(inputs, np.sign(evidence), np.full(len(evidence), decided), end - decided)

    @cached_property
    def _edges(self) -> tuple[int, int, int, int, int]:
        """Steps at which the context, stimulus, delay and decision begin, and the trial ends."""
        periods = (self.fixation, getattr(self, "context", 0.0), self.stimulus, self.delay, self.decision)
        context, shown, delayed, decided, end = np.cumsum([steps_in(period, self.dt) for period in periods]).tolist()
        return context, shown, delayed, decided, end


@dataclass(frozen=True)
class ContextDependentDecision(PerceptualDecision):
    """Report the sign of one of two noisy inputs, of that which the context names.

    Inputs 0 and 1 are noise throughout, plus `scale` times coherences of their own during the stimulus. Input 2 or 3,
    with equal probability, is `context_input` from the end of the fixation to the end of the delay. The target in the
    decision period is the sign of the coherence of the channel that it names, 0 or 1.

    Parameters
    ----------
    dt, trials, validation_trials, trials_seed
        As in `FixedSetTask`.
    fixation, stimulus, delay, decision, noise, scale, coherences
        As in `PerceptualDecision`.
    context : float
        Length of the period between fixation and stimulus, with a context alone; may be 0.
    context_input : float
        Input of the context.

    Raises
    ------
    InputError
        As in `PerceptualDecision`.

    References
    ----------
    Dubreuil et al. 2022, CDM, after Mante et al. 2013.
    """

    name: ClassVar[str] = "context_dependent_decision"
    input_size: ClassVar[int] = 4

    context: float = 3.5
    context_input: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_times("stimulus", may_be_zero=("context",))
        self._check_number("context_input")

    def example(self) -> Trials:
        """Return one trial of context 0: the largest coherence against the smallest, with noise from seed 0."""
        evidence = np.array([[max(self.coherences), min(self.coherences)]])
        return self._paint_two(evidence, np.eye(2)[:1], np.sign(evidence[:, 0]), np.random.default_rng(0))

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        context = rng.integers(2, size=batch_size)
        evidence = self._evidence((batch_size, 2), rng)
        answer = np.sign(evidence[np.arange(batch_size), context])
        return self._paint_two(evidence, np.eye(2)[context], answer, rng)

    def _paint_two(self, evidence: Array, context: Array, answer: Array, rng: np.random.Generator) -> Trials:
        """Turn coherences (batch, 2), contexts (batch, 2) of 0 and 1, and answers (batch,) into trials."""
        begin, shown, delayed, decided, end = self._edges
        batch = len(evidence)
        inputs = np.zeros((batch, end, 4), dtype=np.float32)
        inputs[..., :2] = self._noise(batch, 2, self.noise, rng)
        inputs[:, shown:delayed, :2] += (self.scale * evidence)[:, None].astype(np.float32)
        inputs[:, begin:decided, 2:] = self.context_input * context[:, None]
        return answered(inputs, answer, np.full(batch, decided), end - decided)


@dataclass(frozen=True)
class MultisensoryDecision(ContextDependentDecision):
    """Report the sign of one of two noisy inputs or of both together, which then have one sign.

    As `ContextDependentDecision`, but evidence comes in one channel, with its context input, or in both, with both
    context inputs, each of the three with equal probability. A channel without evidence has noise alone.

    Parameters
    ----------
    dt, trials, validation_trials, trials_seed
        As in `FixedSetTask`.
    fixation, stimulus, delay, decision, noise, scale, coherences, context, context_input
        As in `ContextDependentDecision`. `coherences` must have both signs.

    Raises
    ------
    InputError
        As in `PerceptualDecision`.

    References
    ----------
    Dubreuil et al. 2022, MDM, after Raposo et al. 2014.
    """

    name: ClassVar[str] = "multisensory_decision"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not min(self.coherences) < 0 < max(self.coherences):
            raise InputError(f"coherences must have both signs, got {self.coherences!r}")

    def example(self) -> Trials:
        """Return one trial with the largest coherence in both channels, with noise from seed 0."""
        evidence = np.full((1, 2), max(self.coherences))
        return self._paint_two(evidence, np.ones((1, 2)), np.ones(1), np.random.default_rng(0))

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        sign = np.where(rng.integers(2, size=batch_size) == 1, 1, -1)
        present = np.array([[1, 0], [0, 1], [1, 1]])[rng.integers(3, size=batch_size)]
        values = np.array(self.coherences)
        positive, negative = values[values > 0], values[values < 0]
        drawn = rng.random((batch_size, 2))
        high, low = (side[(drawn * len(side)).astype(int)] for side in (positive, negative))
        evidence: Array = np.where(sign[:, None] > 0, high, low) * present
        return self._paint_two(evidence, present, sign, rng)
