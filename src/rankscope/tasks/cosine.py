"""The autonomous cosine: oscillate without input.

The network starts from a given state and has to produce a cosine by itself. Only the first periods count in the loss;
the trial continues beyond them, to show whether the oscillation persists.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.tasks.trials import OneTrialTask, steps_in


@dataclass(frozen=True)
class Cosine(OneTrialTask):
    """Produce cos(2 pi t / period) from the initial state alone.

    The one input channel is always 0. It gives the network an input vector, from which an `autonomous` task starts the
    network. The readout with index k is taken after step k, at time (k + 1) dt, so `targets[:, k]` is
    cos(2 pi (k + 1) dt / period). The target extends to the end of the trial, for figures; the mask is 1 during the
    first `mask_periods` periods only. All trials of a batch are identical.

    Parameters
    ----------
    period : float
        Period of the cosine; more than two steps. This and all durations are in time constants.
    duration : float
        Length of a trial.
    dt : float
        Length of a step.
    mask_periods : float
        Number of periods, from the start, that count in the loss.

    Raises
    ------
    InputError
        If a parameter has the wrong type or sign; if `period` is not longer than two steps; if the masked
        periods are longer than the trial or shorter than a step.

    References
    ----------
    Schuessler et al. 2020, supplement, autonomous cosine.
    """

    name: ClassVar[str] = "cosine"
    autonomous: ClassVar[bool] = True

    period: float = 5.0
    duration: float = 20.0
    dt: float = 0.1
    mask_periods: float = 2.0

    def __post_init__(self) -> None:
        self._check_times("duration", "period")
        self._check_number("mask_periods", above=0)
        if self.period <= 2 * self.dt:
            raise InputError(
                f"dt must be below period / 2 = {self.period / 2:g}, so that the steps resolve the cosine, "
                f"got {self.dt!r}"
            )
        if not 1 <= self._masked <= self.steps:
            raise InputError(
                f"mask_periods must be between dt / period = {self.dt / self.period:g} and "
                f"duration / period = {self.duration / self.period:g}, got {self.mask_periods!r}"
            )

    @cached_property
    def _masked(self) -> int:
        return steps_in(self.mask_periods * self.period, self.dt)

    @cached_property
    def _trial(self) -> NDArray[np.float32]:
        """Inputs, targets and mask of the one trial, shape (3, 1, steps, 1)."""
        trial = np.zeros((3, 1, self.steps, 1), dtype=np.float32)
        time = self.dt * np.arange(1, self.steps + 1)
        trial[1, 0, :, 0] = np.cos(2 * np.pi * time / self.period)
        trial[2, :, : self._masked] = 1
        return trial
