"""The weights of many networks on one device, and the step that all of them make at once.

A part of all networks is one tensor with the networks in front. The step works on tensors that stay where they are,
and never asks the device what came of it: each network that diverges keeps its weights from before, and sleeps from
then on, by a mask. So a graphics card can run the step as one captured graph, and need not be listened to after each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rankscope.networks.ensemble import ensemble
from rankscope.networks.parameters import PARAMETERS
from rankscope.networks.rate import RateRNN
from rankscope.networks.recurrence import Weights
from rankscope.training.cuda import captured
from rankscope.training.loss import Loss, squared_loss
from rankscope.training.rules import Rules
from rankscope.training.state_file import TrainingState

ASLEEP, GOES_ON, DIVERGED, STOPPED = range(4)
"""What became of a network in a step."""


class Stack:
    """What changes on the device while networks train together.

    Parameters
    ----------
    states
        The training of each network, all that still learn at the same epoch.

    Attributes
    ----------
    weights
        Of all networks, each with a first axis (E,).
    trained
        Those of them that learn, in the order of an optimizer of one network.
    learning
        (E,) whether a network still learns.
    first_losses
        (E,) in double precision, NaN before the first epoch.
    """

    def __init__(self, states: Sequence[TrainingState], rules: Rules, device: torch.device) -> None:
        networks = [_rate_network(state) for state in states]
        self.dynamics = networks[0].dynamics
        self.device = device
        self.trained: list[Tensor] = []
        parts: dict[str, Tensor | None] = {}
        for part, name in PARAMETERS.items():
            values = [getattr(network, name) for network in networks]
            if values[0] is None:
                parts[name] = None
                continue
            parts[name] = stacked = torch.stack([value.detach() for value in values]).to(device)
            if part in networks[0].trained:
                self.trained.append(stacked.requires_grad_())
        self.weights = Weights(*parts.values())  # type: ignore[arg-type]
        self._names = [name for name, part in parts.items() if part is not None]
        firsts = [state.records.losses[0] if state.records.losses else torch.nan for state in states]
        self.first_losses = torch.tensor(firsts, dtype=torch.float64, device=device)
        self.learning = torch.tensor([state.status is None for state in states], device=device)
        self.optimizer = rules.make_optimizer(self.trained)
        self._prepare_optimizer()
        for e, state in enumerate(states):
            if state.status is None:
                for index, entries in state.optimizer.state_dict()["state"].items():
                    for name, value in self._entries(index).items():
                        (value if value.ndim == 0 else value[e]).copy_(entries[name])

    @property
    def changing(self) -> list[Tensor]:
        """All that a step changes."""
        entries = [value for index in range(len(self.trained)) for value in self._entries(index).values()]
        return [*self.trained, *entries, self.first_losses, self.learning]

    def recurrent_weights(self) -> Tensor:
        """Return (E, N, N) as they are now, in memory."""
        now = self.weights.recurrent.detach()
        return now.clone() if now.device.type == "cpu" else now.cpu()

    @torch.no_grad()
    def pour(self, states: Sequence[TrainingState]) -> None:
        """Put weights into their networks, and what the optimizer remembers into its likes, where a network learns."""
        for e, state in enumerate(states):
            for name, part in zip(self._names, (part for part in self.weights if part is not None), strict=True):
                getattr(state.network, name).copy_(part[e])
            if state.status in (None, "finished") and state.epoch:
                layout = state.optimizer.state_dict()
                layout["state"] = {
                    index: {
                        name: value.cpu().clone() if value.ndim == 0 else value[e].to(own.device, copy=True)
                        for name, value in self._entries(index).items()
                    }
                    for index, own in enumerate(state.optimizer.param_groups[0]["params"])
                }
                state.optimizer.load_state_dict(layout)

    def _prepare_optimizer(self) -> None:
        """Make what the optimizer remembers, which it would do at its first step, and lay it out for good."""
        for weights in self.trained:
            weights.grad = torch.zeros_like(weights)
        self.optimizer.step()  # without a gradient it goes nowhere
        for index in range(len(self.trained)):
            for value in self._entries(index).values():
                value.zero_()

    def _entries(self, index: int) -> dict[str, Tensor]:
        remembered: dict[str, Any] = self.optimizer.state[self.trained[index]]
        return {name: value for name, value in remembered.items() if isinstance(value, Tensor)}


class Step:
    """One epoch of all networks of a stack, on the trials that lie in its buffers.

    Parameters
    ----------
    trial_shapes
        Of inputs, targets and mask, each (E, batch, time, channels).

    Attributes
    ----------
    report
        (3, E) in double precision: losses, gradient norms, and what became of each network, of the last step.
    """

    def __init__(self, stack: Stack, rules: Rules, loss: Loss, trial_shapes: Sequence[torch.Size]) -> None:
        self._stack, self._rules, self._loss = stack, rules, loss
        like = stack.weights.recurrent
        self._trials = [torch.zeros(shape, dtype=like.dtype, device=like.device) for shape in trial_shapes]
        self.report = torch.zeros(3, len(like), dtype=torch.float64, device=like.device)
        self._replay: Callable[[], object] | None = None

    def fits(self, trial_shapes: Sequence[torch.Size]) -> bool:
        """Return whether trials of these shapes fit into the buffers."""
        return [trials.shape for trials in self._trials] == list(trial_shapes)

    def load(self, trials: Sequence[Tensor]) -> None:
        """Begin to copy trials into the buffers."""
        for buffer, block in zip(self._trials, trials, strict=True):
            buffer.copy_(block, non_blocking=True)

    def __call__(self) -> None:
        """Make the step. On a graphics card, captured at the first call."""
        if self._replay is None and self._stack.device.type == "cuda" and self._loss is squared_loss:
            stack = self._stack
            self._replay = captured(self._run, self.rehearse, stack.optimizer, stack.device)  # card only
        # Other losses may look at numbers, which cannot be captured.
        (self._replay or self._run)()

    def rehearse(self) -> None:
        """Make the step and undo it."""
        changing = [*self._stack.changing, self.report]
        with torch.no_grad():
            before = [value.clone() for value in changing]
            with torch.enable_grad():
                self._run()
            for value, was in zip(changing, before, strict=True):
                value.copy_(was)

    def _run(self) -> None:
        stack = self._stack
        outputs = ensemble(self._trials[0], stack.weights, stack.dynamics)
        losses = losses_of_each(self._loss, outputs, self._trials[1], self._trials[2])
        gradients = torch.autograd.grad(losses.sum(), stack.trained)
        for weights, gradient in zip(stack.trained, gradients, strict=True):
            weights.grad = gradient
        self._update(losses.detach())

    @torch.no_grad()
    def _update(self, losses: Tensor) -> None:
        stack, rules = self._stack, self._rules
        norms = _gradient_norms(stack.trained)
        factors = rules.clip_factors(norms)
        if factors is not None:
            for weights in stack.trained:
                assert weights.grad is not None
                weights.grad.mul_(_along(factors, weights))
        exact, exact_norms = losses.double(), norms.double()
        stack.first_losses.copy_(torch.where(stack.first_losses.isnan(), exact, stack.first_losses))
        moving = stack.learning & ~rules.each_diverges(exact, exact_norms)
        stopped = moving & rules.each_stops(exact, stack.first_losses)
        before = [weights.clone() for weights in stack.trained]
        stack.optimizer.step()
        for weights, was in zip(stack.trained, before, strict=True):
            torch.where(_along(moving, weights), weights, was, out=weights)
        fates = torch.full_like(exact, GOES_ON).masked_fill_(stopped, STOPPED).masked_fill_(~moving, DIVERGED)
        torch.stack([exact, exact_norms, fates.masked_fill_(~stack.learning, ASLEEP)], out=self.report)
        stack.learning.copy_(moving & ~stopped)


def losses_of_each(loss: Loss, outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the loss of each network, (E,), of outputs, targets and mask (E, batch, time, out)."""
    if loss is squared_loss:
        error = (outputs - targets).masked_fill(mask == 0, 0)
        return 0.5 * (mask * error * error).flatten(1).sum(1) / mask.flatten(1).sum(1)
    return torch.stack([loss(*each) for each in zip(outputs, targets, mask, strict=True)])


def bytes_of_one(network: RateRNN, steps: int, batch_size: int) -> int:
    """Return about how much memory a network takes in a stack.

    Of its weights there are ten copies at most: they and their gradient, what Adam remembers (two), those from before
    the step, those times dt, and what is in the making. Of its states (steps, batch, N) there are nine: input drive,
    states, rates, the gradients with respect to them, and copies of these in another order. Trials lie there once.
    """
    out, N, channels = (*network.output_weights.shape, network.input_weights.shape[1])
    weights = N * (N + out + channels + 2)
    per_step = batch_size * (9 * N + 2 * channels + 8 * out)
    return network.recurrent_weights.element_size() * (10 * weights + steps * per_step)


def _rate_network(state: TrainingState) -> RateRNN:
    assert isinstance(state.network, RateRNN)
    return state.network


def _gradient_norms(trained: Sequence[Tensor]) -> Tensor:
    """Return (E,) norms over all trained parts."""
    each = [torch.linalg.vector_norm(weights.grad.flatten(1), dim=1) for weights in trained if weights.grad is not None]
    norms: Tensor = torch.linalg.vector_norm(torch.stack(each), dim=0)
    return norms


def _along(values: Tensor, weights: Tensor) -> Tensor:
    """Return (E,) values in a shape that multiplies (E, ...) weights."""
    return values.view(-1, *[1] * (weights.ndim - 1))
