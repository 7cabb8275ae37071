"""The rate network as an autograd function: the equation of `recurrence.plain`, by the passes of `forward_backward`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rankscope.networks import forward_backward
from rankscope.networks.forward_backward import Needs, OutputGradients, Plan, time_major
from rankscope.networks.recurrence import Dynamics, Run, Weights, plain, silent_steps
from rankscope.networks.workspace import Lease, WorkspaceKey, WorkspacePool

if TYPE_CHECKING:
    from rankscope.networks.rate import RateRNN


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
        Pool of buffers; None allocates new ones.
    """
    silent = 0 if inputs.requires_grad else silent_steps(inputs, weights, dynamics, noise)
    key = WorkspaceKey(inputs.shape[1], inputs.shape[0], weights.recurrent.shape[0], inputs.dtype, inputs.device)
    lease = (pool if pool is not None else WorkspacePool()).lease(key, inputs.shape[1] - silent)
    plan = Plan(dynamics, return_states)
    driving = inputs[:, silent:] if silent else inputs
    readout, states = _Recurrence.apply(driving, noise, *weights[:5], plan, lease)  # type: ignore[no-untyped-call]
    outputs = dynamics.readout_nonlinearity(readout) if dynamics.convention == "rate" else readout
    return Run(_padded(outputs, silent), None if states is None else _padded(states, silent))


def integrate(
    network: RateRNN, inputs: Tensor, weights: Weights, increments: Tensor | None = None, return_states: bool = False
) -> Run:
    """Run a network with given weights and noise increments, by the fused engine where it applies.

    Parameters
    ----------
    network
        Its dynamics and engine are used, not its weights.
    inputs
        (batch, time, in), in the type of the weights.
    increments
        What is added to the state in each step, (batch, time, N), or None.
    """
    dynamics = network.dynamics
    if network.engine != "plain" and dynamics.differentiated_by_hand and weights.tau is None:
        return fused(inputs, weights, dynamics, increments, return_states, network.workspaces)
    return plain(inputs, weights, dynamics, increments, return_states)


class _Recurrence(torch.autograd.Function):
    """Forward and backward pass for autograd: saves tensors and assigns each gradient to its argument."""

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
        weights, rows = Weights(W_in, W, W_out, b, h0), time_major(inputs)
        outputs = inputs.new_empty(batch, steps, len(W_out))
        states = forward_backward.forward(lease.workspace, rows, noise, weights, plan, outputs)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(rows, *weights)
            ctx.plan, ctx.lease = plan, lease
            ctx.set_materialize_grads(False)
        # A copy also where batch or time is 1 and the transpose is contiguous: the buffer goes back to the pool.
        return outputs, (
            states.transpose(0, 1).clone(memory_format=torch.contiguous_format) if plan.return_states else None
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor | None, grad_states: Tensor | None) -> tuple[Tensor | None, ...]:
        rows, *saved = ctx.saved_tensors
        grads = OutputGradients(grad_outputs, grad_states)
        needs = Needs(*ctx.needs_input_grad[:-2])
        found = forward_backward.backward(ctx.lease.workspace, rows, grads, Weights(*saved), ctx.plan, needs)
        return *found, None, None


def _padded(x: Tensor, silent: int) -> Tensor:
    """Return (batch, time, channels) preceded by `silent` steps of zeros."""
    return torch.nn.functional.pad(x, (0, 0, silent, 0)) if silent else x
