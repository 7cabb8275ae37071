"""One pass of a rate network through time and back, by hand, in buffers that were allocated before.

Forward keeps the rates (current convention) or the states and rates (rate convention); backward walks the
adjoint equation. With delta[t] the gradient of the loss with respect to the argument of step t:

    current:  g[t] = W_out^T dz[t-1] + dt W^T delta[t+1],       delta[t] = phi'(h[t]) g[t] + (1-dt) delta[t+1]
    rate:     g[t] = W_out^T dz[t-1] + (1-dt) g[t+1] + dt W^T delta[t+1],      delta[t] = phi'(a[t-1]) g[t]
    both:     dL/dW = dt sum_t delta[t+1] x[t]^T with x = phi(h) (current) or h (rate), as one product over all steps

What makes it fast: every buffer is allocated once and time-major; the weight gradients are one product each; inside
the time loop there is one matrix product, in which the few channels of the input (backward: of the readout) ride along
where the compiled kernels fit, and one or two elementwise passes, in place; what is read out is read while it is in the
cache; the slope is read off the stored rates; first steps in which nothing is heard yet are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rankscope.networks.kernels.dispatch import Affine, affine, driven, grams
from rankscope.networks.kernels.tile import SLOPES
from rankscope.networks.nonlinearities import Nonlinearity
from rankscope.networks.recurrence import Dynamics, Weights, initial_states
from rankscope.networks.workspace import Workspace


@dataclass(frozen=True)
class Plan:
    """What is to be computed besides the outputs."""

    dynamics: Dynamics
    return_states: bool

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


class Incoming:
    """Gradients of the loss with respect to what was read out and to the states, (batch, time, out or N), or None.

    Attributes
    ----------
    readout
        (time * batch, out), contiguous.
    readout_before
        The same one step later: what is read out of what each step hears, which is nothing in the first.
    """

    def __init__(self, readout: Tensor | None, states: Tensor | None = None) -> None:
        self.states = states
        self.readout = self.readout_before = None
        if readout is not None:
            batch, steps, channels = readout.shape
            later = readout.new_empty(steps + 1, batch, channels)
            later[0].zero_()
            later[1:].copy_(readout.transpose(0, 1))
            self.readout, self.readout_before = later[1:].flatten(0, 1), later[:-1].flatten(0, 1)


class Wanted(NamedTuple):
    """Of what the gradient is wanted."""

    inputs: bool
    noise: bool
    input_weights: bool
    recurrent_weights: bool
    output_weights: bool
    bias: bool
    initial_state: bool


class Gradients(NamedTuple):
    """What was wanted, in the shapes of what it is the gradient of; None for the rest."""

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
    """Run the network; return its states, (time, batch, N) and in the workspace.

    Parameters
    ----------
    inputs
        (time * batch, in), see `time_major`.
    noise
        Increments eta, (batch, time, N), or None.
    outputs
        (batch, time, out), where what W_out reads goes; its channels lie side by side.
    """
    walk = _forward_current if plan.dynamics.convention == "current" else _forward_rate
    return walk(workspace, inputs, noise, weights, plan, outputs)


def backward(
    workspace: Workspace,
    inputs: Tensor,
    grads: Incoming,
    weights: Weights,
    plan: Plan,
    wanted: Wanted,
    into: Tensor | None = None,
) -> Gradients:
    """Walk the adjoint equation in the workspace that `forward` left.

    Parameters
    ----------
    inputs, weights, plan
        As in `forward`.
    into
        (N, N) memory for the gradient of the recurrent weights; fresh one by default.
    """
    dt = plan.dynamics.dt
    output_grad = None
    if plan.separate_readout is not None and grads.readout is not None:
        output_grad = grads.readout.t() @ workspace.buffer("readable").flatten(0, 1)
    walk = _backward_current if plan.dynamics.convention == "current" else _backward_rate
    walked = walk(workspace, grads, weights, plan, wanted.initial_state, wanted.noise)
    delta, steps, batch = _delta(workspace, plan).flatten(0, 1), *walked.presynaptic.shape[:2]
    said = grads if grads.readout is not None else Incoming(delta.new_zeros(batch, steps, len(weights.output)))
    assert said.readout is not None
    assert said.readout_before is not None
    found = grams(delta, walked.presynaptic.flatten(0, 1), inputs, said.readout_before, into)
    if plan.separate_readout is None:
        output_grad = found.beside_right.addmm_(said.readout[-batch:].t(), walked.last)
    return Gradients(
        inputs=(delta @ weights.input).mul_(dt).view(steps, batch, -1).transpose(0, 1) if wanted.inputs else None,
        noise=walked.noise.transpose(0, 1).clone() if wanted.noise and walked.noise is not None else None,
        input_weights=found.beside_left.t().mul_(dt) if wanted.input_weights else None,
        recurrent_weights=found.between.mul_(dt) if wanted.recurrent_weights else None,
        output_weights=output_grad if wanted.output_weights else None,
        bias=delta.sum(0).mul_(dt) if wanted.bias else None,
        initial_state=walked.initial.sum(0) if walked.initial is not None else None,
    )


def silent_steps(inputs: Tensor, weights: Weights, dynamics: Dynamics, noise: Tensor | None) -> int:
    """Return in how many first steps nothing is heard and the network rests at zero: they need not be computed.

    Their states, rates and outputs are exactly zero, and so is what they add to every gradient but that of the inputs.

    Parameters
    ----------
    inputs
        (batch, time, in).
    """
    moved = noise is not None or weights.bias is not None or weights.initial_state is not None
    rests = all(
        isinstance(phi, Nonlinearity) and phi.zero_at_zero
        for phi in (dynamics.nonlinearity, dynamics.readout_nonlinearity)
    )
    if moved or not rests or inputs.device.type != "cpu":
        return 0
    heard, silent = inputs.detach().numpy(), 0
    while silent < len(heard[0]) - 1 and not heard[:, silent].any():
        silent += 1
    return silent


def time_major(x: Tensor) -> Tensor:
    """Return (batch, time, channels) as (time * batch, channels), contiguous."""
    return x.transpose(0, 1).flatten(0, 1).contiguous()


@dataclass(frozen=True)
class _Walked:
    """What a backward walk leaves behind besides the delta buffer.

    What the recurrent weights read in each step, (time, batch, N), and what nothing but W_out reads any more, (batch,
    N); gradients of the initial state, (batch, N), and of the noise, (time, batch, N).
    """

    presynaptic: Tensor
    last: Tensor
    initial: Tensor | None
    noise: Tensor | None


def _forward_current(
    workspace: Workspace, inputs: Tensor, noise: Tensor | None, weights: Weights, plan: Plan, outputs: Tensor
) -> Tensor:
    """Fill "rates" with phi(h[0..T]) and "drive" with h[1..T]."""
    phi, dt = plan.phi, plan.dynamics.dt
    drive, rates = workspace.buffer("drive"), workspace.buffer("rates", extra_steps=1)
    h, rows = initial_states(weights, drive.shape[1]).contiguous(), drive.shape[1]
    phi.into(h, rates[0])
    rate_of = phi.stepwise(drive, rates[1:])
    heard, channels = _heard(inputs, weights)
    simple = noise is None and plan.separate_readout is None
    walk = driven(weights.recurrent * dt, channels * dt) if simple else None
    if walk is not None:
        readout = weights.output.contiguous()
        walk.walk_forward(rates, heard, drive, h, 1 - dt, after=rate_of, readout=readout, out=outputs)
        return drive
    torch.mm(heard, channels.t() * dt, out=drive.flatten(0, 1))
    if noise is not None:
        drive.add_(noise.transpose(0, 1))
    step = affine(weights.recurrent * dt, rows)
    for t, (now, r) in enumerate(zip(drive.unbind(), rates[:-1].unbind(), strict=True)):
        h = step(r, now, h, 1 - dt)
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
    heard, channels = _heard(inputs, weights)
    torch.mm(heard, channels.t(), out=drive.flatten(0, 1))
    step = affine(weights.recurrent, rows=drive.shape[1])
    states[0].copy_(initial_states(weights, drive.shape[1]))
    kicks = None if noise is None else noise.transpose(0, 1)
    for t, (now, h, h_next) in enumerate(zip(drive.unbind(), states[:-1].unbind(), states[1:].unbind(), strict=True)):
        phi.into(step(h, now), now)
        torch.lerp(h, now, dt, out=h_next)
        if kicks is not None:
            h_next.add_(kicks[t])
    _read_out(states[1:], weights, outputs)
    return states[1:]


def _read_out(readable: Tensor, weights: Weights, outputs: Tensor) -> None:
    """Write W_out times `readable` (time, batch, N) into `outputs` (batch, time, out)."""
    said = readable.flatten(0, 1) @ weights.output.t()
    outputs.copy_(said.view(*readable.shape[:2], -1).transpose(0, 1))


def _backward_current(
    workspace: Workspace, grads: Incoming, weights: Weights, plan: Plan, needs_h0: bool, needs_noise: bool
) -> _Walked:
    phi, dt = plan.phi, plan.dynamics.dt
    rates, delta = workspace.buffer("rates", extra_steps=1), _delta(workspace, plan)
    leak, backward_into, rows = 1 - dt, phi.backward_into, delta.shape[1]
    last = delta[-1]
    walk = None
    if grads.readout is not None and phi.name in SLOPES and not plan.keep_states:
        walk = driven((weights.recurrent * dt).t(), weights.output.t())
    if walk is not None and grads.readout is not None:
        torch.mm(grads.readout[-rows:], weights.output, out=last)
        backward_into(last, rates[-1], last)
        walk.walk_back(phi.name, delta, grads.readout, rates[1:], leak)
        back: Affine = walk
    else:
        _readout_gradient(workspace, grads, weights, plan)
        direct = None if not plan.keep_states else workspace.buffer("direct")
        back = affine((weights.recurrent * dt).t(), rows)
        backward_into(last, rates[-1], last)
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
    return _Walked(rates[:-1], rates[-1], initial, delta if needs_noise else None)


def _backward_rate(
    workspace: Workspace, grads: Incoming, weights: Weights, plan: Plan, needs_h0: bool, needs_noise: bool
) -> _Walked:
    _readout_gradient(workspace, grads, weights, plan)
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
    return _Walked(states[:-1], states[-1], initial, kicks)


def _heard(inputs: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """Return what the units hear, (time * batch, C), and how, (N, C): the inputs, and a constant for the bias."""
    if weights.bias is None:
        return inputs, weights.input
    return torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1), torch.cat([weights.input, weights.bias[:, None]], 1)


def _delta(workspace: Workspace, plan: Plan) -> Tensor:
    """Return the buffer of the adjoint: the one of the states, where the backward pass has no use for them."""
    states_are_free = plan.dynamics.convention == "current" and not plan.keep_states
    return workspace.buffer("drive" if states_are_free else "delta")


def _readout_gradient(workspace: Workspace, grads: Incoming, weights: Weights, plan: Plan) -> None:
    """Start the adjoint: gradients with respect to the rates into "delta", to the states directly into "direct".

    In the rate convention W_out reads the states themselves, so both go into "delta".
    """
    delta = _delta(workspace, plan)
    if grads.readout is None:
        delta.zero_()
    else:
        torch.mm(grads.readout, weights.output, out=delta.flatten(0, 1))
    states_part = None if grads.states is None else grads.states.transpose(0, 1)
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
