"""Many networks side by side, each with its own weights and its own trials, as batched products.

The equation is that of `recurrence.py` (current convention, one nonlinearity), one more axis in front: E networks of
one size. On a graphics card, where one network of a few hundred units cannot keep the multipliers busy, this is the way
to train an experiment; on a processor the networks leave the cache, and one process a core is faster. Backward is by
hand as in `fused.py`, with delta[t] the gradient of the loss with respect to the state h[t]:

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
    """Return whether `ensemble` knows these dynamics."""
    return (
        dynamics.convention == "current"
        and isinstance(dynamics.nonlinearity, Nonlinearity)
        and dynamics.readout_nonlinearity is dynamics.nonlinearity
    )


def ensemble(inputs: Tensor, weights: Weights, dynamics: Dynamics) -> Tensor:
    """Run E networks, each on its own trials; differentiable once with respect to every weight.

    Parameters
    ----------
    inputs
        (E, batch, time, in).
    weights
        (E, N, in), (E, N, N), (E, out, N), and (E, N) or None twice.
    dynamics
        The same for all; `can_run_together`.

    Returns
    -------
    Tensor
        (E, batch, time, out).
    """
    outputs: Tensor = _Ensemble.apply(inputs, *weights, dynamics)  # type: ignore[no-untyped-call]
    return outputs


class _Ensemble(torch.autograd.Function):
    """Autograd's view: what is saved, and which gradient belongs to which argument."""

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
        phi, leak = _phi(d), 1 - d.dt
        heard = _rows(inputs.transpose(1, 2))
        drive = torch.bmm(heard, W_in.mT * d.dt)
        if b is not None:
            drive += (b * d.dt)[:, None]
        states = _in_steps(drive, inputs.shape[2])
        rates = states.new_empty(len(states) + 1, *states.shape[1:])
        h = states.new_zeros(states.shape[1:]) if h0 is None else h0[:, None].expand(states.shape[1:]).contiguous()
        phi.into(h, rates[0])
        forth = W.mT * d.dt
        for now, r, r_next in zip(states.unbind(), rates[:-1].unbind(), rates[1:].unbind(), strict=True):
            torch.baddbmm(now, r, forth, out=now)
            now.add_(h, alpha=leak)
            phi.into(now, r_next)
            h = now
        ctx.save_for_backward(heard, rates, W, W_out)
        ctx.dynamics = d
        said = torch.bmm(_rows(rates[1:].transpose(0, 1)), W_out.mT)
        return said.view(len(W), len(states), -1, said.shape[-1]).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        heard, rates, W, W_out = ctx.saved_tensors
        d: Dynamics = ctx.dynamics
        phi, leak, steps = _phi(d), 1 - d.dt, len(rates) - 1
        _, needs_W_in, needs_W, needs_W_out, needs_b, needs_h0, _ = ctx.needs_input_grad
        grad = _rows(grad.transpose(1, 2))
        deltas = _in_steps(torch.bmm(grad, W_out), steps)
        back = W * d.dt
        later: Tensor | None = None
        for now, r in zip(reversed(deltas.unbind()), reversed(rates[1:].unbind()), strict=True):
            if later is not None:
                torch.baddbmm(now, later, back, out=now)
            phi.backward_into(now, r, now)
            if later is not None:
                now.add_(later, alpha=leak)
            later = now
        delta = _rows(deltas.transpose(0, 1))
        W_out_grad = torch.bmm(grad.mT, _rows(rates[1:].transpose(0, 1))) if needs_W_out else None
        W_grad = torch.bmm(delta.mT, _rows(rates[:-1].transpose(0, 1))).mul_(d.dt) if needs_W else None
        W_in_grad = torch.bmm(delta.mT, heard).mul_(d.dt) if needs_W_in else None
        b_grad = delta.sum(1).mul_(d.dt) if needs_b else None
        h0_grad = None
        if needs_h0:
            initial = torch.bmm(deltas[0], back)
            phi.backward_into(initial, rates[0], initial)
            h0_grad = initial.add_(deltas[0], alpha=leak).sum(1)
        return None, W_in_grad, W_grad, W_out_grad, b_grad, h0_grad, None


def _phi(dynamics: Dynamics) -> Nonlinearity:
    assert isinstance(dynamics.nonlinearity, Nonlinearity)
    return dynamics.nonlinearity


def _rows(x: Tensor) -> Tensor:
    """Return (E, time, batch, channels) as (E, time * batch, channels)."""
    return x.flatten(1, 2)


def _in_steps(x: Tensor, steps: int) -> Tensor:
    """Return (E, time * batch, N) as (time, E, batch, N), of which a step is one piece of memory."""
    return x.view(len(x), steps, -1, x.shape[-1]).transpose(0, 1).contiguous()
