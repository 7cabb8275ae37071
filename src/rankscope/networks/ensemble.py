"""Forward and backward pass of E rate networks of one size, each with its own weights and trials, by batched products.

The equation is that of `recurrence.py` (current convention, one nonlinearity). One network of a few hundred units is
too small for a GPU; on a processor E networks exceed the cache, and one process a core is faster. With delta[t] the
gradient of the loss with respect to the state h[t]:

    delta[t] = phi'(h[t]) (W_out^T dz[t-1] + dt W^T delta[t+1]) + (1-dt) delta[t+1]
    dL/dW = dt sum_t delta[t+1] r[t]^T
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rankscope.networks.nonlinearities import Nonlinearity
from rankscope.networks.recurrence import Dynamics, Weights


def can_run_together(dynamics: Dynamics) -> bool:
    """Return whether `ensemble` implements these dynamics."""
    phi = dynamics.nonlinearity
    same = dynamics.readout_nonlinearity is phi
    return dynamics.convention == "current" and isinstance(phi, Nonlinearity) and same


def ensemble(inputs: Tensor, weights: Weights, dynamics: Dynamics) -> Tensor:
    """Return the outputs (E, batch, time, out) of E networks; differentiable once with respect to the weights.

    Parameters
    ----------
    inputs
        (E, batch, time, in).
    weights
        (E, N, in), (E, N, N), (E, out, N), and twice (E, N) or None.
    """
    outputs: Tensor = _Ensemble.apply(inputs, *weights[:5], dynamics)  # type: ignore[no-untyped-call]
    return outputs


class _Ensemble(torch.autograd.Function):
    """States and rates are (time, E, batch, N), so that a step is contiguous."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        W_in: Tensor,
        W: Tensor,
        W_out: Tensor,
        b: Tensor | None,
        h0: Tensor | None,
        d: Dynamics,
    ) -> Tensor:
        phi: Any = d.nonlinearity
        rows = inputs.transpose(1, 2).flatten(1, 2)
        drive = torch.bmm(rows, W_in.mT * d.dt)
        if b is not None:
            drive += (b * d.dt)[:, None]
        states = _by_step(drive, inputs.shape[2])
        rates = states.new_empty(len(states) + 1, *states.shape[1:])
        h = states.new_zeros(states.shape[1:]) if h0 is None else h0[:, None].expand(states.shape[1:]).contiguous()
        phi.into(h, rates[0])
        forth = W.mT * d.dt
        for now, r, r_next in zip(states.unbind(), rates[:-1].unbind(), rates[1:].unbind(), strict=True):
            torch.baddbmm(now, r, forth, out=now)
            now.add_(h, alpha=1 - d.dt)
            phi.into(now, r_next)
            h = now
        ctx.save_for_backward(rows, rates, W, W_out)
        ctx.dynamics = d
        outputs = torch.bmm(_by_network(rates[1:]), W_out.mT)
        return outputs.view(len(W), len(states), -1, outputs.shape[-1]).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, rates, W, W_out = ctx.saved_tensors
        dt, phi = ctx.dynamics.dt, ctx.dynamics.nonlinearity
        _, needs_W_in, needs_W, needs_W_out, needs_b, needs_h0, _ = ctx.needs_input_grad
        grad = grad.transpose(1, 2).flatten(1, 2)
        deltas = _by_step(torch.bmm(grad, W_out), len(rates) - 1)
        back = W * dt
        later: Tensor | None = None
        for now, r in zip(reversed(deltas.unbind()), reversed(rates[1:].unbind()), strict=True):
            if later is not None:
                torch.baddbmm(now, later, back, out=now)
            phi.backward_into(now, r, now)
            if later is not None:
                now.add_(later, alpha=1 - dt)
            later = now
        delta, h0_grad = _by_network(deltas), None
        if needs_h0:
            initial = torch.bmm(deltas[0], back)
            phi.backward_into(initial, rates[0], initial)
            h0_grad = initial.add_(deltas[0], alpha=1 - dt).sum(1)
        return (
            None,
            torch.bmm(delta.mT, rows).mul_(dt) if needs_W_in else None,
            torch.bmm(delta.mT, _by_network(rates[:-1])).mul_(dt) if needs_W else None,
            torch.bmm(grad.mT, _by_network(rates[1:])) if needs_W_out else None,
            delta.sum(1).mul_(dt) if needs_b else None,
            h0_grad,
            None,
        )


def _by_step(x: Tensor, steps: int) -> Tensor:
    """Return (E, time * batch, N) as (time, E, batch, N), contiguous."""
    return x.view(len(x), steps, -1, x.shape[-1]).transpose(0, 1).contiguous()


def _by_network(x: Tensor) -> Tensor:
    """Return (time, E, batch, N) as (E, time * batch, N)."""
    return x.transpose(0, 1).flatten(1, 2)
