"""The equation of the rate network, in plain autograd operations.

State h (N units), rate r = phi(h), time in membrane time constants, step dt, noise increments eta:

    current convention:    h[t+1] = (1-dt) h[t] + dt (W phi(h[t]) + W_in u[t] + b) + eta[t]
                           z[t]   = W_out phi_out(h[t+1])
    rate convention:       h[t+1] = (1-dt) h[t] + dt phi(W h[t] + W_in u[t] + b) + eta[t]
                           z[t]   = phi_out(W_out h[t+1])

(Schuessler et al. 2020). With time constants tau of single units, dt is dt / tau_i in row i, at most 1; noise is scaled
by the common dt. `plain` is that equation in autograd: the definition that tests use, and
the engine for nonlinearities given as callables. `fused.py` computes the same several times faster. `RateRNN.forward`
chooses between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.networks.nonlinearities import Elementwise, Nonlinearity

Convention = Literal["current", "rate"]
Engine = Literal["auto", "fused", "plain"]


class Weights(NamedTuple):
    """The weights that can be trained: (N, in), (N, N), (out, N), and (N,) or None.

    In place of an initial state (N,), there may be one for each trial, (batch, N).
    """

    input: Tensor
    recurrent: Tensor
    output: Tensor
    bias: Tensor | None = None
    initial_state: Tensor | None = None
    tau: Tensor | None = None


@dataclass(frozen=True)
class Dynamics:
    """The fixed part of the equation: step `dt` in time constants, the two nonlinearities, the convention."""

    dt: float
    nonlinearity: Nonlinearity | Elementwise
    readout_nonlinearity: Nonlinearity | Elementwise
    convention: Convention

    @property
    def differentiated_by_hand(self) -> bool:
        """Whether the fused engine can run these dynamics."""
        # In the rate convention phi_out acts on the few output channels, outside the fused part.
        readout_is_known = self.convention == "rate" or isinstance(self.readout_nonlinearity, Nonlinearity)
        return isinstance(self.nonlinearity, Nonlinearity) and readout_is_known


class Run(NamedTuple):
    """Outputs (batch, time, out), and the states after each step (batch, time, N) if requested."""

    outputs: Tensor
    states: Tensor | None


def plain(
    inputs: Tensor,
    weights: Weights,
    dynamics: Dynamics,
    noise: Tensor | None = None,
    return_states: bool = False,
) -> Run:
    """Run the network by autograd operations alone.

    Parameters
    ----------
    inputs
        (batch, time, in).
    noise
        Increments eta, (batch, time, N), or None for a noiseless network.
    """
    phi_out = dynamics.readout_nonlinearity
    batch, steps, _ = inputs.shape
    drive = inputs @ weights.input.t()
    if weights.bias is not None:
        drive = drive + weights.bias
    h = initial_states(weights, batch)
    trajectory = []
    for t in range(steps):
        h = next_state(h, drive[:, t], weights, dynamics)
        if noise is not None:
            h = h + noise[:, t]
        trajectory.append(h)
    states = torch.stack(trajectory, dim=1)
    if dynamics.convention == "current":
        outputs = phi_out(states) @ weights.output.t()
    else:
        outputs = phi_out(states @ weights.output.t())
    return Run(outputs, states if return_states else None)


def next_state(h: Tensor, drive: Tensor, weights: Weights, dynamics: Dynamics) -> Tensor:
    """Return the state after one step without noise, (batch, N).

    Parameters
    ----------
    h
        State, (batch, N).
    drive
        W_in u + b, (batch, N).
    """
    phi, step = dynamics.nonlinearity, step_of(weights, dynamics)
    if dynamics.convention == "current":
        return (1 - step) * h + step * (phi(h) @ weights.recurrent.t() + drive)
    return (1 - step) * h + step * phi(h @ weights.recurrent.t() + drive)


def step_of(weights: Weights, dynamics: Dynamics) -> Tensor | float:
    """Return dt, or with time constants of single units min(dt / tau, 1), (N,)."""
    return dynamics.dt if weights.tau is None else dynamics.dt / weights.tau.clamp(min=dynamics.dt)


def jacobian(h: Tensor, drive: Tensor, weights: Weights, dynamics: Dynamics) -> Tensor:
    """Return the derivatives dh[t+1]_i / dh[t]_j, (batch, N, N), of `next_state`.

        current:  (1 - dt) delta_ij + dt W_ij phi'(h_j)
        rate:     (1 - dt) delta_ij + dt phi'((W h + W_in u + b)_i) W_ij

    Parameters
    ----------
    h, drive
        As in `next_state`.
    """
    current, W = dynamics.convention == "current", weights.recurrent
    argument = (h if current else h @ W.t() + drive).detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(dynamics.nonlinearity(argument).sum(), argument)
    step = torch.as_tensor(step_of(weights, dynamics), dtype=W.dtype, device=W.device).expand(len(W))
    sloped = W * slope[:, None, :] if current else slope[:, :, None] * W
    return step[:, None] * sloped + torch.diag(1 - step)


def initial_states(weights: Weights, batch: int) -> Tensor:
    """Return h[0] of every trial, (batch, N): the initial state, or zeros."""
    hidden_size = weights.recurrent.shape[0]
    if weights.initial_state is None:
        return weights.recurrent.new_zeros(batch, hidden_size)
    return weights.initial_state.expand(batch, hidden_size)


def silent_steps(inputs: Tensor, weights: Weights, dynamics: Dynamics, noise: Tensor | None) -> int:
    """Return the number of initial steps without input in which the network stays at zero.

    They can be skipped: their states, rates and outputs are exactly zero, and so is their contribution to every
    gradient but that of the inputs.

    Parameters
    ----------
    inputs
        (batch, time, in).
    """
    driven = noise is not None or weights.bias is not None or weights.initial_state is not None
    rests = all(
        isinstance(phi, Nonlinearity) and phi.zero_at_zero
        for phi in (dynamics.nonlinearity, dynamics.readout_nonlinearity)
    )
    if driven or not rests or inputs.device.type != "cpu":
        return 0
    return leading_zeros(inputs.detach().numpy().swapaxes(0, 1))


def leading_zeros(inputs: NDArray[Any]) -> int:
    """Return the number of initial steps at which all of `inputs`, (time, ...), is zero, leaving at least one step."""
    silent = 0
    while silent < len(inputs) - 1 and not inputs[silent].any():
        silent += 1
    return silent
