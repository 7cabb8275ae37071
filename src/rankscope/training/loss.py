"""Losses of outputs (batch, time, out) against targets, weighted by the mask; and the accuracy for classes.

The loss of the paper is half the masked mean square error (Schuessler et al. 2020, eq. 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.networks.protocol import Network, evaluating, hidden_size_of, outputs_of
from rankscope.networks.use import check_use
from rankscope.tasks.trials import Trials
from rankscope.validation import RngLike, choice

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes outputs, targets and mask, each (batch, time, out), and returns a scalar."""


def squared_loss(outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return L = 1/2 sum(mask (z - target)^2) / sum(mask), a scalar.

    Parameters
    ----------
    outputs, targets, mask
        (batch, time, out). Targets where the mask is 0 are ignored, NaN included.

    Raises
    ------
    InputError
        If their shapes differ.
    """
    _check_shapes(outputs, targets, mask)
    error = torch.where(mask == 0, 0, outputs - targets)
    return 0.5 * (mask * error * error).sum() / mask.sum()


def cross_entropy_loss(outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return L = -sum_t(mask_t sum_i target_i log p_i) / sum_t(mask_t) with p = softmax(z) over channels, a scalar.

    Parameters
    ----------
    outputs, targets
        (batch, time, out) with two channels or more. Targets are one-hot or probabilities; they are ignored where the
        mask is 0, NaN included.
    mask
        (batch, time, out), the weight of a time step, the same for all its channels.

    Raises
    ------
    InputError
        If shapes differ, there is only one channel, the mask differs between channels, or targets with a mask are not
        probabilities.
    """
    weight = _check_classes(outputs, targets, mask)
    wanted = torch.where(mask == 0, 0, targets)
    # Rounded probabilities sum to one only nearly. A comparison with NaN is false.
    sums = torch.where(weight == 0, 1, wanted.sum(-1))
    if not bool(((sums - 1).abs() < 1e-3).all() & (wanted >= 0).all()):
        raise InputError(
            "targets must be one-hot or probabilities (>= 0, of sum 1 over channels) for the cross-entropy, wherever "
            "the mask is not 0; for other targets take loss = 'squared'"
        )
    entropies = -(wanted * torch.log_softmax(outputs, -1)).sum(-1)
    return (weight * entropies).sum() / weight.sum()


def binary_cross_entropy_loss(outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the masked mean of -target log p - (1 - target) log(1 - p) with p = sigmoid(z), a scalar.

    Parameters
    ----------
    outputs, targets, mask
        (batch, time, out): logits, probabilities of the positive class, and weights.

    Raises
    ------
    InputError
        If their shapes differ.
    """
    _check_shapes(outputs, targets, mask)
    wanted = torch.where(mask == 0, 0, targets)
    entropies = torch.nn.functional.binary_cross_entropy_with_logits(outputs, wanted, reduction="none")
    return (mask * entropies).sum() / mask.sum()


LOSSES: dict[str, Loss] = {
    "squared": squared_loss,
    "cross_entropy": cross_entropy_loss,
    "binary_cross_entropy": binary_cross_entropy_loss,
}
"""The losses by name."""


@torch.no_grad()
def accuracy(outputs: Tensor, targets: Tensor, mask: Tensor, *, last: bool = False) -> float:
    """Return the fraction of time steps in which the output names the class of the target.

    Parameters
    ----------
    outputs, targets
        (batch, time, out). The class is the channel with the largest value. With one channel, the output is a logit
        (positive for class 1) and the target a probability.
    mask
        (batch, time, out), the weight of a step, the same for all its channels.
    last
        Use only the last step of each trial whose mask is not 0, with equal weights. Trials without one are ignored.

    Raises
    ------
    InputError
        If shapes differ, the mask differs between channels, or it is 0 everywhere.
    """
    _check_shapes(outputs, targets, mask)
    weight = mask[..., 0] if mask.shape[-1] == 1 else _check_classes(outputs, targets, mask)
    if not bool((weight > 0).any()):
        raise InputError("mask must be above 0 in at least one time step, got none")
    if mask.shape[-1] == 1:
        right = ((outputs > 0) == (targets > 0.5))[..., 0].double()
    else:
        right = (outputs.argmax(-1) == targets.argmax(-1)).double()
    if last:
        steps = torch.arange(weight.shape[1], device=weight.device)
        final = torch.where(weight == 0, -1, steps).amax(1)
        return float(right[final >= 0, final[final >= 0]].mean())
    return float((right * weight).sum() / weight.double().sum())


def find_loss(loss: str | Loss | None = None, task: object = None) -> Loss:
    """Return a loss function.

    Parameters
    ----------
    loss
        Name in `LOSSES`, or a function as `Loss`. None is the attribute `loss` of `task`, or "squared".

    Raises
    ------
    InputError
        If it is neither. The function returned for a user's loss raises it if that does not return a scalar tensor.
    """
    if loss is None:
        loss = getattr(task, "loss", None)
    if loss is None:
        return squared_loss
    if not callable(loss):
        return LOSSES[choice("loss", loss, LOSSES)]
    return loss if loss in LOSSES.values() else _checked(loss)


def name_of_loss(loss: Loss) -> str:
    """Return the name of a loss in `LOSSES`, or the qualified name of a user's function."""
    known = [name for name, function in LOSSES.items() if function is loss]
    return known[0] if known else str(getattr(loss, "__qualname__", type(loss).__name__))


@torch.no_grad()
def evaluate(network: Network, trials: Trials, rng: RngLike = None, loss: str | Loss = "squared") -> float:
    """Return the loss of `network` on `trials`.

    Parameters
    ----------
    network
        As in `train`; run in torch's evaluation mode, without dropout.
    rng
        Source of the network's noise; unused by a RateRNN without noise.
    loss
        As in `train`.
    """
    check_use(network, trials, ())
    with evaluating(network), threads_for(hidden_size_of(network)):
        outputs = outputs_on(network, trials, rng)
    return float(find_loss(loss)(outputs, trials.targets.to(outputs), trials.mask.to(outputs)))


@torch.no_grad()
def validate(network: Network, batches: Sequence[Trials], loss: str | Loss, task: object = None) -> tuple[float, float]:
    """Return the loss and the accuracy of `network`, each the mean over all trials of `batches`.

    The accuracy is that of classes for their losses; else the `trial_accuracy(outputs, targets, mask)` of a task that
    has one; else NaN.
    """
    judge = find_loss(loss)
    own = getattr(task, "trial_accuracy", None)
    right_of = accuracy if judge in (cross_entropy_loss, binary_cross_entropy_loss) else own
    losses, right = [], []
    with evaluating(network):
        for trials in batches:
            outputs = outputs_on(network, trials, 0)
            targets, mask = trials.targets.to(outputs), trials.mask.to(outputs)
            losses.append(float(judge(outputs, targets, mask)))
            right.append(math.nan if right_of is None else right_of(outputs, targets, mask))
    sizes = [trials.batch_size for trials in batches]
    return float(np.average(losses, weights=sizes)), float(np.average(right, weights=sizes))


def outputs_on(network: Network, trials: Trials, rng: RngLike = None) -> Tensor:
    """Return the outputs of `network` on `trials`, (batch, time, out)."""
    return outputs_of(network, trials.inputs, rng, trials.lengths)


def _checked(loss: Callable[..., Any]) -> Loss:
    def checked(outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        value = loss(outputs, targets, mask)
        if not isinstance(value, Tensor) or value.ndim:
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"loss must return a scalar tensor, got {got}")
        return value

    # A partial or an instance has no name.
    checked.__qualname__ = str(getattr(loss, "__qualname__", type(loss).__name__))
    return checked


def _check_shapes(outputs: Tensor, targets: Tensor, mask: Tensor) -> None:
    if not outputs.shape == targets.shape == mask.shape:
        shapes = f"{tuple(outputs.shape)}, {tuple(targets.shape)}, {tuple(mask.shape)}"
        raise InputError(f"outputs, targets and mask must have one shape (batch, time, out), got {shapes}")


def _check_classes(outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the weight of each time step, (batch, time)."""
    _check_shapes(outputs, targets, mask)
    if mask.shape[-1] < 2:
        raise InputError(f"targets must have a channel for each class, two or more, got {mask.shape[-1]}")
    weight = mask[..., 0]
    if not bool((mask == weight[..., None]).all()):
        raise InputError("mask must be the same for all channels of a time step for losses of classes")
    return weight
