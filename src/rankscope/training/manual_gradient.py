"""Gradient of the squared loss of a rate network by the hand-written passes: same numbers, a third of the operations.

Autograd, the loss in a dozen operations and the allocation of gradients take a tenth of an epoch of a small network.
Here loss and gradient are computed straight from the passes, in buffers that are allocated once. `train` uses this
gradient wherever its result is identical to autograd's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from rankscope.networks import forward_backward
from rankscope.networks.forward_backward import Needs, OutputGradients, Plan, time_major
from rankscope.networks.parameters import BY_HAND, PARAMETERS
from rankscope.networks.protocol import Network
from rankscope.networks.rate import RateRNN
from rankscope.networks.recurrence import Weights, silent_steps
from rankscope.networks.squared_loss import SquaredLoss, squared_loss_into
from rankscope.networks.workspace import WorkspaceKey
from rankscope.tasks.trials import Trials
from rankscope.training.fused_step import fused_adam_step
from rankscope.training.gradients import Gradient, LossAndNorm
from rankscope.training.loss import Loss, squared_loss
from rankscope.training.state import TrainingState
from rankscope.validation import RngLike


class ManualGradient(Gradient):
    """Gradient of one rate network, in buffers kept from step to step.

    Parameters
    ----------
    network
        A network for which `fits` is true. The gradients of its trained weights become views of one vector.
    """

    def __init__(self, network: RateRNN) -> None:
        self._network = network
        self._plan = Plan(network.dynamics, return_states=False)
        self._weights = Weights(*(None if w is None else w.detach() for w in network.weights))  # type: ignore[arg-type]
        self._outputs = network.output_weights.new_zeros(0)
        parts = {part: getattr(network, name) for part, name in PARAMETERS.items()}
        parts = {part: weights for part, weights in parts.items() if weights is not None and weights.requires_grad}
        self._needs = Needs(False, False, *(part in parts for part in BY_HAND))
        # The largest first, so that it has the alignment of a separate tensor.
        ordered = sorted(parts, key=lambda name: -int(parts[name].numel()))
        self._step: Callable[[], object] | None = None
        self._compiled: dict[tuple[int, int], SquaredLoss] = {}
        self._compiled_fits = network.noise_std == 0 and SquaredLoss.fits(self._weights, network.dynamics)
        self._vector = network.recurrent_weights.new_empty(sum(parts[name].numel() for name in ordered))
        self._into: dict[str, Tensor] = {}
        begin = 0
        for name in ordered:
            part = parts[name]
            self._into[name] = self._vector[begin : begin + part.numel()].view(part.shape)
            part.grad = self._into[name]
            begin += part.numel()

    @staticmethod
    def fits(network: Network, loss: Loss) -> bool:
        """Return whether the result is identical to autograd's, and no hook would be skipped."""
        if loss is not squared_loss or type(network) is not RateRNN or network.engine == "plain":
            return False
        watched = [network, *network.parameters()]
        return (
            network.dynamics.differentiated_by_hand
            and network.tau is None
            and network.dynamics.convention == "current"
            and network.recurrent_weights.device.type == "cpu"
            and not any(getattr(thing, hooks, None) for thing in watched for hooks in HOOKS)
        )

    def __call__(self, states: Sequence[TrainingState], batches: Sequence[Trials]) -> Sequence[LossAndNorm]:
        """Write the gradient; return loss and gradient norm."""
        return [self.loss_and_norm(batches[0], states[0].rng)]

    def step(self, states: Sequence[TrainingState]) -> None:
        """Update the weights, unless the training diverges."""
        if not states:
            return
        if self._step is not None:
            self._step()
        else:
            states[0].optimizer.step()  # makes the moments
            self._step = fused_adam_step(states[0].optimizer)

    @torch.no_grad()
    def loss_and_norm(self, trials: Trials, rng: RngLike) -> LossAndNorm:
        """Write the gradient into the `grad` of the trained weights; return the loss and the norm of the gradient.

        Parameters
        ----------
        rng
            Source of the network's noise.

        Raises
        ------
        InputError
            If the trials do not fit the network.
        """
        network, plan, weights = self._network, self._plan, self._weights
        inputs = network.checked(trials.inputs)
        if self._compiled_fits:
            return self._compiled_loss(inputs, trials), float(torch.linalg.vector_norm(self._vector))
        noise = network.draw_noise(inputs, rng)
        batch, steps, _ = inputs.shape
        silent = silent_steps(inputs, weights, network.dynamics, noise)
        key = WorkspaceKey(steps, batch, network.hidden_size, inputs.dtype, inputs.device)
        lease = network.workspaces.lease(key, steps - silent)
        driving = time_major(inputs[:, silent:])
        outputs = self._output_buffer(batch, steps)
        outputs[:, :silent].zero_()
        forward_backward.forward(lease.workspace, driving, noise, weights, plan, outputs[:, silent:])
        loss, grad = _squared_loss(outputs, trials)
        grads = OutputGradients(grad[:, silent:])
        found = forward_backward.backward(
            lease.workspace, driving, grads, weights, plan, self._needs, into=self._into.get("recurrent")
        )
        for name, gradient in zip(BY_HAND, found[2:], strict=True):
            if name in self._into and name != "recurrent":
                assert gradient is not None
                self._into[name].copy_(gradient)
        return loss, float(torch.linalg.vector_norm(self._vector))

    def _compiled_loss(self, inputs: Tensor, trials: Trials) -> float:
        batch, steps, _ = inputs.shape
        if (
            trials.targets.shape != (batch, steps, len(self._weights.output))
            or trials.mask.shape != trials.targets.shape
        ):
            squared_loss(inputs.new_empty(batch, steps, len(self._weights.output)), trials.targets, trials.mask)
        if (batch, steps) not in self._compiled:
            self._compiled = {
                (batch, steps): SquaredLoss(self._weights, self._network.dynamics, batch, steps, self._into)
            }
        return self._compiled[batch, steps](inputs, trials.targets.to(inputs), trials.mask.to(inputs))

    def _output_buffer(self, batch: int, steps: int) -> Tensor:
        shape = (batch, steps, self._weights.output.shape[0])
        if self._outputs.shape != shape:
            self._outputs = self._outputs.new_empty(shape)
        return self._outputs


HOOKS = (
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_post_accumulate_grad_hooks",
)


def _squared_loss(outputs: Tensor, trials: Trials) -> tuple[float, Tensor]:
    """Return `squared_loss` and its gradient with respect to the outputs, (batch, time, out)."""
    if not trials.targets.shape == trials.mask.shape == outputs.shape:
        squared_loss(outputs, trials.targets, trials.mask)  # raises with the shapes
    found, targets, mask = (x.to(outputs).numpy() for x in (outputs, trials.targets, trials.mask))
    grad = np.empty_like(found)
    loss = squared_loss_into(grad, found, targets, mask)
    return loss, torch.from_numpy(grad)
