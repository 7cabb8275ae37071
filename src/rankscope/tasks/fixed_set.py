"""Base class of tasks that are trained on a fixed set of trials, and judged by the sign of the answer in each trial.

An epoch is a pass: as many batches as the set holds, each drawn from the whole set without replacement within the batch
(a trial may occur in several batches of a pass, or in none). Other trials are for validation. `sample` draws fresh
trials. The answer of a trial is the sign of the mean output over the steps with a mask.

With one output and the same number of masked steps in every trial, the loss of `train` is half the mean over trials of
the mean square over masked steps, which Dubreuil et al. minimize.

References
----------
Dubreuil et al. 2022, "The role of population structure in computations through neural dynamics", Nature Neuroscience.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.errors import InputError
from rankscope.tasks.trials import BuiltInTask, Trials
from rankscope.validation import RngLike, generator, integer, number

Array = NDArray[Any]


@dataclass(frozen=True)
class FixedSetTask(BuiltInTask):
    """Trials of a fixed set with one output, whose sign in the masked steps is the answer.

    Parameters
    ----------
    dt : float
        Length of a step. This and all durations are in time constants (100 ms in Dubreuil et al.).
    trials, validation_trials : int
        Number of trials in the set, and of further ones for validation.
    trials_seed : int
        Seed of both.
    """

    dt: float = 0.2
    trials: int = 800
    validation_trials: int = 200
    trials_seed: int = 0

    output_size: ClassVar[int] = 1

    def _check_set(self) -> None:
        for name, least in (("trials", 1), ("validation_trials", 1), ("trials_seed", 0)):
            self._settle(name, integer(name, getattr(self, name), minimum=least))

    def __getstate__(self) -> dict[str, Any]:
        return self.parameters()  # without the set

    @classmethod
    def expected_steps(cls, batch_size: int, **parameters: Any) -> int:
        """Return the number of time steps in a pass over the set."""
        task = cls(**parameters)
        return task.steps * max(1, task.trials // batch_size)

    def batches(self, batch_size: int, rng: RngLike = None) -> list[Trials]:
        """Return the batches of a pass, each drawn from the whole set without replacement.

        Raises
        ------
        InputError
            If a batch is larger than the set.
        """
        size = integer("batch_size", batch_size, minimum=1, maximum=self.trials)
        rng = generator(rng)
        return [_chosen(self._set, rng.choice(self.trials, size, replace=False)) for _ in range(self.trials // size)]

    def validation(self) -> list[Trials]:
        """Return the trials for validation, the same at every call."""
        held = np.arange(self.trials, self.trials + self.validation_trials)
        return [_chosen(self._set, held)]

    def trial_accuracy(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> float:
        """Return the fraction of trials with the right answer, as `sign_accuracy`."""
        return sign_accuracy(outputs, targets, mask)

    @cached_property
    def _set(self) -> Trials:
        """The trials of the set, then those for validation."""
        return self.sample(self.trials + self.validation_trials, np.random.default_rng(self.trials_seed))

    def _noise(self, batch: int, channels: int, std: float, rng: np.random.Generator) -> Array:
        """Return noise of each step, (batch, steps, channels)."""
        return rng.standard_normal((batch, self.steps, channels), dtype=np.float32) * np.float32(std)

    def _check_values(self, name: str) -> None:
        """Check a tuple of numbers other than 0."""
        given: Any = getattr(self, name)
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise InputError(f"{name} must be a sequence of numbers other than 0, got {given!r}")
        checked = tuple(number(f"each of {name}", value) for value in given)
        if not checked or 0 in checked:
            raise InputError(f"{name} must be one or more numbers other than 0, got {given!r}")
        self._settle(name, checked)


def sign_accuracy(outputs: Tensor, targets: Tensor, mask: Tensor) -> float:
    """Return the fraction of trials whose mean output over masked steps has the sign of the mean target there.

    Parameters
    ----------
    outputs, targets, mask
        (batch, time, 1). A trial with a mean target of 0 has no answer and is left out.

    Raises
    ------
    InputError
        If their shapes differ, there is more than one output, or no trial has an answer.
    """
    if not outputs.shape == targets.shape == mask.shape or mask.shape[-1] != 1:
        shapes = f"{tuple(outputs.shape)}, {tuple(targets.shape)}, {tuple(mask.shape)}"
        raise InputError(
            f"outputs, targets and mask must have one shape (batch, time, 1), with one channel whose sign is the "
            f"answer, got {shapes}"
        )
    wanted = torch.where(mask == 0, 0, targets * mask).double().sum((1, 2))
    found = torch.where(mask == 0, 0, outputs * mask).double().sum((1, 2))
    answered = wanted != 0
    if not bool(answered.any()):
        raise InputError("targets must have a mean other than 0 over the masked steps of a trial, got none")
    return float((torch.sign(found) == torch.sign(wanted))[answered].double().mean())


def answered(inputs: Array, answer: Array, begin: Array, length: int) -> Trials:
    """Return trials whose target is `answer`, with mask 1, for `length` steps from `begin` on, and 0 elsewhere.

    Parameters
    ----------
    inputs
        (batch, steps, channels).
    answer, begin
        (batch,).
    """
    age = np.arange(inputs.shape[1]) - begin[:, None]
    mask = ((age >= 0) & (age < length))[..., None].astype(np.float32)
    return Trials.from_arrays(inputs, mask * answer[:, None, None], mask)


def _chosen(trials: Trials, indices: NDArray[np.int64]) -> Trials:
    return Trials(trials.inputs[indices], trials.targets[indices], trials.mask[indices])
