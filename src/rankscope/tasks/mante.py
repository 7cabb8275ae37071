"""The Mante task: context-dependent integration of evidence.

Two noisy sensory channels carry positive or negative evidence. The context selects the relevant channel. After a delay
the output has to report the sign of the relevant evidence and ignore the other channel, which is equally strong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.tasks.trials import BuiltInTask, Trials, steps_in
from rankscope.validation import number


@dataclass(frozen=True)
class Mante(BuiltInTask):
    """Context-dependent decision between two sensory channels.

    Inputs are context 0, context 1, sensory 0, sensory 1. A trial consists of fixation, stimulus, delay and decision.
    Both sensory channels have normal noise with standard deviation `noise` / sqrt(dt) at every step. During the
    stimulus, a coherence drawn from `coherences` is added to each sensory channel, and the channel of the context,
    drawn at random, is 1 (otherwise 0). The target is 0 during fixation and stimulus, and `target` x sign(coherence of
    the relevant channel) during the decision. The mask is 1 in these phases and 0 in the delay.

    Parameters
    ----------
    dt : float
        Length of a step. This and all durations are in time constants.
    fixation, stimulus, delay, decision : float
        Lengths of the four phases; fixation and delay may be 0.
    noise : float
        Sensory noise strength; 0 for none.
    coherences : tuple of float
        Values from which the evidence is drawn; none of them 0, which has no correct answer.
    target : float
        Absolute value of the target.

    Raises
    ------
    InputError
        If a parameter has the wrong type or sign; if `dt` leaves a phase without a step; if `coherences` is
        empty or contains 0.

    References
    ----------
    Schuessler et al. 2020, Fig. 1 and supplement, after Mante et al. 2013.
    """

    name: ClassVar[str] = "mante"
    by_rng_alone: ClassVar[bool] = True
    input_size = 4
    output_size = 1

    dt: float = 0.5
    fixation: float = 3.0
    stimulus: float = 20.0
    delay: float = 5.0
    decision: float = 20.0
    noise: float = 0.05
    coherences: tuple[float, ...] = (-1.0, -0.5, -0.25, -0.125, 0.125, 0.25, 0.5, 1.0)
    target: float = 0.5

    def __post_init__(self) -> None:
        self._check_times("stimulus", "decision", may_be_zero=("fixation", "delay"))
        self._check_number("noise", minimum=0)
        self._check_number("target", above=0)
        given: Any = self.coherences
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise InputError(f"coherences must be a sequence of numbers other than 0, got {given!r}")
        checked = tuple(number("each of coherences", value) for value in given)
        if not checked or 0 in checked:
            raise InputError(f"coherences must be one or more numbers other than 0, got {given!r}")
        self._settle("coherences", checked)

    @property
    def steps(self) -> int:
        """Number of time steps of a trial."""
        return self._edges[-1]

    def example(self) -> Trials:
        """Return one trial of context 0: the largest coherence against the smallest, with noise from seed 0."""
        evidence = np.array([[max(self.coherences), min(self.coherences)]])
        return self._paint(np.array([0]), evidence, np.random.default_rng(0))

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        context = rng.integers(2, size=batch_size)
        drawn = rng.integers(len(self.coherences), size=(batch_size, 2))
        return self._paint(context, np.array(self.coherences)[drawn], rng)

    def _paint(self, context: NDArray[np.int64], evidence: NDArray[np.float64], rng: np.random.Generator) -> Trials:
        """Turn contexts (batch,) and coherences (batch, 2) into trials; `rng` gives the noise."""
        batch = len(context)
        fixed, shown, delayed, end = self._edges
        scale = np.float32(self.noise / np.sqrt(self.dt))
        inputs = np.zeros((batch, end, 4), dtype=np.float32)
        np.multiply(rng.standard_normal((batch, end, 2), dtype=np.float32), scale, out=inputs[:, :, 2:])
        inputs[:, fixed:shown, 2:] += evidence.astype(np.float32)[:, None]
        inputs[:, fixed:shown, :2] = np.eye(2, dtype=np.float32)[context][:, None]
        answer = self.target * np.sign(evidence[np.arange(batch), context])
        targets = np.zeros((batch, end, 1), dtype=np.float32)
        targets[:, delayed:] = answer[:, None, None]
        mask = np.ones((batch, end, 1), dtype=np.float32)
        mask[:, shown:delayed] = 0
        return Trials.from_arrays(inputs, targets, mask)

    @cached_property
    def _edges(self) -> tuple[int, int, int, int]:
        """Steps at which fixation, stimulus, delay and decision end."""
        phases = (self.fixation, self.stimulus, self.delay, self.decision)
        fixed, shown, delayed, end = np.cumsum([steps_in(phase, self.dt) for phase in phases]).tolist()
        return fixed, shown, delayed, end
