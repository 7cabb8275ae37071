"""Gradients of many rate networks at once, as batched matrix products on one device.

Experimental, not yet run on a GPU.

The weights of all networks are rows of one tensor (E, ...), and the parameters of each network are views of its row.
So each network keeps its own training state, optimizer state included, and can be saved or continued alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.networks.ensemble import ensemble
from rankscope.networks.parameters import PARAMETERS
from rankscope.networks.rate import RateRNN
from rankscope.networks.recurrence import Weights
from rankscope.tasks.trials import Trials
from rankscope.training.config import TrainingConfig
from rankscope.training.gradients import Gradient, LossAndNorm
from rankscope.training.loss import Loss, squared_loss
from rankscope.training.state import TrainingState


@contextmanager
def stacked(networks: Sequence[RateRNN], device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Move the weights of `networks` into one tensor per name on `device`; move them back at the end."""
    stacks: dict[str, Tensor] = {}
    before = [parameter.device for network in networks for parameter in network.parameters()]
    try:
        for name in PARAMETERS.values():
            values = [getattr(network, name) for network in networks]
            if values[0] is not None:
                stacks[name] = torch.stack([value.detach() for value in values]).to(device)
                for value, row in zip(values, stacks[name], strict=True):
                    value.data = row
        yield stacks
    finally:
        parameters = [parameter for network in networks for parameter in network.parameters()]
        for parameter, where in zip(parameters, before, strict=True):
            parameter.data = parameter.detach().to(where, copy=True)
            parameter.grad = None


class BatchedGradient(Gradient):
    """Gradients of rate networks of one kind; `states` are in the order of the rows that `stacked` yields."""

    def __init__(
        self, states: Sequence[TrainingState], stacks: dict[str, Tensor], config: TrainingConfig, loss: Loss
    ) -> None:
        self._rows = {id(state): row for row, state in enumerate(states)}
        self._states, self._stacks, self._loss = states, stacks, loss
        first = states[0].network
        assert isinstance(first, RateRNN)
        self._dynamics = first.dynamics
        self._trained = [PARAMETERS[name] for name in first.trained]
        self._gradients = {name: torch.zeros_like(stacks[name]) for name in self._trained}
        for row, state in enumerate(states):
            for name in self._trained:
                getattr(state.network, name).grad = self._gradients[name][row]
        self._optimizer: torch.optim.Optimizer | None = None
        if not callable(config.optimizer) and config.schedule is None and config.learning_rates is None:
            # One optimizer over all parameters makes one launch of the fused kernel. It shares the entries of the
            # networks' own optimizers, so these stay up to date.
            parameters = [weights for state in states for weights in state.parameters]
            self._optimizer = config.make_optimizer(parameters, first.hidden_size)
            for state in states:
                for weights in state.parameters:
                    self._optimizer.state[weights] = state.optimizer.state[weights]

    def __call__(self, states: Sequence[TrainingState], batches: Sequence[Trials]) -> Sequence[LossAndNorm]:
        """Write the gradients; return losses and gradient norms, read back at once."""
        rows = [self._rows[id(state)] for state in states]
        weights = {name: stack[rows] for name, stack in self._stacks.items()}
        for name in self._trained:
            weights[name].requires_grad_()
        inputs, targets, mask = _stack_trials(batches, like=self._stacks[PARAMETERS["recurrent"]])
        outputs = ensemble(inputs, Weights(*(weights.get(name) for name in PARAMETERS.values())), self._dynamics)  # type: ignore[arg-type]
        losses = _losses_of_each(self._loss, outputs, targets, mask)
        found = torch.autograd.grad(losses.sum(), [weights[name] for name in self._trained])
        norms = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in found]), dim=0
        )
        for name, gradient in zip(self._trained, found, strict=True):
            self._gradients[name][rows] = gradient
        return [(loss, norm) for loss, norm in torch.stack([losses.detach(), norms]).double().t().tolist()]

    def step(self, states: Sequence[TrainingState]) -> None:
        """Update the weights of these networks only."""
        if self._optimizer is None:
            super().step(states)
            return
        moving = {id(state) for state in states}
        for state in self._states:
            if id(state) not in moving:
                state.optimizer.zero_grad(set_to_none=True)  # torch skips parameters without a gradient
        self._optimizer.step()


def _losses_of_each(loss: Loss, outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the loss of each network, (E,), of outputs, targets and mask (E, batch, time, out)."""
    if loss is squared_loss:
        error = (outputs - targets).masked_fill(mask == 0, 0)
        return 0.5 * (mask * error * error).flatten(1).sum(1) / mask.flatten(1).sum(1)
    return torch.stack([loss(*each) for each in zip(outputs, targets, mask, strict=True)])


def _stack_trials(batches: Sequence[Trials], like: Tensor) -> list[Tensor]:
    """Return inputs, targets and mask of all networks, (E, batch, time, channels), on the device of `like`."""
    shapes = {(tuple(trials.inputs.shape), tuple(trials.targets.shape)) for trials in batches}
    if len(shapes) > 1:
        raise InputError(f"task must give trials of one shape to networks that are trained together, got {shapes}")
    return [torch.stack([getattr(t, name) for t in batches]).to(like) for name in ("inputs", "targets", "mask")]
