"""What drives a rate network: validation of inputs and states, noise, and single steps from given states."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.networks.recurrence import Dynamics, Weights
from rankscope.validation import RngLike, generator

if TYPE_CHECKING:
    from rankscope.networks.rate import RateRNN


def checked_inputs(inputs: Tensor, weights: Tensor) -> Tensor:
    """Return inputs (batch, time, in) in the type of the input weights; raise `InputError` for another shape."""
    channels = weights.shape[1]
    if not isinstance(inputs, Tensor) or inputs.ndim != 3 or inputs.shape[2] != channels or 0 in inputs.shape:
        got = f"shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise InputError(f"inputs must be a non-empty tensor (batch, time, {channels}), got {got}")
    return inputs.to(weights)


def noise_increments(network: RateRNN, inputs: Tensor, rng: RngLike, noise: Tensor | None) -> Tensor | None:
    """Return the noise increments of a network, see `RateRNN.draw_noise`."""
    shape = (inputs.shape[0], inputs.shape[1], network.hidden_size)
    if noise is not None and (not isinstance(noise, Tensor) or tuple(noise.shape) != shape):
        got = f"shape {tuple(noise.shape)}" if isinstance(noise, Tensor) else type(noise).__name__
        raise InputError(f"noise must be a tensor {shape} (batch, time, N), got {got}")
    if network.noise_std == 0:
        return None
    if noise is None:
        kind = np.float64 if inputs.dtype == torch.float64 else np.float32
        noise = torch.from_numpy(generator(rng).standard_normal(shape, dtype=kind))
    return noise.to(inputs) * (math.sqrt(network.dynamics.dt) * network.noise_std)


def checked_state(state: Tensor, network: RateRNN, batch: int) -> Tensor:
    """Return a state (N,) or (batch, N) in the type of the weights; raise `InputError` for another shape."""
    N = network.hidden_size
    if not isinstance(state, Tensor) or tuple(state.shape) not in ((N,), (batch, N)):
        got = f"shape {tuple(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
        raise InputError(f"initial_state must be a tensor ({N},) or ({batch}, {N}), got {got}")
    return state.to(network.input_weights)


def by_step(
    function: Callable[[Tensor, Tensor, Weights, Dynamics], Tensor],
    network: RateRNN,
    state: Tensor,
    inputs: Tensor | None,
) -> Tensor:
    """Apply a function of state, drive, weights and dynamics to states (N,) or (batch, N).

    Raises
    ------
    InputError
        If `state` or `inputs` has the wrong shape.
    """
    weights = network.weights
    N, channels = weights.input.shape
    if not isinstance(state, Tensor) or state.ndim not in (1, 2) or state.shape[-1] != N or 0 in state.shape:
        got = f"shape {tuple(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
        raise InputError(f"state must be a tensor ({N},) or (batch, {N}), got {got}")
    states = state.to(weights.input).reshape(-1, N)
    u = states.new_zeros(channels) if inputs is None else inputs
    if not isinstance(u, Tensor) or tuple(u.shape) not in ((channels,), (len(states), channels)):
        got = f"shape {tuple(u.shape)}" if isinstance(u, Tensor) else type(u).__name__
        raise InputError(f"inputs must be a tensor ({channels},) or ({len(states)}, {channels}), got {got}")
    drive = u.to(states) @ weights.input.t()
    if weights.bias is not None:
        drive = drive + weights.bias
    found = function(states, drive.expand_as(states), weights, network.dynamics)
    return found[0] if state.ndim == 1 else found
