"""Outputs of many networks that differ in their recurrent weights alone, for the same trials.

A truncation curve of 26 ranks needs the outputs of 26 such networks. No gradient follows, so no history is kept, and
the trials are processed in blocks that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rankscope.networks.forward_backward import Plan, forward, time_major
from rankscope.networks.recurrence import Dynamics, Weights, plain, silent_steps
from rankscope.networks.workspace import Workspace, WorkspaceKey

BLOCK = 128
"""Trials in a block."""


@torch.no_grad()
def outputs_of_many(
    inputs: Tensor,
    weights: Weights,
    recurrent: Sequence[Tensor],
    dynamics: Dynamics,
    noise: Tensor | None = None,
) -> Tensor:
    """Return the outputs of networks that share everything but their recurrent weights.

    Parameters
    ----------
    inputs
        (batch, time, in).
    weights
        The shared weights; the recurrent ones among them are not used.
    recurrent
        K matrices (N, N).
    noise
        Increments eta, (batch, time, N), the same for all networks, or None.

    Returns
    -------
    Tensor
        (K, batch, time, out).
    """
    if not dynamics.differentiated_by_hand or weights.tau is not None:
        each = (plain(inputs, weights._replace(recurrent=W), dynamics, noise).outputs for W in recurrent)
        return torch.stack(list(each))
    batch, steps, _ = inputs.shape
    N = weights.input.shape[0]
    outputs = inputs.new_empty(len(recurrent), batch, steps, weights.output.shape[0])
    silent = silent_steps(inputs, weights, dynamics, noise)
    outputs[:, :, :silent] = 0
    plan = Plan(dynamics, return_states=False, differentiated=False)
    for first in range(0, batch, BLOCK):
        block = slice(first, min(first + BLOCK, batch))
        driving = time_major(inputs[block, silent:])
        increments = None if noise is None else noise[block, silent:]
        workspace = Workspace(WorkspaceKey(steps - silent, block.stop - first, N, inputs.dtype, inputs.device))
        for k, W in enumerate(recurrent):
            now = weights._replace(recurrent=W)
            forward(workspace, driving, increments, now, plan, outputs[k, block, silent:])
    if dynamics.convention == "rate":
        outputs.copy_(dynamics.readout_nonlinearity(outputs))
    return outputs
