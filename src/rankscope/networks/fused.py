"""The equation of `recurrence.plain` as an autograd function; the passes are in `forward_backward.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rankscope.networks import forward_backward
from rankscope.networks.forward_backward import Incoming, Plan, Wanted, time_major
from rankscope.networks.recurrence import Dynamics, Run, Weights
from rankscope.networks.workspace import Lease, WorkspaceKey, WorkspacePool


def fused(
    inputs: Tensor,
    weights: Weights,
    dynamics: Dynamics,
    noise: Tensor | None = None,
    return_states: bool = False,
    pool: WorkspacePool | None = None,
) -> Run:
    """Run the network, differentiable once with respect to inputs, noise and every weight.

    Parameters
    ----------
    inputs
        (batch, time, in).
    noise
        Increments eta, (batch, time, N), or None.
    pool
        Where the buffers come from; None allocates fresh ones.
    """
    silent = 0 if inputs.requires_grad else forward_backward.silent_steps(inputs, weights, dynamics, noise)
    key = WorkspaceKey(inputs.shape[1], inputs.shape[0], weights.recurrent.shape[0], inputs.dtype, inputs.device)
    lease = (pool if pool is not None else WorkspacePool()).lease(key, inputs.shape[1] - silent)
    plan = Plan(dynamics, return_states)
    heard = inputs[:, silent:] if silent else inputs
    readout, states = _Recurrence.apply(heard, noise, *weights, plan, lease)  # type: ignore[no-untyped-call]
    outputs = dynamics.readout_nonlinearity(readout) if dynamics.convention == "rate" else readout
    return Run(_after_silence(outputs, silent), None if states is None else _after_silence(states, silent))


class _Recurrence(torch.autograd.Function):
    """What is saved, and which gradient belongs to which argument."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        noise: Tensor | None,
        W_in: Tensor,
        W: Tensor,
        W_out: Tensor,
        b: Tensor | None,
        h0: Tensor | None,
        plan: Plan,
        lease: Lease,
    ) -> tuple[Tensor, Tensor | None]:
        batch, steps, _ = inputs.shape
        weights, heard = Weights(W_in, W, W_out, b, h0), time_major(inputs)
        outputs = inputs.new_empty(batch, steps, len(W_out))
        states = forward_backward.forward(lease.workspace, heard, noise, weights, plan, outputs)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(heard, *weights)
            ctx.plan, ctx.lease = plan, lease
            ctx.set_materialize_grads(False)
        # A copy also where batch or time is 1 and the transpose would be contiguous: the buffer is not ours to give.
        return outputs, (
            states.transpose(0, 1).clone(memory_format=torch.contiguous_format) if plan.return_states else None
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor | None, grad_states: Tensor | None) -> tuple[Tensor | None, ...]:
        heard, *saved = ctx.saved_tensors
        grads = Incoming(grad_outputs, grad_states)
        wanted = Wanted(*ctx.needs_input_grad[:-2])
        found = forward_backward.backward(ctx.lease.workspace, heard, grads, Weights(*saved), ctx.plan, wanted)
        return *found, None, None


def _after_silence(x: Tensor, silent: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, 0, silent, 0)) if silent else x
