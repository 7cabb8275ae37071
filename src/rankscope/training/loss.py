"""The loss: half the masked mean square, where the mask says which outputs count and when.

Source: paper section 1, "Loss".
"""

from __future__ import annotations

import torch
from torch import Tensor

from rankscope.arguments import RngLike
from rankscope.errors import InputError
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import Trials


def squared_loss(outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return L = 1/2 sum(mask (z - target)^2) / sum(mask), a scalar.

    Parameters
    ----------
    outputs, targets, mask
        (batch, time, out). Where the mask is 0, a target may be anything, NaN too.

    Raises
    ------
    InputError
        If their shapes differ.
    """
    if not outputs.shape == targets.shape == mask.shape:
        shapes = f"{tuple(outputs.shape)}, {tuple(targets.shape)}, {tuple(mask.shape)}"
        raise InputError(f"outputs, targets and mask must have one shape (batch, time, out), got {shapes}")
    error = torch.where(mask == 0, 0, outputs - targets)
    return 0.5 * (mask * error * error).sum() / mask.sum()


@torch.no_grad()
def evaluate(network: RateRNN, trials: Trials, rng: RngLike = None) -> float:
    """Return the loss of `network` on `trials`, without learning anything.

    Parameters
    ----------
    rng
        Source of the network's noise; not touched where it has none.
    """
    outputs = network(trials.inputs, rng=rng)
    return float(squared_loss(outputs, trials.targets.to(outputs), trials.mask.to(outputs)))
