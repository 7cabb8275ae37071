"""`TrainingState`: everything that changes while a network is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankscope.networks.protocol import Network
from rankscope.tasks.trials import Trials
from rankscope.training.history import History, Status
from rankscope.training.recorder import Recorder


@dataclass
class TrainingState:
    """Everything that changes while a network is trained.

    Attributes
    ----------
    settings
        Description of the training. A state file with other settings is refused.
    learning_rate
        Initial learning rate.
    batches
        Yields the batches of each epoch: one for a task that draws trials, those of a pass for finite data.
    finite
        Whether an epoch is a pass over finite data, in several steps.
    epoch
        Number of completed epochs.
    best
        The network's state at the lowest validation loss, if it is kept.
    kept
        The network's state after each number of epochs in `kept_epochs`.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    rng: np.random.Generator
    records: Recorder
    settings: dict[str, Any]
    learning_rate: float
    scheduler: Any = None
    batches: Iterator[Iterable[Trials]] = field(default_factory=lambda: iter(()))
    finite: bool = False
    epoch: int = 0
    seconds: float = 0.0
    status: Status | None = None
    best: dict[str, Tensor] | None = None
    kept: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Loss of the last epoch."""
        return self.records.losses[-1]

    @property
    def gradient_norm(self) -> float:
        """Norm of the gradient of the last epoch, before clipping."""
        return self.records.gradient_norms[-1]

    @property
    def validation_loss(self) -> float:
        """Loss of the last epoch on the validation trials, NaN without a validation."""
        return self.records.validation_losses[-1] if self.records.validation_losses else math.nan

    @property
    def parameters(self) -> list[Tensor]:
        """The trained parameters, in the optimizer's order."""
        return [weights for group in self.optimizer.param_groups for weights in group["params"]]

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the network's state."""
        return {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    def history(self) -> History:
        """Return the history of a training that has ended."""
        assert self.status is not None
        return self.records.finish(self.status, self.learning_rate, self.seconds, self.kept)
