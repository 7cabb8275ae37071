"""Penalties that are added to the loss: on rates, on measured weights, or functions of the user.

| name | penalty |
|---|---|
| rates_l2 | mean of r^2 over trials, steps and units |
| weights_l1 | sum of the absolute values of the measured weights |
| weights_l2 | sum of their squares |
| weights_nuclear | sum of their singular values, which favors weights of low rank |

The measured weights are the effective ones (`networks.matrices_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.networks.gated import GatedRNN
from rankscope.networks.protocol import Network, matrices_of, run
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import Trials
from rankscope.user_code import check_source, describe_user_code, load_user_code
from rankscope.validation import choice, number

Penalty = Callable[[Network, Tensor | None], Tensor]
"""A function of the network and its rates (batch, time, N), None where it returns no states, to a scalar tensor."""
Penalties = dict[str | Penalty, float]

PENALTIES = ("rates_l2", "weights_l1", "weights_l2", "weights_nuclear")


def find_penalties(name: str, value: Any) -> Penalties:
    """Return penalties with their strengths, from a mapping or from what `describe_penalties` returned.

    Raises
    ------
    InputError
        If a penalty is unknown or a strength is not a number >= 0.
    """
    sources: dict[Any, str | None] = {}
    if isinstance(value, list | tuple) and all(isinstance(one, Mapping) and "strength" in one for one in value):
        sources = {one.get("function"): one.get("source") for one in value}
        value = {one.get("name", one.get("function")): one["strength"] for one in value}
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be a mapping such as {{'weights_l1': 1e-4}}, got {value!r:.200}")
    found: Penalties = {}
    for penalty, strength in value.items():
        loaded = load_user_code(name, penalty) if isinstance(penalty, str) and ":" in penalty else penalty
        if not callable(loaded):
            loaded = choice(name, loaded, [*PENALTIES, "file.py:function"])
        elif isinstance(penalty, str):
            check_source(name, penalty, loaded, sources.get(penalty))
        found[loaded] = number(f"{name}.{penalty}", strength, minimum=0)
    return found


def describe_penalties(penalties: Penalties, *, absolute: bool = False) -> list[dict[str, Any]]:
    """Return penalties as plain values, a function by its reference and a hash of its source."""
    return [
        {
            **({"name": one} if isinstance(one, str) else describe_user_code(one, absolute=absolute)),
            "strength": strength,
        }
        for one, strength in penalties.items()
    ]


def penalized(
    network: Network, trials: Trials, rng: Any, penalties: Penalties, matrices: Iterable[str]
) -> tuple[Tensor, Tensor]:
    """Return the outputs of a network, and the sum of its penalties.

    Raises
    ------
    InputError
        If rates are penalized and the network does not return states, or a function returns no scalar.
    """
    outputs, rates = _outputs_and_rates(network, trials, rng)
    weights = list(matrices_of(network, matrices).values())
    total = outputs.new_zeros(())
    for penalty, strength in penalties.items():
        if callable(penalty):
            value = penalty(network, rates)
            if not isinstance(value, Tensor) or value.ndim:
                got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise InputError(f"penalties must return a scalar tensor, got {got}")
        elif penalty == "rates_l2":
            value = _mean_square(rates, trials)
        else:
            value = torch.stack([_of_weights(penalty, W) for W in weights]).sum()
        total = total + strength * value
    return outputs, total


def _of_weights(penalty: str, W: Tensor) -> Tensor:
    if penalty == "weights_nuclear":
        norm: Tensor = torch.linalg.matrix_norm(W, "nuc")
        return norm
    return W.abs().sum() if penalty == "weights_l1" else W.square().sum()


def _outputs_and_rates(network: Network, trials: Trials, rng: Any) -> tuple[Tensor, Tensor | None]:
    if isinstance(network, RateRNN):
        outputs, states = network(trials.inputs, rng=rng, return_states=True)
        current = network.dynamics.convention == "current"
        return outputs, network.dynamics.nonlinearity(states) if current else states
    if isinstance(network, GatedRNN) and network.readout_steps == "every":
        network_with_states: Any = _WithStates(network)
        found = run(network_with_states, trials.inputs, rng, trials.lengths)
    else:
        found = run(network, trials.inputs, rng, trials.lengths)
    return found.outputs, found.states


class _WithStates:
    """A gated network that returns its states."""

    def __init__(self, network: GatedRNN) -> None:
        self._network = network
        self.parameters, self.modules = network.parameters, network.modules

    def __call__(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return outputs and states."""
        outputs, states = self._network(inputs, return_states=True)
        return {"outputs": outputs, "states": states}


def _mean_square(rates: Tensor | None, trials: Trials) -> Tensor:
    if rates is None:
        raise InputError(
            "penalties must not have rates_l2 for a network that does not return its rates; return (outputs, rates)"
        )
    if trials.lengths is None:
        return rates.square().mean()
    inside = torch.arange(rates.shape[1], device=rates.device) < trials.lengths.to(rates.device)[:, None]
    return rates[inside].square().mean()
