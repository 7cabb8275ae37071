"""Networks in files: one safetensors file holds the network after training and, optionally, before.

Tensors have the names of the `state_dict`; those from before training have the prefix ``initial.`` and are stored only
where they differ or are trained. The metadata holds the name of the class and its architecture as JSON. `RateRNN.load`,
`GatedRNN.load`, `load_networks` and `rankscope inspect` read the same file. Of a module of the user's own, the file
also holds the effective weights that the module computes: for other programs, as loading recomputes them.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from rankscope.errors import InputError
from rankscope.io.tensor_file import read_file, write_tensors
from rankscope.networks.protocol import architecture_of, computed_matrices, effective_state

FORMAT = "rankscope.network.v2"
INITIAL = "initial."
"""Prefix of the names of tensors from before training."""
SIZES = ("hidden_size", "num_layers", "input_size", "output_size")
"""Entries of an architecture that determine how much memory a network takes."""

Loaded = nn.Module | dict[str, Tensor]
"""A RateRNN or GatedRNN, or the state dict of any other module."""
_CLASSES: dict[str, type[SavedNetwork]] = {}
_Class = TypeVar("_Class", bound="type[SavedNetwork]")


class SavedNetwork(nn.Module):
    """Base class of the networks that can be rebuilt from a file."""

    saved_as = ""

    def architecture(self) -> dict[str, Any]:
        """Return the constructor's options as plain values, enough to build the same function around the weights."""
        raise NotImplementedError

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], architecture: dict[str, Any]) -> Self:
        """Return the network with these weights; raises `InputError` if they do not fit the architecture."""
        raise NotImplementedError

    def check_savable(self) -> None:
        """Raise `InputError` if a file cannot hold this network."""

    def snapshot(self) -> Self:
        """Return an independent copy of the network as it is now, without gradients."""
        twin = copy.deepcopy(self)
        twin.zero_grad(set_to_none=True)
        return twin

    def save(self, path: str | os.PathLike[str], initial: nn.Module | None = None) -> None:
        """Write weights and architecture to one safetensors file, atomically.

        Parameters
        ----------
        initial
            The network before training, to go into the same file.

        Raises
        ------
        InputError
            If a nonlinearity is a callable (files hold named ones only), or the folder cannot be written to.
        """
        save_networks(path, initial, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str], initial: bool = False) -> Self:
        """Read a network that `save` or `save_networks` wrote; it is the same function.

        Parameters
        ----------
        initial
            Read the network before training.

        Raises
        ------
        InputError
            If the file does not exist, is damaged, or holds something else.
        """
        before, after, metadata = _read(path)
        if metadata["class"] != cls.saved_as:
            raise InputError(f"{path} must hold a {cls.saved_as}, got a {metadata['class']!s:.100}")
        if initial and before is None:
            raise InputError(f"{path} must hold a network from before training for initial=True, got one from after")
        return cls._built(path, before if initial and before is not None else after, metadata)

    @classmethod
    def _built(cls, path: str | os.PathLike[str], tensors: dict[str, Tensor], metadata: Mapping[str, Any]) -> Self:
        try:
            return cls.from_tensors(tensors, dict(metadata["architecture"]))
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{path} must hold the tensors of a {cls.saved_as}, but {error}") from error


def saved_as(name: str) -> Callable[[_Class], _Class]:
    """Register a class under the name that its files carry."""

    def register(cls: _Class) -> _Class:
        cls.saved_as = name
        _CLASSES[name] = cls
        return cls

    return register


def save_networks(
    path: str | os.PathLike[str],
    before: nn.Module | None,
    after: nn.Module,
    metadata: Mapping[str, str] | None = None,
    matrices: Iterable[str] | None = None,
    kept: Mapping[int, nn.Module] | None = None,
) -> None:
    """Write a network before and after training to one file, atomically.

    Parameters
    ----------
    before, after
        RateRNN, GatedRNN (of which the effective weights are stored, see `matrices_of`) or any other module (of which
        the `state_dict` is stored beside the effective weights). `before` may be None.
    metadata
        Further text for the file's metadata.
    matrices
        Names of members of another module that compute a matrix, among other names; by default those of its
        `recurrent_names()`.
    kept
        Number of epochs -> the network after them.

    Raises
    ------
    InputError
        If a nonlinearity is a callable, or the folder cannot be written to.
    """
    if isinstance(after, SavedNetwork):
        after.check_savable()
    names = None if matrices is None else tuple(matrices)
    tensors = _tensors_of(after, names)
    computed = set() if isinstance(after, SavedNetwork) else tensors.keys() - after.state_dict()
    trained = {name for name, weights in after.named_parameters() if weights.requires_grad} | computed
    others = {} if before is None else {INITIAL: before}
    others |= {_prefix(epoch): network for epoch, network in (kept or {}).items()}
    further = {
        prefix + name: tensor
        for prefix, network in others.items()
        for name, tensor in _tensors_of(network, names).items()
        if name in trained or name not in tensors or not torch.equal(tensor, tensors[name])
    }
    described = {
        "format": FORMAT,
        "class": getattr(after, "saved_as", "") or type(after).__qualname__,
        "architecture": json.dumps(architecture_of(after)),
        "initial": json.dumps(before is not None),
        "computed": json.dumps(sorted(computed)),
        "kept": json.dumps(sorted(kept or ())),
    }
    write_tensors(path, {**tensors, **further}, {**(metadata or {}), **described})


def load_networks(path: str | os.PathLike[str], epoch: int | None = None) -> tuple[Loaded | None, Loaded]:
    """Return the networks before and after training of a file that `save_networks` wrote.

    Parameters
    ----------
    epoch
        Return the network after this number of epochs instead of the trained one, if a copy was kept.

    Returns
    -------
    before, after
        A RateRNN or GatedRNN each; of other modules, their state dicts. `before` is None if the file lacks it.

    Raises
    ------
    InputError
        If the file does not exist, is damaged, or holds something else, or no copy was kept after this epoch.
    """
    before, after, metadata = _read(path, epoch)
    cls = _CLASSES.get(metadata["class"])
    if cls is None:
        return before, after
    return None if before is None else cls._built(path, before, metadata), cls._built(path, after, metadata)


def _tensors_of(network: nn.Module, names: Iterable[str] | None) -> dict[str, Tensor]:
    if isinstance(network, SavedNetwork):
        return effective_state(network)
    return {**computed_matrices(network, names), **effective_state(network), **network.state_dict()}


def kept_epochs(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Return the epochs after which a file holds copies of the network besides the trained one."""
    return _kept(path, read_file(path).metadata)


def _kept(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> tuple[int, ...]:
    try:
        epochs = json.loads(metadata.get("kept", "[]"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} has unreadable epochs of kept networks in its metadata") from error
    if not isinstance(epochs, list) or not all(type(epoch) is int for epoch in epochs):
        raise InputError(f"{path} must list the epochs of its kept networks, got {epochs!r:.100}")
    return tuple(epochs)


def _prefix(epoch: int) -> str:
    return f"epoch{epoch}."


def _read(
    path: str | os.PathLike[str], epoch: int | None = None
) -> tuple[dict[str, Tensor] | None, dict[str, Tensor], dict[str, Any]]:
    """Return the tensors before and after training, and the metadata with its architecture decoded and checked."""
    file = read_file(path)
    stored, text = file.tensors(), file.metadata
    if text.get("format") != FORMAT:
        raise InputError(f"{path} is not a rankscope network: its metadata lacks format = {FORMAT!r}")
    metadata: dict[str, Any] = dict(text)
    epochs = _kept(path, text)
    try:
        metadata["architecture"] = json.loads(text["architecture"])
        has_initial = json.loads(text.get("initial", "false"))
        for name in json.loads(text.get("computed", "[]")):
            for prefix in ("", INITIAL, *map(_prefix, epochs)):
                stored.pop(prefix + name, None)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} has no readable architecture in its metadata") from error
    if not isinstance(metadata["architecture"], dict):
        raise InputError(f"{path} has an architecture that is not a mapping, got {metadata['architecture']!r:.100}")
    metadata.setdefault("class", "")
    if epoch is not None and epoch not in epochs:
        kept = ", ".join(map(str, epochs)) or "none"
        raise InputError(f"epoch must be one after which {path} keeps a network ({kept}), got {epoch!r}")
    prefixes = (INITIAL, *map(_prefix, epochs))
    after = {name: tensor for name, tensor in stored.items() if not name.startswith(prefixes)}
    _check_sizes(path, after, metadata["architecture"])

    def at(prefix: str) -> dict[str, Tensor]:
        return after | {name.removeprefix(prefix): x for name, x in stored.items() if name.startswith(prefix)}

    return at(INITIAL) if has_initial else None, after if epoch is None else at(_prefix(epoch)), metadata


def _check_sizes(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], architecture: Mapping[str, Any]) -> None:
    """Raise `InputError` if a network of this architecture has many more weights than there are in the file.

    A few bytes can name any size, and building the network allocates the memory for it.
    """
    numbers = sum(tensor.numel() for tensor in tensors.values())
    sizes = {name: architecture[name] for name in SIZES if name in architecture}
    if not all(isinstance(size, int) and size >= 1 for size in sizes.values()):
        raise InputError(f"{path} must have an architecture with sizes >= 1, got {sizes!r:.200}")
    N = sizes.pop("hidden_size", 1)
    layers = sizes.pop("num_layers", 1)
    if N * max([N * layers, *sizes.values()]) > numbers:
        raise InputError(f"{path} is of a network with {N} units in {layers} layers, but holds only {numbers} numbers")
