"""Forward and backward pass of a rate network, differentiated by hand, in preallocated buffers.

The forward pass keeps the rates (current convention) or the states and rates (rate convention); the backward pass
integrates the adjoint equation. With delta[t] the gradient of the loss with respect to the argument of step t:

    current:  g[t] = W_out^T dz[t-1] + dt W^T delta[t+1],       delta[t] = phi'(h[t]) g[t] + (1-dt) delta[t+1]
    rate:     g[t] = W_out^T dz[t-1] + (1-dt) g[t+1] + dt W^T delta[t+1],      delta[t] = phi'(a[t-1]) g[t]
    both:     dL/dW = dt sum_t delta[t+1] x[t]^T with x = phi(h) (current) or h (rate), as one product over all steps

Why it is fast: buffers are allocated once and are time-major; each weight gradient is one matrix product; the time loop
is one call of a compiled kernel where one fits (`kernels/`), else one matrix product and one or two elementwise passes
in place per step; the slope is computed from the stored rates; initial steps without input are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rankscope.networks.kernels.dispatch import Affine, affine, grams, time_loop
from rankscope.networks.nonlinearities import Nonlinearity
from rankscope.networks.recurrence import Dynamics, Weights, initial_states
from rankscope.networks.workspace import Workspace


@dataclass(frozen=True)
class Plan:
    """The dynamics, whether the states are returned besides the outputs, and whether a backward pass follows."""

    dynamics: Dynamics
    return_states: bool
    differentiated: bool = True

    @property
    def phi(self) -> Nonlinearity:
        """The nonlinearity of the units."""
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
        """Whether the states are needed once the rates are known."""
        return self.return_states or self.separate_readout is not None


class OutputGradients:
    """Gradients of the loss with respect to the readout and the states, (batch, time, out or N), or None.

    Attributes
    ----------
    readout
        (time * batch, out), contiguous.
    readout_before
        The same one step earlier, zero in the first step: the gradient with respect to the readout of the rates that
        each step starts from.
    """

    def __init__(self, readout: Tensor | None, states: Tensor | None = None) -> None:
        self.states = states
        self.readout = self.readout_before = None
        if readout is not None:
            batch, steps, channels = readout.shape
            padded = readout.new_empty(steps + 1, batch, channels)
            padded[0].zero_()
            padded[1:].copy_(readout.transpose(0, 1))
            self.readout, self.readout_before = padded[1:].flatten(0, 1), padded[:-1].flatten(0, 1)


class Needs(NamedTuple):
    """Arguments whose gradient is needed."""

    inputs: bool
    noise: bool
    input_weights: bool
    recurrent_weights: bool
    output_weights: bool
    bias: bool
    initial_state: bool


class Gradients(NamedTuple):
    """The gradients that are needed, each in the shape of its argument; None for the others."""

    inputs: Tensor | None
    noise: Tensor | None
    input_weights: Tensor | None
    recurrent_weights: Tensor | None
    output_weights: Tensor | None
    bias: Tensor | None
    initial_state: Tensor | None


def forward(
    workspace: Workspace, inputs: Tensor, noise: Tensor | None, weights: Weights, plan: Plan, outputs: Tensor
) -> Tensor:
    """Run the network; return its states (time, batch, N) in the workspace, the last only unless they are kept.

    Parameters
    ----------
    inputs
        (time * batch, in), see `time_major`.
    noise
        Increments eta, (batch, time, N), or None.
    outputs
        (batch, time, out) buffer for W_out times the rates (or states), contiguous in its channels.
    """
    run = _forward_current if plan.dynamics.convention == "current" else _forward_rate
    return run(workspace, inputs, noise, weights, plan, outputs)


def backward(
    workspace: Workspace,
    inputs: Tensor,
    grads: OutputGradients,
    weights: Weights,
    plan: Plan,
    needs: Needs,
    into: Tensor | None = None,
) -> Gradients:
    """Integrate the adjoint equation in the workspace that `forward` filled.

    Parameters
    ----------
    inputs, weights, plan
        As in `forward`.
    into
        (N, N) buffer for the gradient of the recurrent weights; allocated by default.
    """
    dt = plan.dynamics.dt
    output_grad = None
    if plan.separate_readout is not None and grads.readout is not None:
        output_grad = grads.readout.t() @ workspace.buffer("readable").flatten(0, 1)
    run = _backward_current if plan.dynamics.convention == "current" else _backward_rate
    adjoint = run(workspace, grads, weights, plan, needs.initial_state, needs.noise)
    delta, steps, batch = _delta(workspace, plan).flatten(0, 1), *adjoint.presynaptic.shape[:2]
    if grads.readout is None:
        grads = OutputGradients(delta.new_zeros(batch, steps, len(weights.output)))
    assert grads.readout is not None
    assert grads.readout_before is not None
    initial_shape = () if weights.initial_state is None else weights.initial_state.shape
    found = grams(delta, adjoint.presynaptic.flatten(0, 1), inputs, grads.readout_before, into)
    if plan.separate_readout is None:
        output_grad = found.extra_right.addmm_(grads.readout[-batch:].t(), adjoint.last)
    return Gradients(
        inputs=(delta @ weights.input).mul_(dt).view(steps, batch, -1).transpose(0, 1) if needs.inputs else None,
        noise=adjoint.noise.transpose(0, 1).clone() if needs.noise and adjoint.noise is not None else None,
        input_weights=found.extra_left.t().mul_(dt) if needs.input_weights else None,
        recurrent_weights=found.product.mul_(dt) if needs.recurrent_weights else None,
        output_weights=output_grad if needs.output_weights else None,
        bias=delta.sum(0).mul_(dt) if needs.bias else None,
        initial_state=None if adjoint.initial is None else adjoint.initial.sum_to_size(initial_shape),
    )


def time_major(x: Tensor) -> Tensor:
    """Return (batch, time, channels) as (time * batch, channels), contiguous."""
    return x.transpose(0, 1).flatten(0, 1).contiguous()


@dataclass(frozen=True)
class _Adjoint:
    """Results of the adjoint equation besides the buffer of delta.

    Attributes
    ----------
    presynaptic
        What the recurrent weights multiply in each step, (time, batch, N).
    last
        What only W_out reads, after the last step, (batch, N).
    initial, noise
        Gradients of the initial state, (batch, N), and of the noise, (time, batch, N).
    """

    presynaptic: Tensor
    last: Tensor
    initial: Tensor | None
    noise: Tensor | None


def _forward_current(
    workspace: Workspace, inputs: Tensor, noise: Tensor | None, weights: Weights, plan: Plan, outputs: Tensor
) -> Tensor:
    """Fill "rates" with phi(h[0..T]) and, where they are kept, "drive" with the states h[1..T]."""
    phi, dt, leak = plan.phi, plan.dynamics.dt, 1 - plan.dynamics.dt
    steps, batch = workspace.steps, workspace.key.batch
    h = initial_states(weights, batch).clone(memory_format=torch.contiguous_format)
    driving, channels = _driving(inputs, weights)
    simple = noise is None and plan.separate_readout is None
    loop = time_loop(phi.name, weights.recurrent, channels, dt, dt) if simple else None
    alternating = loop is not None and not plan.differentiated
    rates = h.new_empty(2, *h.shape) if alternating else workspace.buffer("rates", extra_steps=1)
    phi.into(h, rates[0])
    if loop is not None:
        states = workspace.buffer("drive") if plan.return_states else h[None]
        readout = weights.output.contiguous()
        loop.forward(phi.name, driving.view(steps, batch, -1), h, states, rates, leak, readout, outputs)
        return states
    drive = workspace.buffer("drive")
    torch.mm(driving, channels.t() * dt, out=drive.flatten(0, 1))
    if noise is not None:
        drive.add_(noise.transpose(0, 1))
    step, rate_of = affine(weights.recurrent, batch, dt), phi.stepwise(drive, rates[1:])
    for t, (now, r) in enumerate(zip(drive.unbind(), rates[:-1].unbind(), strict=True)):
        h = step(r, now, h, leak)
        rate_of(t)
    readable = rates[1:]
    if plan.separate_readout is not None:
        readable = workspace.buffer("readable")
        plan.separate_readout.into(drive, readable)
    _read_out(readable, weights, outputs)
    return drive


def _forward_rate(
    workspace: Workspace, inputs: Tensor, noise: Tensor | None, weights: Weights, plan: Plan, outputs: Tensor
) -> Tensor:
    """Fill "states" with h[0..T] and "drive" with phi(a[0..T-1])."""
    phi, dt = plan.phi, plan.dynamics.dt
    drive, states = workspace.buffer("drive"), workspace.buffer("states", extra_steps=1)
    driving, channels = _driving(inputs, weights)
    torch.mm(driving, channels.t(), out=drive.flatten(0, 1))
    step = affine(weights.recurrent, rows=drive.shape[1])
    states[0].copy_(initial_states(weights, drive.shape[1]))
    increments = None if noise is None else noise.transpose(0, 1)
    for t, (now, h, h_next) in enumerate(zip(drive.unbind(), states[:-1].unbind(), states[1:].unbind(), strict=True)):
        phi.into(step(h, now), now)
        torch.lerp(h, now, dt, out=h_next)
        if increments is not None:
            h_next.add_(increments[t])
    _read_out(states[1:], weights, outputs)
    return states[1:]


def _read_out(readable: Tensor, weights: Weights, outputs: Tensor) -> None:
    """Write W_out times `readable` (time, batch, N) into `outputs` (batch, time, out)."""
    product = readable.flatten(0, 1) @ weights.output.t()
    outputs.copy_(product.view(*readable.shape[:2], -1).transpose(0, 1))


def _backward_current(
    workspace: Workspace, grads: OutputGradients, weights: Weights, plan: Plan, needs_h0: bool, needs_noise: bool
) -> _Adjoint:
    phi, dt, leak = plan.phi, plan.dynamics.dt, 1 - plan.dynamics.dt
    rates, delta = workspace.buffer("rates", extra_steps=1), _delta(workspace, plan)
    last, batch = delta[-1], delta.shape[1]
    loop = None
    if grads.readout is not None and not plan.keep_states:
        loop = time_loop(phi.name, weights.recurrent.t(), weights.output.t(), dt)
    if loop is not None and grads.readout is not None:
        torch.mm(grads.readout[-batch:], weights.output, out=last)
        phi.backward_into(last, rates[-1], last)
        loop.adjoint(phi.name, delta, grads.readout, rates[1:], leak)
        back: Affine = loop
    else:
        _readout_gradient(workspace, grads, weights, plan)
        direct = None if not plan.keep_states else workspace.buffer("direct")
        back = affine(weights.recurrent.t(), batch, dt)
        phi.backward_into(last, rates[-1], last)
        if direct is not None:
            last.add_(direct[-1])
        deltas, slopes_from = delta.unbind(), rates.unbind()
        for t in range(len(deltas) - 2, -1, -1):
            now, later = deltas[t], deltas[t + 1]
            phi.backward_into(back(later, now), slopes_from[t + 1], now)
            now.add_(later, alpha=leak)
            if direct is not None:
                now.add_(direct[t])
    initial = None
    if needs_h0:
        initial = back(delta[0], torch.zeros_like(delta[0]))
        phi.backward_into(initial, rates[0], initial)
        initial.add_(delta[0], alpha=leak)
    return _Adjoint(rates[:-1], rates[-1], initial, delta if needs_noise else None)


def _backward_rate(
    workspace: Workspace, grads: OutputGradients, weights: Weights, plan: Plan, needs_h0: bool, needs_noise: bool
) -> _Adjoint:
    _readout_gradient(workspace, grads, weights, plan)
    phi, dt = plan.phi, plan.dynamics.dt
    states, rates = workspace.buffer("states", extra_steps=1), workspace.buffer("drive")
    delta = _delta(workspace, plan)
    back = affine(weights.recurrent.t(), delta.shape[1], dt)
    deltas, slopes_from = delta.unbind(), rates.unbind()
    noise = torch.empty_like(delta) if needs_noise else None
    g: Tensor | None = None
    for t in range(len(deltas) - 1, -1, -1):
        now = deltas[t]
        g = now.clone() if g is None else back(deltas[t + 1], now, g, 1 - dt, out=g)
        if noise is not None:
            noise[t].copy_(g)
        phi.backward_into(g, slopes_from[t], now)
    initial = None
    if needs_h0 and g is not None:
        initial = back(deltas[0], g * (1 - dt))
    return _Adjoint(states[:-1], states[-1], initial, noise)


def _driving(inputs: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """Return the driving channels (time * batch, C) and their weights (N, C); a bias is a channel of ones."""
    if weights.bias is None:
        return inputs, weights.input
    return torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1), torch.cat([weights.input, weights.bias[:, None]], 1)


def _delta(workspace: Workspace, plan: Plan) -> Tensor:
    """Return the buffer of the adjoint: that of the states, unless the backward pass needs them."""
    states_are_free = plan.dynamics.convention == "current" and not plan.keep_states
    return workspace.buffer("drive" if states_are_free else "delta")


def _readout_gradient(workspace: Workspace, grads: OutputGradients, weights: Weights, plan: Plan) -> None:
    """Start the adjoint: gradients with respect to the rates into "delta", to the states directly into "direct".

    In the rate convention W_out reads the states themselves, so both go into "delta".
    """
    delta = _delta(workspace, plan)
    if grads.readout is None:
        delta.zero_()
    else:
        torch.mm(grads.readout, weights.output, out=delta.flatten(0, 1))
    of_states = None if grads.states is None else grads.states.transpose(0, 1)
    if plan.dynamics.convention == "rate":
        if of_states is not None:
            delta.add_(of_states)
    elif plan.keep_states:
        direct = workspace.buffer("direct")
        if plan.separate_readout is not None:
            plan.separate_readout.backward_into(delta, workspace.buffer("readable"), direct)
            delta.zero_()
        else:
            direct.zero_()
        if of_states is not None:
            direct.add_(of_states)
