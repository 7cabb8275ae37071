"""The input-driven fixed point: settle at one value.

A constant input is switched on, and at the end of the trial the output has to be at a given value. All trials are the
same. It is the simplest task for which training changes the connectivity: for a linear network, the change can be
calculated.
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
class FixedPoint(OneTrialTask):
    """Bring the output to one value under constant input.

    The one input is 0 before `onset` and 1 from then on. The target is `target` during the last
    `loss_window` of the trial, where the mask is 1; before, both are 0. All trials of a batch are identical.

    Parameters
    ----------
    target : float
        Target value, z_hat in the paper.
    dt : float
        Length of a step. This and all durations are in time constants.
    duration : float
        Length of a trial.
    onset : float
        Time at which the input is switched on; may be 0.
    loss_window : float
        Length of the interval at the end in which the output counts.

    Raises
    ------
    InputError
        If a parameter has the wrong type or sign; if `dt` leaves a phase without a step; if the loss window
        would start before the input does, which includes an onset after the end.

    References
    ----------
    Schuessler et al. 2020, Fig. 3.
    """

    name: ClassVar[str] = "fixed_point"

    target: float = 1.0
    dt: float = 0.5
    duration: float = 101.0
    onset: float = 1.0
    loss_window: float = 1.0

    def __post_init__(self) -> None:
        self._check_number("target")
        self._check_times("duration", "loss_window", may_be_zero=("onset",))
        latest = self.steps - steps_in(self.loss_window, self.dt)
        if latest < 0:
            raise InputError(f"loss_window must be at most duration = {self.duration:g}, got {self.loss_window!r}")
        if steps_in(self.onset, self.dt) > latest:
            raise InputError(
                "onset must be at most duration - loss_window = "
                f"{self.duration - self.loss_window:g}, so that the input is on when the output counts, "
                f"got {self.onset!r}"
            )

    @cached_property
    def _trial(self) -> NDArray[np.float32]:
        """Inputs, targets and mask of the one trial, shape (3, 1, steps, 1)."""
        trial = np.zeros((3, 1, self.steps, 1), dtype=np.float32)
        late = self.steps - steps_in(self.loss_window, self.dt)
        trial[0, :, steps_in(self.onset, self.dt) :] = 1
        trial[1, :, late:] = self.target
        trial[2, :, late:] = 1
        return trial
