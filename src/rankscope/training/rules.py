"""The rules of every training, alone or together with others: what is a divergence, and how a training ends.

They are written twice where they have to be: for the loss of one network, a number, and for those of many on a
device, a tensor that nobody waits for. Both are in double precision, so that they decide alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rankscope.training.history import Status
from rankscope.validation import choice, integer, number

DEFAULT_EPOCHS = 1000
# A step beyond this would take single-precision weights out of range.
LARGEST_STEP = 1e30
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class Rules:
    """What a training goes by.

    The order of an epoch: the weights are looked at, the loss and its gradient are found, the gradient is scaled down
    to `clip_norm`, and the weights make their step, unless the epoch `diverges`; then the training may have an
    `ending`.

    Attributes
    ----------
    total
        Epochs in all; None where nobody knows.
    batch_size, optimizer, learning_rate, clip_norm, stop_below
        As in `train`, checked.
    """

    total: int | None
    batch_size: int
    optimizer: str
    learning_rate: float
    clip_norm: float | None
    stop_below: float | None

    def settings(self) -> dict[str, Any]:
        """Return what a checkpoint has to agree with: all but the number of epochs, which may grow."""
        names = ("batch_size", "optimizer", "learning_rate", "clip_norm", "stop_below")
        return {name: getattr(self, name) for name in names}

    def make_optimizer(self, weights: list[Any]) -> torch.optim.Optimizer:
        """Return what will change `weights`."""
        # Both optimizers have a fused kernel, one pass over the weights instead of a dozen.
        return OPTIMIZERS[self.optimizer](weights, lr=self.learning_rate, fused=True)

    def clip_factors(self, norms: Tensor) -> Tensor | None:
        """Return what gradients of these norms have to be multiplied with, or None if that is nothing."""
        return None if self.clip_norm is None else torch.clamp(self.clip_norm / (norms + 1e-6), max=1.0)

    def diverges(self, loss: float, norm: float) -> bool:
        """Return whether there is no step to make: something is not finite, or the step is out of range."""
        # Adam's steps are about as long as the learning rate, SGD's as the learning rate times the gradient.
        longest_step = self.learning_rate * max(norm, 1.0)
        return not (math.isfinite(loss) and math.isfinite(norm) and longest_step < LARGEST_STEP)

    def ending(self, epochs_done: int, loss: float, first_loss: float) -> Status | None:
        """Return how the training ends after an epoch that did not diverge, or None if it goes on."""
        if self.stop_below is not None and loss < self.stop_below * first_loss:
            return "stopped"
        return "finished" if epochs_done == self.total else None

    def each_diverges(self, losses: Tensor, norms: Tensor) -> Tensor:
        """Return `diverges` for each of many networks, given as double precision."""
        longest_steps = norms.clamp(min=1.0) * self.learning_rate
        return ~(losses.isfinite() & norms.isfinite() & (longest_steps < LARGEST_STEP))

    def each_stops(self, losses: Tensor, first_losses: Tensor) -> Tensor:
        """Return whether the `ending` of each of many networks is "stopped", given as double precision."""
        if self.stop_below is None:
            return torch.zeros_like(losses, dtype=torch.bool)
        return losses < first_losses * self.stop_below


def make_rules(
    total: int | None,
    hidden_size: int,
    *,
    batch_size: int,
    optimizer: str,
    learning_rate: float | None,
    clip_norm: float | None,
    stop_below: float | None,
) -> Rules:
    """Return the rules that arguments of `train` mean.

    Raises
    ------
    InputError
        For anything out of range.
    """
    rate = 0.05 / hidden_size if learning_rate is None else number("learning_rate", learning_rate, above=0)
    return Rules(
        total,
        integer("batch_size", batch_size, minimum=1),
        choice("optimizer", optimizer, OPTIMIZERS),
        rate,
        None if clip_norm is None else number("clip_norm", clip_norm, above=0),
        None if stop_below is None else number("stop_below", stop_below, above=0),
    )
