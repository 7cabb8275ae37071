"""What a network has to offer so that it can be trained and measured: the contract, stated once.

Any `torch.nn.Module` will do whose `forward` takes inputs (batch, time, in) and returns outputs (batch, time, out).
What it may say about itself besides, and what is assumed where it does not:

* `forward(inputs, rng=...)`: an `rng` among its arguments is given the numpy Generator of the training. A network
  without one may use torch's own randomness (dropout, say), which is then seeded from that Generator and put back.
* `recurrent_names()`: names of the parameters whose change is looked at. Otherwise they are found by their names and
  shapes, see `recurrent_names` below.
* `hidden_size`: N, of which the default learning rate is 0.05 / N. Otherwise it is the number of columns of the first
  of these matrices.
* `architecture()`: plain values by name that a checkpoint holds against another network. Otherwise it is the name of
  the class.

Parameters with `requires_grad` are those that learn.
"""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rankscope.errors import InputError
from rankscope.validation import RngLike, choice, generator


@runtime_checkable
class Network(Protocol):
    """What is asked of a network; every `torch.nn.Module` has all of it."""

    @property
    def __call__(self) -> Any:
        """Calling it with inputs (batch, time, in) returns outputs (batch, time, out)."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters; those with `requires_grad` learn."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the same with their names."""
        ...

    def buffers(self) -> Iterator[Tensor]:
        """Yield what else running it changes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that a checkpoint has to keep, by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take back what `state_dict` returned."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """Yield it and all in it."""
        ...


def check_network(name: str, value: object) -> None:
    """Raise `InputError` unless `value` can be trained."""
    if isinstance(value, type) or not isinstance(value, Network):
        got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise InputError(f"{name} must be a network: a RateRNN, a GatedRNN or a torch.nn.Module, got {got}")


def outputs_of(network: Network, inputs: Tensor, rng: RngLike = None) -> Tensor:
    """Return what `network` makes of `inputs`, with all its randomness from `rng`.

    Parameters
    ----------
    inputs
        (batch, time, in); converted to the type of the network's weights.

    Returns
    -------
    (batch, time, out).

    Raises
    ------
    InputError
        If the network returns something else.
    """
    if _takes_rng(type(network)):
        outputs = network(inputs, rng=rng)
    else:
        like = next(network.parameters(), inputs)
        with _torch_seeded(rng, like.device):
            outputs = network(inputs.to(like))
    if not isinstance(outputs, Tensor) or outputs.shape[:-1] != inputs.shape[:-1]:
        got = f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(
            f"network must return a tensor ({inputs.shape[0]}, {inputs.shape[1]}, out) for inputs "
            f"{tuple(inputs.shape)}, got {got}"
            + ("; torch's RNN, GRU and LSTM also return their last state" if isinstance(outputs, tuple) else "")
        )
    return outputs


def recurrent_names(network: Network, wanted: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the names of the matrices whose change is looked at.

    Parameters
    ----------
    wanted
        Names of parameters, or patterns such as ``"*.weight_hh_l*"``. By default what the network itself says in
        `recurrent_names()`; else all matrices called `recurrent_weights` or, as torch does, `weight_hh...`; else all
        square ones; else all.

    Raises
    ------
    InputError
        If a name fits no matrix of the network, or it has none.
    """
    matrices = {name: weights for name, weights in network.named_parameters() if weights.ndim == 2}
    if not matrices:
        raise InputError("network must have a matrix among its parameters, got none")
    if wanted is None and hasattr(network, "recurrent_names"):
        wanted = network.recurrent_names()
    if wanted is not None:
        return _fitting(wanted, list(matrices))
    ends = {name: name.rpartition(".")[2] for name in matrices}
    called_so = [name for name, end in ends.items() if end == "recurrent_weights" or end.startswith("weight_hh")]
    square = [name for name, weights in matrices.items() if weights.shape[0] == weights.shape[1] > 1]
    return tuple(called_so or square or matrices)


def hidden_size_of(network: Network) -> int:
    """Return N: what the network says, or the number of columns of its first recurrent matrix."""
    said = getattr(network, "hidden_size", None)
    if isinstance(said, int):
        return said
    return int(dict(network.named_parameters())[recurrent_names(network)[0]].shape[1])


def architecture_of(network: Network) -> dict[str, Any]:
    """Return what a checkpoint should hold against another network, as plain values."""
    if hasattr(network, "architecture"):
        described: dict[str, Any] = network.architecture()
        return described
    return {"class": type(network).__qualname__}


@contextmanager
def evaluating(network: Network) -> Iterator[None]:
    """Put `network` into torch's evaluation mode (no dropout) for the time of a `with` block."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _fitting(wanted: Iterable[str], names: list[str]) -> tuple[str, ...]:
    if isinstance(wanted, str):
        raise InputError(f"matrices must be a list of names, got the text {wanted!r}; write [{wanted!r}]")
    chosen: set[str] = set()
    for pattern in wanted:
        chosen.update(fnmatch.filter(names, pattern) or [choice("matrices", pattern, names)])
    if not chosen:
        raise InputError("matrices must name at least one matrix, got none")
    return tuple(name for name in names if name in chosen)


@lru_cache
def _takes_rng(kind: type) -> bool:
    return "rng" in inspect.signature(kind.forward if hasattr(kind, "forward") else kind.__call__).parameters


@contextmanager
def _torch_seeded(rng: RngLike, device: torch.device) -> Iterator[None]:
    """Seed torch's own randomness from `rng` for the time of a `with` block."""
    seed = int(generator(rng).integers(2**63 - 1))
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device], device_type="cuda"):
        torch.manual_seed(seed)
        yield
