"""The Romo task: compare two stimuli across a delay (parametric working memory).

Two stimuli of different amplitudes are separated by a delay that varies between trials. The output has to report which
was larger. The network must hold a continuous quantity, the first amplitude, over a delay of unknown length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.tasks.trials import BuiltInTask, Trials, steps_in
from rankscope.validation import integer


@dataclass(frozen=True)
class Romo(BuiltInTask):
    """Report which of two amplitudes is larger.

    A trial consists of fixation, first stimulus, delay, second stimulus, decision delay and decision. The delay is
    uniform between its bounds, in whole steps. The one input channel carries both amplitudes, uniform between their
    bounds and at least `min_difference` apart. The target is 0 until the end of the second stimulus. In the decision,
    with two outputs, the output of the larger stimulus (0: first, 1: second) has target `target` and the other 0; with
    one output, the target is +`target` if the first is larger and -`target` otherwise. The mask is 1 in these two
    phases, and 0 in the decision delay and after the decision (trials with a short delay end early).

    Parameters
    ----------
    dt : float
        Length of a step. This and all durations are in time constants.
    fixation, stimulus, decision_delay, decision : float
        Lengths of the fixed phases; fixation and decision_delay may be 0.
    delay_min, delay_max : float
        Bounds of the delay between the stimuli.
    amplitude_min, amplitude_max : float
        Bounds of the two amplitudes.
    min_difference : float
        Smallest difference of the amplitudes.
    target : float
        Absolute value of the target.
    outputs : int
        2, one for each stimulus, or 1, whose sign is the answer.

    Raises
    ------
    InputError
        If a parameter has the wrong type or sign; if `dt` leaves a phase without a step; if a lower bound
        is above its upper bound; if amplitudes within their bounds could never differ by `min_difference`.

    References
    ----------
    Schuessler et al. 2020, Fig. 1 and supplement, after Romo et al. 1999.
    """

    name: ClassVar[str] = "romo"
    input_size = 1
    by_rng_alone: ClassVar[bool] = True

    dt: float = 0.5
    fixation: float = 3.0
    stimulus: float = 1.0
    delay_min: float = 2.0
    delay_max: float = 8.0
    decision_delay: float = 5.0
    decision: float = 10.0
    amplitude_min: float = 0.5
    amplitude_max: float = 1.5
    min_difference: float = 0.2
    target: float = 0.5
    outputs: int = 2

    def __post_init__(self) -> None:
        self._check_times("stimulus", "decision", may_be_zero=("fixation", "delay_min", "delay_max", "decision_delay"))
        self._check_number("amplitude_min")
        self._check_number("amplitude_max")
        self._check_number("min_difference", minimum=0)
        self._check_number("target", above=0)
        self._settle("outputs", integer("outputs", self.outputs, minimum=1, maximum=2))
        if self.delay_min > self.delay_max:
            raise InputError(f"delay_min must be at most delay_max = {self.delay_max:g}, got {self.delay_min!r}")
        if self.amplitude_min >= self.amplitude_max:
            raise InputError(
                f"amplitude_min must be below amplitude_max = {self.amplitude_max:g}, got {self.amplitude_min!r}"
            )
        if self.min_difference >= self.amplitude_max - self.amplitude_min:
            raise InputError(
                "min_difference must be below amplitude_max - amplitude_min = "
                f"{self.amplitude_max - self.amplitude_min:g}, got {self.min_difference!r}"
            )

    @property
    def output_size(self) -> int:
        """Two outputs, or one in the variant."""
        return self.outputs

    @cached_property
    def steps(self) -> int:
        """Number of time steps of a trial: enough for the longest delay."""
        fixed = self.fixation + 2 * self.stimulus + self.decision_delay + self.decision
        return steps_in(fixed + self.delay_max, self.dt)

    def example(self) -> Trials:
        """Return the trial with the largest amplitude first, the smallest second, and the mean delay."""
        delay = np.array([(self.delay_min + self.delay_max) / 2])
        return self._paint(delay, np.array([self.amplitude_max]), np.array([self.amplitude_min]))

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        # The paper draws both amplitudes until |a - b| >= d: uniform on two triangles, a >= b + d and b >= a + d.
        # Subtracting d from the larger one moves the triangles together into a square of side max - min - d. Drawing
        # there and adding d gives the same distribution without rejections.
        span = self.amplitude_max - self.amplitude_min - self.min_difference
        delay, first, second = rng.random((3, batch_size))
        first_larger = first >= second
        first = self.amplitude_min + span * first + self.min_difference * first_larger
        second = self.amplitude_min + span * second + self.min_difference * ~first_larger
        return self._paint(self.delay_min + (self.delay_max - self.delay_min) * delay, first, second)

    def _paint(self, delay: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]) -> Trials:
        """Turn delays and amplitudes, each (batch,), into trials."""
        fixation, width, wait, decide = self._phases
        onset = fixation + width + steps_in(delay, self.dt)  # of the second stimulus
        age = np.arange(self.steps) - onset[:, None]  # steps since then
        inputs = second[:, None] * ((age >= 0) & (age < width))
        inputs[:, fixation : fixation + width] = first[:, None]
        deciding = (age >= width + wait) & (age < width + wait + decide)
        mask = (age < width) | deciding
        first_larger = first > second
        if self.outputs == 2:
            height = self.target * np.stack([first_larger, ~first_larger], axis=-1)
        else:
            height = self.target * np.where(first_larger, 1.0, -1.0)[:, None]
        targets = deciding[:, :, None] * height[:, None]
        return Trials.from_arrays(inputs[..., None], targets, np.repeat(mask[..., None], self.outputs, axis=2))

    @cached_property
    def _phases(self) -> tuple[int, int, int, int]:
        """Steps of fixation, stimulus, decision delay and decision."""
        fixation, stimulus, decision_delay, decision = (
            steps_in(phase, self.dt) for phase in (self.fixation, self.stimulus, self.decision_delay, self.decision)
        )
        return fixation, stimulus, decision_delay, decision
