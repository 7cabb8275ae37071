"""Steps of any network that has `step(state, inputs)`, and its states along trials."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rankscope.errors import InputError
from rankscope.networks.gated import GatedRNN
from rankscope.networks.protocol import Network
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import Trials


def steps_of(network: Network) -> Any:
    """Return a copy of a network in double precision and evaluation mode, which has `step(state, inputs)`.

    Raises
    ------
    InputError
        If it has no such method.
    """
    if not callable(getattr(network, "step", None)) or not isinstance(network, nn.Module):
        raise InputError(
            f"network must have step(state, inputs), which returns the next state, got {type(network).__name__}; a "
            "RateRNN and a GatedRNN have it"
        )
    return copy.deepcopy(network).double().eval().requires_grad_(False)


def initial_state(network: Any) -> Tensor:
    """Return the state from which a network starts, (S,), in double precision.

    Raises
    ------
    InputError
        If the size of the state of a network of one's own is not known from its attribute `initial_state`.
    """
    own = getattr(network, "initial_state", None)
    if isinstance(own, Tensor):
        return own.detach().double()
    if isinstance(network, RateRNN):
        return torch.zeros(network.hidden_size, dtype=torch.float64)
    if isinstance(network, GatedRNN):
        parts = 2 if network.kind == "lstm" else 1
        return torch.zeros(network.rnn.num_layers * network.hidden_size * parts, dtype=torch.float64)
    raise InputError(
        f"network must have an attribute initial_state, a tensor (S,), got {type(network).__name__} without it"
    )


@torch.no_grad()
def trajectories(network: Network, trials: Trials) -> Tensor:
    """Return the states of a network along trials, without noise, (batch, time + 1, S) in double precision.

    Parameters
    ----------
    network
        A RateRNN, a GatedRNN, or a module with `step(state, inputs)` for states (batch, S) and inputs (batch, in), and
        a tensor `initial_state` (S,).
    trials
        Their inputs are used.

    Raises
    ------
    InputError
        If the network has no such members.
    """
    twin = steps_of(network)
    state = initial_state(network).expand(len(trials), -1)
    found = [state]
    for u in trials.inputs.double().unbind(1):
        state = twin.step(state, u)
        found.append(state)
    return torch.stack(found, 1)
