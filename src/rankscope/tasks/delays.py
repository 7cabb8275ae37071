"""Two comparisons of a stimulus with one before a delay of random length (Dubreuil et al. 2022).

ParametricWorkingMemory: of two frequencies, by how much the first is larger. DelayedMatch: whether two stimuli are the
same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from rankscope.errors import InputError
from rankscope.tasks.fixed_set import Array, FixedSetTask, answered
from rankscope.tasks.trials import Trials, steps_in
from rankscope.validation import integer


@dataclass(frozen=True)
class _TwoStimuli(FixedSetTask):
    """Fixation, first stimulus, delay, second stimulus, decision; trials with a short delay end early."""

    fixation: float = 1.0
    stimulus: float = 1.0
    delay_min: float = 5.0
    delay_max: float = 10.0
    decision: float = 1.0
    noise: float = 0.01

    def __post_init__(self) -> None:
        self._check_set()
        self._check_times("stimulus", "decision", may_be_zero=("fixation", "delay_min", "delay_max"))
        self._check_number("noise", minimum=0)
        if self.delay_min > self.delay_max:
            raise InputError(f"delay_min must be at most delay_max = {self.delay_max:g}, got {self.delay_min!r}")

    @cached_property
    def steps(self) -> int:
        """Number of time steps of a trial: enough for the longest delay."""
        fixation, stimulus, _, longest, decision = self._periods
        return fixation + 2 * stimulus + longest + decision

    @cached_property
    def _periods(self) -> tuple[int, int, int, int, int]:
        """Steps of fixation, stimulus, the shortest and the longest delay, and the decision."""
        found = [
            steps_in(one, self.dt)
            for one in (self.fixation, self.stimulus, self.delay_min, self.delay_max, self.decision)
        ]
        return found[0], found[1], found[2], found[3], found[4]

    def _delays(self, batch: int, rng: np.random.Generator) -> Array:
        """Draw delays, uniform in whole steps."""
        _, _, shortest, longest, _ = self._periods
        return rng.integers(shortest, longest + 1, size=batch)

    @property
    def _mean_delay(self) -> Array:
        return np.array([(self._periods[2] + self._periods[3]) // 2])

    def _paint(self, delay: Array, first: Array, second: Array, answer: Array, rng: np.random.Generator) -> Trials:
        """Turn delays in steps (batch,), stimuli (batch, channels) and answers (batch,) into trials."""
        fixation, stimulus, _, _, decision = self._periods
        inputs = self._noise(len(delay), self.input_size, self.noise, rng)
        inputs[:, fixation : fixation + stimulus] += first[:, None].astype(np.float32)
        onset = fixation + stimulus + delay  # of the second stimulus
        age = np.arange(self.steps) - onset[:, None]
        shown = (age >= 0) & (age < stimulus)
        inputs += (shown[..., None] * second[:, None]).astype(np.float32)
        return answered(inputs, answer, onset + stimulus, decision)


@dataclass(frozen=True)
class ParametricWorkingMemory(_TwoStimuli):
    """Report the difference of two frequencies that are separated by a delay.

    The input is noise throughout, plus (f - middle) / span during each of the two stimuli, with the middle and the span
    of the range of frequencies. The target in the decision period is (f1 - f2) / span. The pair of frequencies is drawn
    uniformly from all pairs of whole numbers in the range with an allowed difference.

    Parameters
    ----------
    dt, trials, validation_trials, trials_seed
        As in `FixedSetTask`.
    fixation, stimulus, decision : float
        Lengths of the fixed periods in time constants; fixation may be 0.
    delay_min, delay_max : float
        Bounds of the delay, which is uniform in whole steps.
    noise : float
        Standard deviation of the noise in each step.
    frequency_min, frequency_max : int
        Range of the frequencies.
    differences : tuple of float
        Allowed differences f1 - f2, whole numbers other than 0.

    Raises
    ------
    InputError
        If a parameter has the wrong type or sign, if `dt` leaves a period without a step, if a lower bound is above its
        upper bound, or if no pair of frequencies has one of the differences.

    References
    ----------
    Dubreuil et al. 2022, WM, after Romo et al. 1999.
    """

    name: ClassVar[str] = "parametric_working_memory"
    input_size: ClassVar[int] = 1

    frequency_min: int = 10
    frequency_max: int = 34
    differences: tuple[float, ...] = (-24.0, -16.0, -8.0, 8.0, 16.0, 24.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._settle("frequency_min", integer("frequency_min", self.frequency_min))
        self._settle("frequency_max", integer("frequency_max", self.frequency_max))
        if self.frequency_min >= self.frequency_max:
            raise InputError(
                f"frequency_min must be below frequency_max = {self.frequency_max}, got {self.frequency_min}"
            )
        self._check_values("differences")
        if any(not one.is_integer() or abs(one) > self._span for one in self.differences):
            raise InputError(
                f"differences must be whole numbers of at most {self._span}, the range of the frequencies, got "
                f"{self.differences!r}"
            )

    def example(self) -> Trials:
        """Return the trial with the largest difference and the mean delay, with noise from seed 0."""
        pairs = self._pairs
        pair = pairs[np.argmax(pairs[:, 0] - pairs[:, 1])][None]
        return self._compared(self._mean_delay, pair, np.random.default_rng(0))

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        pairs = self._pairs[rng.integers(len(self._pairs), size=batch_size)]
        return self._compared(self._delays(batch_size, rng), pairs, rng)

    def _compared(self, delay: Array, pairs: Array, rng: np.random.Generator) -> Trials:
        middle = (self.frequency_min + self.frequency_max) / 2
        first, second = ((pairs[:, [i]] - middle) / self._span for i in (0, 1))
        return self._paint(delay, first, second, (first - second)[:, 0], rng)

    @property
    def _span(self) -> int:
        return self.frequency_max - self.frequency_min

    @cached_property
    def _pairs(self) -> Array:
        """All pairs of frequencies, (pairs, 2)."""
        low, high = self.frequency_min, self.frequency_max
        found = [
            (first, first - int(difference))
            for difference in self.differences
            for first in range(low, high + 1)
            if low <= first - difference <= high
        ]
        return np.array(found)


@dataclass(frozen=True)
class DelayedMatch(_TwoStimuli):
    """Report whether two stimuli that are separated by a delay are the same.

    Each of the two stimuli is 1 in input 0 or in input 1, with equal probability; both inputs are noisy throughout. The
    target in the decision period is 1 if both stimuli are the same, and -1 otherwise.

    Parameters
    ----------
    dt, trials, validation_trials, trials_seed
        As in `FixedSetTask`.
    fixation, stimulus, decision : float
        Lengths of the fixed periods in time constants; fixation may be 0.
    delay_min, delay_max : float
        Bounds of the delay, which is uniform in whole steps.
    noise : float
        Standard deviation of the noise in each step.

    Raises
    ------
    InputError
        If a parameter has the wrong type or sign, if `dt` leaves a period without a step, or if a lower bound is above
        its upper bound.

    References
    ----------
    Dubreuil et al. 2022, DMS.
    """

    name: ClassVar[str] = "delayed_match"
    input_size: ClassVar[int] = 2

    stimulus: float = 5.0
    delay_max: float = 30.0
    decision: float = 10.0
    noise: float = 0.03

    def example(self) -> Trials:
        """Return a trial of two different stimuli with the mean delay, with noise from seed 0."""
        return self._shown(self._mean_delay, np.array([[0, 1]]), np.random.default_rng(0))

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        stimuli = rng.integers(2, size=(batch_size, 2))
        return self._shown(self._delays(batch_size, rng), stimuli, rng)

    def _shown(self, delay: Array, stimuli: Array, rng: np.random.Generator) -> Trials:
        first, second = np.eye(2)[stimuli.T]
        answer: Any = np.where(stimuli[:, 0] == stimuli[:, 1], 1.0, -1.0)
        return self._paint(delay, first, second, answer, rng)
