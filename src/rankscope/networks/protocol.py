"""Interface between networks and everything that trains or measures them.

Any `torch.nn.Module` works whose `forward` maps inputs (batch, time, in) to outputs (batch, time, out), or (batch, 1,
out) if it reads out after the last step only. It may return more (`outputs.py`). Optional members, and the default for
a network without them:

* `forward(inputs, rng=...)`: receives the numpy Generator of the training. Without an argument `rng` the network may
  use torch's global generator (dropout, for example), which is seeded from that Generator and restored afterwards.
* `forward(inputs, lengths=...)`: receives the number of steps of each sequence, (batch,), where they differ.
* `recurrent_names()`: names of the matrices whose change is measured, of parameters or of members that compute a matrix
  (`computed.py`); by default found by name and shape, see `recurrent_names` below.
* `hidden_size`: N, from which the default learning rate 0.05 / N follows; by default the number of columns of the first
  of these matrices.
* `architecture()`: plain values that a state file compares with another network's; by default the name of the class.

Parameters with `requires_grad` are trained. A weight may be constrained by `torch.nn.utils.parametrize`: everything
here returns the *effective* weight under the name that the user sees ("recurrent_weights").
"""

from __future__ import annotations

import copy
import fnmatch
import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rankscope.errors import InputError
from rankscope.networks.computed import computed_matrix, possible_names
from rankscope.networks.outputs import Returned, returned_by
from rankscope.tasks.trials import Task, as_trials
from rankscope.validation import RngLike, choice, generator


@runtime_checkable
class Network(Protocol):
    """Required members of a network; every `torch.nn.Module` has them."""

    @property
    def __call__(self) -> Any:
        """Map inputs (batch, time, in) to outputs (batch, time, out)."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield all parameters; those with `requires_grad` are trained."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield all parameters with their names."""
        ...

    def buffers(self) -> Iterator[Tensor]:
        """Yield the other tensors that a forward pass may change."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a state file has to hold, by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Restore what `state_dict` returned."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """Yield the network and all modules in it."""
        ...


def check_network(name: str, value: object) -> None:
    """Raise `InputError` unless `value` is a network whose weights exist and are in single or double precision."""
    if isinstance(value, type) or not isinstance(value, Network):
        got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise InputError(f"{name} must be a network: a RateRNN, a GatedRNN or a torch.nn.Module, got {got}")
    for parameter, weights in value.named_parameters():
        if nn.parameter.is_lazy(weights):
            raise InputError(
                f"{name} must have weights, got {parameter!r} of a lazy layer that has not run; run it once before any "
                "copy is made, as in network(task.sample(2, 0).inputs)"
            )
        if weights.dtype in (torch.float16, torch.bfloat16):
            raise InputError(
                f"{name} must have weights in float32 or float64, got {weights.dtype} in {parameter!r}, too coarse for "
                "small changes of weights; network.float() converts them"
            )


def channels_of(task: Task) -> tuple[int, int]:
    """Return the numbers of input and output channels of a task, from its attributes or from a trial."""
    if isinstance(task, type):
        raise InputError(f"task must be an instance, got the class {task.__name__}; make one of it: {task.__name__}()")
    if hasattr(task, "input_size") and hasattr(task, "output_size"):
        return int(task.input_size), int(task.output_size)
    if not isinstance(task, Task):
        raise InputError(f"task must have a method sample(batch_size, rng), got {task!r}")
    trials = as_trials(task.sample(1, np.random.default_rng(0)))
    return trials.inputs.shape[2], trials.targets.shape[2]


def outputs_of(network: Network, inputs: Tensor, rng: RngLike = None, lengths: Tensor | None = None) -> Tensor:
    """Run `network` with all its randomness drawn from `rng`.

    Parameters
    ----------
    inputs
        (batch, time, in); converted to the type of the network's weights.
    lengths
        (batch,) numbers of steps of sequences that are padded to one length, or None.

    Returns
    -------
    Tensor
        (batch, time, out), or (batch, 1, out) if the network reads out after the last step only.

    Raises
    ------
    InputError
        If the network returns something else, or reads out after the last step only and takes no `lengths`.
    """
    return run(network, inputs, rng, lengths).outputs


def run(network: Network, inputs: Tensor, rng: RngLike = None, lengths: Tensor | None = None) -> Returned:
    """Run `network` as `outputs_of` does, and return its outputs and the states that it returns beside them."""
    arguments = _arguments(type(network))
    options: dict[str, Any] = {}
    if lengths is not None and "lengths" in arguments:
        options["lengths"] = lengths
    if "rng" in arguments:
        returned = network(inputs, rng=generator(rng), **options)
    else:
        like = next(network.parameters(), inputs)
        with _torch_seeded(rng, like.device), parametrizations_applied(network):
            returned = network(inputs.to(like), **options)
    found = returned_by(returned, inputs)
    if lengths is not None and not options and found.outputs.shape[1] == 1 < inputs.shape[1]:
        raise InputError(
            "network must take lengths, as in forward(inputs, lengths), to read out the last step of sequences of "
            "different lengths"
        )
    return found


def effective_parameters(network: Network) -> dict[str, Tensor]:
    """Return all parameters by name; of a parametrized weight, the effective one under its own name."""
    modules = dict(network.named_modules()) if isinstance(network, nn.Module) else {}
    if not any(parametrize.is_parametrized(module) for module in modules.values()):
        return dict(network.named_parameters())
    found: dict[str, Tensor] = {}
    for path, module in modules.items():
        if "parametrizations" in path.split("."):
            continue
        prefix = f"{path}." if path else ""
        found |= {prefix + name: weights for name, weights in module.named_parameters(recurse=False)}
        if parametrize.is_parametrized(module):
            found |= {prefix + name: getattr(module, name) for name in module.parametrizations}
    return found


def effective_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the `state_dict` with the effective weights in place of parametrizations, detached."""
    state = {name: weights for name, weights in network.state_dict().items() if "parametrizations." not in name}
    return {**state, **{name: weights.detach() for name, weights in effective_parameters(network).items()}}


@torch.no_grad()
def computed_matrices(network: Network, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Return the matrices that members of the network compute, detached.

    Parameters
    ----------
    names
        Names of members among other names and patterns; by default the network's own `recurrent_names()`.
    """
    if names is None:
        names = network.recurrent_names() if hasattr(network, "recurrent_names") else ()
    stored = effective_parameters(network)
    found = {name: computed_matrix(network, name) for name in names if name not in stored}
    return {name: matrix.detach() for name, matrix in found.items() if matrix is not None}


def matrices_of(network: Network, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Return the effective weight matrices by name.

    Parameters
    ----------
    names
        Names or patterns, as in `recurrent_names`; by default the recurrent weights.

    Raises
    ------
    InputError
        If a name fits no matrix of the network.
    """
    parameters = effective_parameters(network)
    found = {}
    for name in recurrent_names(network, names):
        matrix = parameters[name] if name in parameters else computed_matrix(network, name)
        assert matrix is not None
        found[name] = matrix
    return found


def recurrent_names(network: Network, names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the names of the matrices whose change is measured.

    Parameters
    ----------
    names
        Names of parameters, patterns such as ``"*.weight_hh_l*"``, or names of members that compute a matrix. By
        default the network's own `recurrent_names()`; else all matrices called `recurrent_weights` or, as in torch,
        `weight_hh...`; else all square ones; else all.

    Raises
    ------
    InputError
        If a name fits no matrix of the network, or it has none.
    """
    if names is None and hasattr(network, "recurrent_names"):
        names = network.recurrent_names()
    matrices = {name: weights for name, weights in effective_parameters(network).items() if weights.ndim == 2}
    if names is not None:
        return _matching(names, list(matrices), network)
    if not matrices:
        raise InputError("network must have a matrix among its parameters, got none")
    ends = {name: name.rpartition(".")[2] for name in matrices}
    by_name = [name for name, end in ends.items() if end == "recurrent_weights" or end.startswith("weight_hh")]
    square = [name for name, weights in matrices.items() if weights.shape[0] == weights.shape[1] > 1]
    return tuple(by_name or square or matrices)


def with_weights(network: Any, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a torch network with other weights, a `state_dict`.

    Raises
    ------
    InputError
        If they do not fit.
    """
    twin = copy.deepcopy(network)
    assert isinstance(twin, nn.Module)
    types = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    if len(types) == 1:  # loading would round to the type that the network was built in
        twin.to(types.pop())
    try:
        twin.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(f"network must fit the weights in its file: {error!s:.300}") from error
    return twin


def hidden_size_of(network: Network) -> int:
    """Return N: the network's `hidden_size`, or the number of columns of its first recurrent matrix."""
    given = getattr(network, "hidden_size", None)
    if isinstance(given, int):
        return given
    return next(iter(matrices_of(network).values())).shape[1]


def architecture_of(network: Network) -> dict[str, Any]:
    """Return the plain values that a state file compares with another network's."""
    if hasattr(network, "architecture"):
        described: dict[str, Any] = network.architecture()
        return described
    return {"class": type(network).__qualname__}


@contextmanager
def evaluating(network: Network) -> Iterator[None]:
    """Put `network` into torch's evaluation mode (no dropout) for the duration of a `with` block."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def parametrizations_applied(network: Network) -> Iterator[None]:
    """Make torch's recurrent layers use their parametrized weights for the duration of a `with` block.

    `nn.RNN`, `nn.GRU` and `nn.LSTM` keep a list of the weights that they were built with, and silently go on using it
    after `register_parametrization` (torch 2.13). The list is restored, as a module that holds computed weights cannot
    be copied.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.RNNBase) and parametrize.is_parametrized(m)]
    built_with = [layer._flat_weights for layer in layers]
    try:
        for layer in layers:
            layer._flat_weights = [getattr(layer, name) for name in layer._flat_weights_names]
        yield
    finally:
        for layer, weights in zip(layers, built_with, strict=True):
            layer._flat_weights = weights


def _matching(patterns: Iterable[str], names: list[str], network: object) -> tuple[str, ...]:
    if isinstance(patterns, str):
        raise InputError(f"matrices must be a list of names, got the text {patterns!r}; write [{patterns!r}]")
    chosen: set[str] = set()
    computed: list[str] = []
    for pattern in patterns:
        fitting = fnmatch.filter(names, pattern)
        if not fitting and computed_matrix(network, pattern) is not None:
            computed.append(pattern)
        else:
            chosen.update(fitting or [choice("matrices", pattern, [*names, *possible_names(network)])])
    if not chosen and not computed:
        raise InputError("matrices must name at least one matrix, got none")
    return (*(name for name in names if name in chosen), *dict.fromkeys(computed))


@lru_cache
def _arguments(kind: type) -> tuple[str, ...]:
    return tuple(inspect.signature(kind.forward if hasattr(kind, "forward") else kind.__call__).parameters)


@contextmanager
def _torch_seeded(rng: RngLike, device: torch.device) -> Iterator[None]:
    """Seed torch's global generator from `rng` for the duration of a `with` block."""
    seed = int(generator(rng).integers(2**63 - 1))
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device], device_type="cuda"):
        torch.manual_seed(seed)
        yield
