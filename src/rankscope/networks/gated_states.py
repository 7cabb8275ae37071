"""Single steps of a gated network from given states, (batch, S).

A state holds h of all layers one after the other, and for an LSTM then c of all layers: S is layers times N, or twice
that. The cells are torch's own (`torch.gru_cell` and its like).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rankscope.errors import InputError

if TYPE_CHECKING:
    from rankscope.networks.gated import GatedRNN

_CELLS: dict[str, Any] = {"rnn": torch.rnn_tanh_cell, "gru": torch.gru_cell, "lstm": torch.lstm_cell}


def torch_state(network: GatedRNN, state: Tensor, batch: int) -> Any:
    """Return a state (S,) or (batch, S) in the form of torch's layers: (layers, batch, N), for an LSTM two of them."""
    parts = _parts(network, _checked("initial_state", network, state, batch).expand(batch, -1))
    count = network.rnn.num_layers
    h, c = (torch.stack(parts[:count]), torch.stack(parts[count:]) if parts[count:] else None)
    return h if c is None else (h, c)


def gated_step(network: GatedRNN, state: Tensor, inputs: Tensor | None) -> Tensor:
    """Return the state after one step; see `GatedRNN.step`."""
    states = _checked("state", network, state)
    batch, channels = states.reshape(-1, states.shape[-1]).shape[0], network.input_size
    given = states.new_zeros(channels) if inputs is None else inputs
    if not isinstance(given, Tensor) or tuple(given.shape) not in ((channels,), (batch, channels)):
        got = f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise InputError(f"inputs must be a tensor ({channels},) or ({batch}, {channels}), got {got}")
    x = given.expand(batch, channels)
    words = network.embedding
    x = x.to(states) if words is None else torch.nn.functional.embedding(x[:, 0].long(), words)
    parts, count = _parts(network, states.reshape(batch, -1)), network.rnn.num_layers
    found: list[Tensor] = []
    cells: list[Tensor] = []
    for layer in range(count):
        weights = [
            getattr(network.rnn, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        h: Any = (parts[layer], parts[count + layer]) if network.kind == "lstm" else parts[layer]
        after = _CELLS[network.kind](x, h, *weights)
        x = after[0] if network.kind == "lstm" else after
        found.append(x)
        cells += [after[1]] if network.kind == "lstm" else []
    return torch.cat([*found, *cells], 1).reshape(states.shape)


def gated_jacobian(network: GatedRNN, state: Tensor, inputs: Tensor | None) -> Tensor:
    """Return the derivatives of `gated_step`; see `GatedRNN.jacobian`."""
    states = _checked("state", network, state).detach()
    rows = states.reshape(-1, states.shape[-1])
    batch, size = rows.shape
    given = [inputs] * batch if inputs is None or inputs.ndim == 1 else list(inputs)
    found = []
    for row, u in zip(rows, given, strict=True):
        copies = row.expand(size, size).clone().requires_grad_()  # one for each entry of the next state
        with torch.enable_grad():
            total = gated_step(network, copies, u).diagonal().sum()
        found.append(torch.autograd.grad(total, copies)[0])
    return torch.stack(found).reshape(*states.shape, size)


def _parts(network: GatedRNN, states: Tensor) -> list[Tensor]:
    return [part.contiguous() for part in torch.split(states, network.hidden_size, 1)]


def _checked(name: str, network: GatedRNN, state: Tensor, batch: int | None = None) -> Tensor:
    size = network.rnn.num_layers * network.hidden_size * (2 if network.kind == "lstm" else 1)
    fits = isinstance(state, Tensor) and state.ndim in (1, 2) and state.shape[-1] == size and 0 not in state.shape
    if not fits or (batch is not None and state.ndim == 2 and len(state) != batch):
        got = f"shape {tuple(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
        raise InputError(
            f"{name} must be a tensor ({size},) or ({'batch' if batch is None else batch}, {size}), got {got}"
        )
    return state.to(network.readout.weight)
