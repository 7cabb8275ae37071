"""The gradient of the squared loss of a rate network, without autograd: the same numbers in a third of the operations.

An epoch of a small network is over in a few milliseconds, of which autograd, the loss in a dozen operations and the
book-keeping of gradients take a tenth. Here loss and gradient are computed straight from the passes of the engine, in
memory that is allocated once; `train` takes this way wherever nobody could tell the difference.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rankscope.networks import forward_backward
from rankscope.networks.forward_backward import Incoming, Plan, Wanted, time_major
from rankscope.networks.parameters import PARAMETERS
from rankscope.networks.protocol import Network
from rankscope.networks.rate import RateRNN
from rankscope.networks.recurrence import Weights
from rankscope.networks.workspace import WorkspaceKey
from rankscope.tasks.trials import Trials
from rankscope.training.loss import Loss, squared_loss
from rankscope.validation import RngLike


class DirectGradient:
    """What computes loss and gradient of one network, epoch after epoch.

    Parameters
    ----------
    network
        Of which `fits` is true. The gradients of its trained parts become views of one vector.
    """

    def __init__(self, network: RateRNN) -> None:
        self._network = network
        self._plan = Plan(network.dynamics, return_states=False)
        # Views, which see the weights as they change.
        self._weights = Weights(*(None if w is None else w.detach() for w in network.weights))  # type: ignore[arg-type]
        self._outputs = network.output_weights.new_zeros(0)
        parts = {part: getattr(network, name) for part, name in PARAMETERS.items()}
        parts = {part: weights for part, weights in parts.items() if weights is not None and weights.requires_grad}
        self._wanted = Wanted(False, False, *(part in parts for part in PARAMETERS))
        # The largest first, so that its rows begin where those of a tensor of its own would.
        ordered = sorted(parts, key=lambda name: -int(parts[name].numel()))
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
        """Return whether this way gives what the usual one gives, and nobody is there to watch."""
        if loss is not squared_loss or type(network) is not RateRNN or network.engine == "plain":
            return False
        watched = [network, *network.parameters()]
        return (
            network.dynamics.differentiated_by_hand
            and network.dynamics.convention == "current"
            and network.recurrent_weights.device.type == "cpu"
            and not any(getattr(thing, hooks, None) for thing in watched for hooks in _HOOKS)
        )

    @torch.no_grad()
    def __call__(self, trials: Trials, rng: RngLike) -> tuple[float, Tensor]:
        """Leave the gradient in the `grad` of the trained parts; return the loss, and the norm of the gradient.

        Parameters
        ----------
        trials
            One batch.
        rng
            Source of the network's noise.

        Raises
        ------
        InputError
            If the trials do not fit the network.
        """
        network, plan, weights = self._network, self._plan, self._weights
        inputs = network.checked(trials.inputs)
        noise = network.draw_noise(inputs, rng)
        batch, steps, _ = inputs.shape
        silent = forward_backward.silent_steps(inputs, weights, network.dynamics, noise)
        key = WorkspaceKey(steps, batch, network.hidden_size, inputs.dtype, inputs.device)
        lease = network.workspaces.lease(key, steps - silent)
        heard = time_major(inputs[:, silent:])
        outputs = self._room_for_outputs(batch, steps)
        outputs[:, :silent].zero_()
        forward_backward.forward(lease.workspace, heard, noise, weights, plan, outputs[:, silent:])
        loss, grad = _squared_loss(outputs, trials)
        grads = Incoming(grad[:, silent:])
        found = forward_backward.backward(
            lease.workspace, heard, grads, weights, plan, self._wanted, into=self._into.get("recurrent")
        )
        for name, gradient in zip(PARAMETERS, found[2:], strict=True):
            if name in self._into and name != "recurrent":
                assert gradient is not None
                self._into[name].copy_(gradient)
        return loss, torch.linalg.vector_norm(self._vector)

    def _room_for_outputs(self, batch: int, steps: int) -> Tensor:
        shape = (batch, steps, self._weights.output.shape[0])
        if self._outputs.shape != shape:
            self._outputs = self._outputs.new_empty(shape)
        return self._outputs


_HOOKS = (
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_post_accumulate_grad_hooks",
)


def _squared_loss(outputs: Tensor, trials: Trials) -> tuple[float, Tensor]:
    """Return `squared_loss` and its gradient with respect to the outputs, (batch, time, out)."""
    if not trials.targets.shape == trials.mask.shape == outputs.shape:
        squared_loss(outputs, trials.targets, trials.mask)  # says what is wrong
    # In numpy, whose operations on few numbers cost a third of torch's.
    said, targets, mask = (part.to(outputs).numpy() for part in (outputs, trials.targets, trials.mask))
    with np.errstate(all="ignore"):  # a training may diverge, and is told so by its loss
        error = np.where(mask == 0, 0, said - targets)
        grad = mask * error
        total = mask.sum()
        loss = 0.5 * np.vdot(grad, error) / total
        grad /= total
    return float(loss), torch.from_numpy(grad)
