"""The same equation as `recurrence.plain`, forward and backward by hand.

Forward keeps the rates (current convention) or the states and rates (rate convention); backward walks the
adjoint equation. With delta[t] the gradient of the loss with respect to the argument of step t:

    current:  g[t] = W_out^T dz[t-1] + dt W^T delta[t+1],       delta[t] = phi'(h[t]) g[t] + (1-dt) delta[t+1]
    rate:     g[t] = W_out^T dz[t-1] + (1-dt) g[t+1] + dt W^T delta[t+1],      delta[t] = phi'(a[t-1]) g[t]
    both:     dL/dW = dt sum_t delta[t+1] x[t]^T with x = phi(h) (current) or h (rate), as one product over all steps

What makes it fast: every buffer is allocated once and time-major; input drive, readout and the weight gradients are
one product each; inside the time loop there is one matrix product and two or three elementwise passes, in place;
the slope is read off the stored rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rankscope.networks.assembly import SLOPES
from rankscope.networks.native import AffineKernel
from rankscope.networks.nonlinearities import Nonlinearity
from rankscope.networks.products import affine, gram
from rankscope.networks.recurrence import Dynamics, Run, Weights, initial_states
from rankscope.networks.workspace import Workspace, WorkspaceKey, WorkspacePool


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
    plan = _Plan(dynamics, return_states, pool if pool is not None else WorkspacePool())
    readout, states = _Recurrence.apply(inputs, noise, *weights, plan)  # type: ignore[no-untyped-call]
    outputs = dynamics.readout_nonlinearity(readout) if dynamics.convention == "rate" else readout
    return Run(outputs, states)


@dataclass(frozen=True)
class _Plan:
    dynamics: Dynamics
    return_states: bool
    pool: WorkspacePool

    @property
    def phi(self) -> Nonlinearity:
        assert isinstance(self.dynamics.nonlinearity, Nonlinearity)
        return self.dynamics.nonlinearity

    @property
    def separate_readout(self) -> Nonlinearity | None:
        """phi_out where it acts on the states and is not phi itself."""
        d = self.dynamics
        if d.convention == "rate" or d.readout_nonlinearity is d.nonlinearity:
            return None
        assert isinstance(d.readout_nonlinearity, Nonlinearity)
        return d.readout_nonlinearity

    @property
    def keep_states(self) -> bool:
        return self.return_states or self.separate_readout is not None


class _Recurrence(torch.autograd.Function):
    """Autograd's view of the pass: what is saved, and which gradient belongs to which argument."""

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
        plan: _Plan,
    ) -> tuple[Tensor, Tensor | None]:
        batch, steps, _ = inputs.shape
        lease = plan.pool.lease(WorkspaceKey(steps, batch, W.shape[0], W.dtype, W.device))
        weights = Weights(W_in, W, W_out, b, h0)
        forward = _forward_current if plan.dynamics.convention == "current" else _forward_rate
        states, readable = forward(lease.workspace, inputs, noise, weights, plan)
        outputs = (readable.flatten(0, 1) @ W_out.t()).view(steps, batch, -1).transpose(0, 1).contiguous()
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(inputs, *weights)
            ctx.plan, ctx.lease = plan, lease
            ctx.set_materialize_grads(False)
        # A copy also where batch or time is 1 and the transpose would be contiguous: the buffer is not ours to give.
        return outputs, (
            states.transpose(0, 1).clone(memory_format=torch.contiguous_format) if plan.return_states else None
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor | None, grad_states: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, *saved = ctx.saved_tensors
        weights, plan, lease = Weights(*saved), ctx.plan, ctx.lease
        needs_input, needs_noise, needs_W_in, needs_W, needs_W_out, needs_b, needs_h0, _ = ctx.needs_input_grad
        workspace, dt = lease.workspace, plan.dynamics.dt
        grad_readout = _time_major(grad_outputs)
        W_out_grad = None
        if needs_W_out and grad_readout is not None:
            W_out_grad = grad_readout.t() @ _readable(workspace, plan).flatten(0, 1)

        _readout_gradient(workspace, grad_readout, grad_states, weights, plan)
        backward = _backward_current if plan.dynamics.convention == "current" else _backward_rate
        walked = backward(workspace, weights, plan, needs_h0, needs_noise)
        delta = _delta(workspace, plan).flatten(0, 1)

        steps, batch = walked.presynaptic.shape[:2]
        W_grad = gram(delta, walked.presynaptic.flatten(0, 1)).mul_(dt) if needs_W else None
        # (few x many) @ (many x N) is ten times faster than its transpose
        W_in_grad = (_time_major(inputs).t() @ delta).t().mul_(dt) if needs_W_in else None
        b_grad = delta.sum(0).mul_(dt) if needs_b else None
        input_grad = None
        if needs_input:
            input_grad = (delta @ weights.input).mul_(dt).view(steps, batch, -1).transpose(0, 1)
        noise_grad = walked.noise.transpose(0, 1).clone() if needs_noise and walked.noise is not None else None
        h0_grad = walked.initial.sum(0) if needs_h0 and walked.initial is not None else None
        return input_grad, noise_grad, W_in_grad, W_grad, W_out_grad, b_grad, h0_grad, None


@dataclass(frozen=True)
class _Walked:
    """What a backward walk leaves behind besides the delta buffer, all (time, batch, N) but `initial` (batch, N)."""

    presynaptic: Tensor
    initial: Tensor | None
    noise: Tensor | None


def _forward_current(
    workspace: Workspace, inputs: Tensor, noise: Tensor | None, weights: Weights, plan: _Plan
) -> tuple[Tensor, Tensor]:
    """Fill "rates" with phi(h[0..T]) and "drive" with h[1..T]; return the states and what is read out."""
    phi, dt = plan.phi, plan.dynamics.dt
    drive, rates = _drive(workspace, inputs, weights, scale=dt), workspace.buffer("rates", extra_steps=1)
    if noise is not None:
        drive.add_(noise.transpose(0, 1))
    h = initial_states(weights, drive.shape[1]).contiguous()
    step = affine(weights.recurrent * dt, rows=drive.shape[1])
    phi.into(h, rates[0])
    rate_of = phi.stepwise(drive, rates[1:])
    if isinstance(step, AffineKernel):
        step.walk_forward(rates, drive, h, 1 - dt, after=rate_of)
    else:
        for t, (now, r) in enumerate(zip(drive.unbind(), rates[:-1].unbind(), strict=True)):
            h = step(r, now, h, 1 - dt)
            rate_of(t)
    if plan.separate_readout is None:
        return drive, rates[1:]
    readable = workspace.buffer("readable")
    plan.separate_readout.into(drive, readable)
    return drive, readable


def _forward_rate(
    workspace: Workspace, inputs: Tensor, noise: Tensor | None, weights: Weights, plan: _Plan
) -> tuple[Tensor, Tensor]:
    """Fill "states" with h[0..T] and "drive" with phi(a[0..T-1]); return the states and what is read out."""
    phi, dt = plan.phi, plan.dynamics.dt
    drive, states = _drive(workspace, inputs, weights, scale=1.0), workspace.buffer("states", extra_steps=1)
    step = affine(weights.recurrent, rows=drive.shape[1])
    states[0].copy_(initial_states(weights, drive.shape[1]))
    kicks = None if noise is None else noise.transpose(0, 1)
    for t, (now, h, h_next) in enumerate(zip(drive.unbind(), states[:-1].unbind(), states[1:].unbind(), strict=True)):
        phi.into(step(h, now), now)
        torch.lerp(h, now, dt, out=h_next)
        if kicks is not None:
            h_next.add_(kicks[t])
    return states[1:], states[1:]


def _backward_current(
    workspace: Workspace, weights: Weights, plan: _Plan, needs_h0: bool, needs_noise: bool
) -> _Walked:
    phi, dt = plan.phi, plan.dynamics.dt
    rates, delta = workspace.buffer("rates", extra_steps=1), _delta(workspace, plan)
    direct = None if not plan.keep_states else workspace.buffer("direct")
    back = affine((weights.recurrent * dt).t(), rows=delta.shape[1])
    leak, backward_into = 1 - dt, phi.backward_into
    last = delta[-1]
    backward_into(last, rates[-1], last)
    if isinstance(back, AffineKernel) and phi.name in SLOPES and direct is None:
        back.walk_back(phi.name, delta, rates[1:], leak)
    else:
        if direct is not None:
            last.add_(direct[-1])
        deltas, slopes_from = delta.unbind(), rates.unbind()
        for t in range(len(deltas) - 2, -1, -1):
            now, later = deltas[t], deltas[t + 1]
            backward_into(back(later, now), slopes_from[t + 1], now)
            now.add_(later, alpha=leak)
            if direct is not None:
                now.add_(direct[t])
    initial = None
    if needs_h0:
        initial = back(delta[0], torch.zeros_like(delta[0]))
        backward_into(initial, rates[0], initial)
        initial.add_(delta[0], alpha=leak)
    return _Walked(rates[:-1], initial, delta if needs_noise else None)


def _backward_rate(workspace: Workspace, weights: Weights, plan: _Plan, needs_h0: bool, needs_noise: bool) -> _Walked:
    phi, dt = plan.phi, plan.dynamics.dt
    states, rates = workspace.buffer("states", extra_steps=1), workspace.buffer("drive")
    delta = _delta(workspace, plan)
    back = affine((weights.recurrent * dt).t(), rows=delta.shape[1])
    deltas, slopes_from = delta.unbind(), rates.unbind()
    kicks = torch.empty_like(delta) if needs_noise else None
    g: Tensor | None = None
    for t in range(len(deltas) - 1, -1, -1):
        now = deltas[t]
        g = now.clone() if g is None else back(deltas[t + 1], now, g, 1 - dt, out=g)
        if kicks is not None:
            kicks[t].copy_(g)
        phi.backward_into(g, slopes_from[t], now)
    initial = None
    if needs_h0 and g is not None:
        initial = back(deltas[0], g * (1 - dt))
    return _Walked(states[:-1], initial, kicks)


def _drive(workspace: Workspace, inputs: Tensor, weights: Weights, scale: float) -> Tensor:
    """Return the "drive" buffer holding scale * (W_in u + b) for every step, from one product."""
    drive = workspace.buffer("drive")
    flat, W_in = drive.flatten(0, 1), weights.input.t()
    if weights.bias is None:
        torch.mm(_time_major(inputs), W_in * scale, out=flat)
    else:
        torch.addmm(weights.bias * scale, _time_major(inputs), W_in * scale, out=flat)
    return drive


def _delta(workspace: Workspace, plan: _Plan) -> Tensor:
    """Return the buffer of the adjoint: the one of the states, where the backward pass has no use for them."""
    states_are_free = plan.dynamics.convention == "current" and not plan.keep_states
    return workspace.buffer("drive" if states_are_free else "delta")


def _readable(workspace: Workspace, plan: _Plan) -> Tensor:
    """Return what W_out reads, (time, batch, N), as the forward pass left it."""
    if plan.dynamics.convention == "rate":
        return workspace.buffer("states", extra_steps=1)[1:]
    if plan.separate_readout is not None:
        return workspace.buffer("readable")
    return workspace.buffer("rates", extra_steps=1)[1:]


def _readout_gradient(
    workspace: Workspace,
    grad_readout: Tensor | None,
    grad_states: Tensor | None,
    weights: Weights,
    plan: _Plan,
) -> None:
    """Start the adjoint: gradients with respect to the rates into "delta", to the states directly into "direct".

    In the rate convention W_out reads the states themselves, so both go into "delta".
    """
    delta = _delta(workspace, plan)
    if grad_readout is None:
        delta.zero_()
    else:
        torch.mm(grad_readout, weights.output, out=delta.flatten(0, 1))
    states_part = None if grad_states is None else grad_states.transpose(0, 1)
    if plan.dynamics.convention == "rate":
        if states_part is not None:
            delta.add_(states_part)
    elif plan.keep_states:
        direct = workspace.buffer("direct")
        if plan.separate_readout is not None:
            plan.separate_readout.backward_into(delta, workspace.buffer("readable"), direct)
            delta.zero_()
        else:
            direct.zero_()
        if states_part is not None:
            direct.add_(states_part)


def _time_major(x: Tensor | None) -> Any:
    """Return (batch, time, channels) as (time * batch, channels)."""
    return None if x is None else x.transpose(0, 1).flatten(0, 1)
