"""The flip-flop: remember the sign of the last pulse.

Short pulses, positive or negative, arrive at random times on one of several input channels. After a delay, and until
the next pulse, the output of that channel has to have the sign of the pulse while the other outputs are zero. The
network must store one of (two signs x channels) states.
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
class FlipFlop(BuiltInTask):
    """Hold the sign of the last pulse on its channel.

    The distance between pulse onsets is an interval, uniform between `interval_min` and `interval_max`, plus the
    decision delay, in whole steps: `steps_in(interval + decision_delay, dt)`. Each pulse has a random channel and sign;
    the input on that channel is `amplitude` x sign for the length of a pulse. From the decision delay after the onset
    until the next onset, the target of that channel is sign x `target`, that of the others is 0, and the mask is 1 on
    all. Elsewhere the mask is 0. The last pulse is cut by the end of the trial.

    Parameters
    ----------
    channels : int
        Number of input channels, and of outputs.
    dt : float
        Length of a step. This and all durations are in time constants.
    duration : float
        Length of a trial.
    first_pulse : float
        Onset of the first pulse.
    pulse : float
        Length of a pulse; at most `interval_min`.
    interval_min, interval_max : float
        Bounds of the interval between the end of the decision delay and the next onset.
    decision_delay : float
        Time from the onset of a pulse to the start of its target; may be 0.
    amplitude : float
        Height of a pulse.
    target : float
        Absolute value of the target.

    Raises
    ------
    InputError
        If a parameter has the wrong type or sign; if `dt` leaves a phase without a step; if `pulse` is
        longer than `interval_min` or that larger than `interval_max`; if the first decision would start
        after the end.

    References
    ----------
    Schuessler et al. 2020, Fig. 1 and supplement, flip-flop.
    """

    name: ClassVar[str] = "flipflop"
    by_rng_alone: ClassVar[bool] = True

    channels: int = 2
    dt: float = 0.5
    duration: float = 50.0
    first_pulse: float = 1.0
    pulse: float = 1.0
    interval_min: float = 5.0
    interval_max: float = 25.0
    decision_delay: float = 5.0
    amplitude: float = 1.0
    target: float = 0.5

    def __post_init__(self) -> None:
        self._settle("channels", integer("channels", self.channels, minimum=1))
        self._check_times(
            "duration", "pulse", "interval_min", "interval_max", may_be_zero=("first_pulse", "decision_delay")
        )
        self._check_number("amplitude", above=0)
        self._check_number("target", above=0)
        if self.interval_min > self.interval_max:
            raise InputError(
                f"interval_min must be at most interval_max = {self.interval_max:g}, got {self.interval_min!r}"
            )
        if self.pulse > self.interval_min:
            raise InputError(
                f"pulse must be at most interval_min = {self.interval_min:g}, so that pulses do not "
                f"overlap, got {self.pulse!r}"
            )
        if self._first + self._delay >= self.steps:
            raise InputError(
                f"duration must be longer than first_pulse + decision_delay = "
                f"{self.first_pulse + self.decision_delay:g} by a step or more, got {self.duration!r}"
            )

    @property
    def input_size(self) -> int:
        """Number of input channels."""
        return self.channels

    @property
    def output_size(self) -> int:
        """Number of output channels, equal to the number of inputs."""
        return self.channels

    @cached_property
    def steps(self) -> int:
        """Number of time steps of a trial."""
        return steps_in(self.duration, self.dt)

    def example(self) -> Trials:
        """Return one trial with pulses at mean intervals, on the channels in turn, with signs +, -, -, + and so on."""
        gap = steps_in((self.interval_min + self.interval_max) / 2 + self.decision_delay, self.dt)
        k = np.arange(self._most_pulses)
        signs = np.array([1, -1, -1, 1])[k % 4]
        return self._paint((self._first + gap * k)[None], (k % self.channels)[None], signs[None])

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        size = (batch_size, self._most_pulses)
        intervals = self.interval_min + (self.interval_max - self.interval_min) * rng.random(size)
        onsets = steps_in(intervals + self.decision_delay, self.dt)
        onsets[:, 0] = self._first
        np.cumsum(onsets, axis=1, out=onsets)
        channels = rng.integers(self.channels, size=size)
        signs = 2 * rng.integers(2, size=size) - 1
        return self._paint(onsets, channels, signs)

    def _paint(self, onsets: NDArray[np.int64], channels: NDArray[np.int64], signs: NDArray[np.int64]) -> Trials:
        """Turn pulses, given as (batch, pulse) arrays with onsets in steps, into trials.

        Time is divided into phases: before the first pulse, and from each onset, end of a pulse and decision to the
        next of these. The content of a phase is written once and repeated for its steps.
        """
        (batch, pulses), steps = onsets.shape, self.steps
        ages = (0, *sorted((self._width, self._delay)))  # at the start of each phase of a pulse
        starts = onsets[..., None] + np.array(ages)
        np.minimum(starts[:, :-1], onsets[:, 1:, None], out=starts[:, :-1])
        bounds = np.zeros((batch, len(ages) * pulses + 2), dtype=np.int64)
        np.minimum(starts.reshape(batch, -1), steps, out=bounds[:, 1:-1])
        bounds[:, -1] = steps
        lengths = (bounds[:, 1:] - bounds[:, :-1]).ravel()
        signed = np.where(channels[..., None] == np.arange(self.channels), signs[..., None], 0).astype(np.float32)
        content = np.zeros((3, batch, len(ages) * pulses + 1, self.channels), dtype=np.float32)
        inputs, targets, mask = content[:, :, 1:]
        for number, age in enumerate(ages):
            phase = slice(number, None, len(ages))
            if age < self._width:
                inputs[:, phase] = signed * np.float32(self.amplitude)
            if age >= self._delay:
                targets[:, phase] = signed * np.float32(self.target)
                mask[:, phase] = 1
        rows = content.reshape(3, -1, self.channels)
        return Trials.from_arrays(*(np.repeat(row, lengths, axis=0).reshape(batch, steps, -1) for row in rows))

    @cached_property
    def _first(self) -> int:
        return steps_in(self.first_pulse, self.dt)

    @cached_property
    def _width(self) -> int:
        return steps_in(self.pulse, self.dt)

    @cached_property
    def _delay(self) -> int:
        return steps_in(self.decision_delay, self.dt)

    @cached_property
    def _most_pulses(self) -> int:
        """Number of pulses within the trial if all intervals are the shortest."""
        shortest = steps_in(self.interval_min + self.decision_delay, self.dt)
        return 1 + (self.steps - 1 - self._first) // shortest
