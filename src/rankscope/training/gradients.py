"""Loss and gradient of a batch: the interface, and its implementation by autograd.

Others: `manual_gradient.ManualGradient`, and `batched.BatchedGradient` for many networks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.networks.use import check_use
from rankscope.tasks.trials import Trials
from rankscope.training.loss import Loss, outputs_on
from rankscope.training.penalties import Penalties, penalized
from rankscope.training.state import TrainingState

LossAndNorm = tuple[float, float]


class Gradient(ABC):
    """Computes the gradients of one step, and makes the step."""

    @abstractmethod
    def __call__(self, states: Sequence[TrainingState], batches: Sequence[Trials]) -> Sequence[LossAndNorm]:
        """Write gradients into the `grad` of the trained parameters; return the loss and the gradient norm of each.

        Parameters
        ----------
        states
            The networks that still learn.
        batches
            One batch for each.
        """

    def step(self, states: Sequence[TrainingState]) -> None:
        """Update the weights of these networks."""
        for state in states:
            state.optimizer.step()


class AutogradGradient(Gradient):
    """Gradient of any loss of any network, by torch's autograd."""

    def __init__(self, loss: Loss, penalties: Penalties | None = None) -> None:
        self._loss, self._penalties = loss, penalties
        self._checked = False

    def __call__(self, states: Sequence[TrainingState], batches: Sequence[Trials]) -> Sequence[LossAndNorm]:
        """Write gradients; return losses and gradient norms."""
        if not self._checked:
            for state, trials in zip(states, batches, strict=True):
                check_use(state.network, trials, state.records.matrices)
            self._checked = True
        return [self._one(state, trials) for state, trials in zip(states, batches, strict=True)]

    def _one(self, state: TrainingState, trials: Trials) -> LossAndNorm:
        # Local names, so that the graph is freed and its workspace reused in the next step.
        penalty: Tensor | float = 0.0
        if self._penalties:
            outputs, penalty = penalized(state.network, trials, state.rng, self._penalties, state.records.matrices)
        else:
            outputs = outputs_on(state.network, trials, state.rng)
        loss = self._loss(outputs, trials.targets.to(outputs), trials.mask.to(outputs))
        if not loss.requires_grad:
            raise InputError(
                "network must have outputs that depend on its parameters and a loss that torch can differentiate"
            )
        state.optimizer.zero_grad(set_to_none=True)
        (loss + penalty if self._penalties else loss).backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.get_total_norm([p.grad for p in state.parameters if p.grad is not None])
        return float(loss.detach()), float(norm)
