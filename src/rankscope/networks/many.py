"""Many recurrent matrices, one set of trials: forward only.

Truncating a change at 26 ranks asks for the outputs of 26 networks that differ in W alone. The input drive is then the
same for all, no state has to be kept, and the trials are cut into blocks that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rankscope.networks.kernels.dispatch import Affine, affine
from rankscope.networks.nonlinearities import Nonlinearity
from rankscope.networks.recurrence import Dynamics, Weights, initial_states, plain

TRIALS_AT_ONCE = 256


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
        What they share; its recurrent weights are not used.
    recurrent
        K matrices (N, N).
    noise
        Increments eta, (batch, time, N), the same for all, or None.

    Returns
    -------
    Tensor
        (K, batch, time, out).
    """
    if not dynamics.differentiated_by_hand:
        each = (plain(inputs, weights._replace(recurrent=W), dynamics, noise).outputs for W in recurrent)
        return torch.stack(list(each))
    batch, steps, _ = inputs.shape
    outputs = inputs.new_empty(len(recurrent), batch, steps, weights.output.shape[0])
    # The dt of the current convention multiplies the whole drive, W r included.
    scale = dynamics.dt if dynamics.convention == "current" else 1.0
    products = [affine(W * scale, rows=min(batch, TRIALS_AT_ONCE)) for W in recurrent]
    for first in range(0, batch, TRIALS_AT_ONCE):
        block = slice(first, first + TRIALS_AT_ONCE)
        drive = (inputs[block].transpose(0, 1) @ (weights.input.t() * scale)).contiguous()
        if weights.bias is not None:
            drive += weights.bias * scale
        kicks = None if noise is None else noise[block].transpose(0, 1)
        for k, product in enumerate(products):
            _run(outputs[k, block], drive, kicks, product, weights, dynamics)
    return outputs


def _run(
    outputs: Tensor,
    drive: Tensor,
    kicks: Tensor | None,
    product: Affine,
    weights: Weights,
    dynamics: Dynamics,
) -> None:
    """Fill outputs (block, time, out) for one recurrent matrix, given the scaled drive (time, block, N)."""
    phi, dt = dynamics.nonlinearity, dynamics.dt
    assert isinstance(phi, Nonlinearity)
    shared_readout = dynamics.readout_nonlinearity is phi
    W_out = weights.output.t()
    h = initial_states(weights, drive.shape[1]).clone()
    r = torch.empty_like(h)
    if dynamics.convention == "current":
        phi.into(h, r)
    for t, now in enumerate(drive):
        if dynamics.convention == "current":
            product(r, now, h, 1 - dt, out=h)
            if kicks is not None:
                h += kicks[t]
            phi.into(h, r)
            outputs[:, t] = (r if shared_readout else dynamics.readout_nonlinearity(h)) @ W_out
        else:
            phi.into(product(h, now, out=r), r)
            h.lerp_(r, dt)
            if kicks is not None:
                h += kicks[t]
            outputs[:, t] = h @ W_out
    if dynamics.convention == "rate":
        outputs.copy_(dynamics.readout_nonlinearity(outputs))
