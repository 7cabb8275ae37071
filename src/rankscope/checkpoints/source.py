"""Interface of a checkpoint: names, shapes and types of tensors, and their values on demand.

Tensors are read one by one, mostly as views into a memory map, so that a checkpoint may be larger than memory. Each
format has a file with one subclass of `Source`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rankscope.errors import InputError
from rankscope.networks.protocol import effective_state

HELD_BYTES = 64 * 2**20
"""Bytes of a file that stay mapped: pages that were read count as memory of the process until the file is closed."""


class Entry(NamedTuple):
    """Shape and type of a tensor; the type is a text with the reason if the tensor cannot be read."""

    shape: tuple[int, ...]
    dtype: torch.dtype | str


def in_order(names: Iterable[str]) -> list[str]:
    """Return names in natural order, layer 2 before layer 10."""

    def key(name: str) -> list[tuple[str, int]]:
        parts = re.split(r"([0-9]{1,15})", name)
        return [(text, int(number)) for text, number in zip(parts[::2], [*parts[1::2], "0"], strict=True)]

    return sorted(names, key=key)


def entry_of(tensor: Tensor) -> Entry:
    """Return the entry of a tensor, without reading its values."""
    shape = tuple(tensor.shape)
    if tensor.is_meta:
        return Entry(shape, "without values (on the meta device)")
    if tensor.layout != torch.strided:
        return Entry(shape, "sparse, not a plain tensor")
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        # With strides of zero, a file of a few bytes can have any shape.
        return Entry(shape, "larger than the storage it refers to")
    return Entry(shape, tensor.dtype)


class Unreadable(Exception):  # noqa: N818
    """Raised when one tensor cannot be read or compared. The message is the reason."""


class Source(ABC):
    """A checkpoint."""

    label: str  # in messages: the path, or the argument
    entries: Mapping[str, Entry]  # of every tensor, by name
    folder: Path | None = None  # of the file
    config: Mapping[str, Any] | None = None  # of a module

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """Return a tensor, on the CPU, or raise `Unreadable` if it is damaged."""

    def stored(self, name: str) -> str | None:
        """Return how a tensor is stored, if it is not in the file as it is read; None otherwise."""
        return None

    def spacing(self, name: str) -> Tensor | None:
        """Return how far apart the numbers are that a tensor can hold, entry by entry; None if its type tells."""
        return None

    def release(self) -> None:
        """Close open files. Tensors that were returned stay valid."""
        return


class InMemory(Source):
    """A state dict, or the state of a module with torch's parametrizations applied."""

    def __init__(self, tensors: Mapping[str, Any] | nn.Module, label: str) -> None:
        state = effective_state(tensors) if isinstance(tensors, nn.Module) else tensors
        self.label = label
        if isinstance(tensors, nn.Module) and callable(
            to_dict := getattr(getattr(tensors, "config", None), "to_dict", None)
        ):
            self.config = to_dict()
        self._tensors: dict[str, Tensor] = {}
        for name, value in state.items():
            # The extra state of a module may be of any type, and is not a weight.
            if str(name).endswith("_extra_state") and not isinstance(value, Tensor):
                continue
            try:
                self._tensors[str(name)] = torch.as_tensor(value).detach()
            except (TypeError, ValueError, RuntimeError) as error:
                got = type(value).__name__
                raise InputError(f"{label} must map names to tensors, got {got} for {name!r}") from error
        self.entries = {name: entry_of(tensor) for name, tensor in self._tensors.items()}

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, on the CPU."""
        return self._tensors[name].cpu()


class Mapped(Source):
    """A file with tensors as views into its memory map, which is reopened after every 64 MB."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.folder = Path(label).parent
        self._opened: Any = None
        self._touched = 0

    @abstractmethod
    def _open(self) -> Any:
        """Open the file."""

    @abstractmethod
    def _view(self, opened: Any, name: str) -> Tensor:
        """Return a tensor of an open file."""

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, as a view into the file."""
        if self._touched > HELD_BYTES:
            self.release()
        if self._opened is None:
            self._opened = self._open()
        try:
            view = self._view(self._opened, name)
        except Exception as error:
            # The libraries do not document what they raise for a damaged tensor; it must not stop the others.
            raise Unreadable(f"cannot be read from {self.label}: {error}") from error
        self._touched += view.nbytes
        return view

    def release(self) -> None:
        """Close the file."""
        self._opened, self._touched = None, 0


class Renamed(Source):
    """Some tensors of another source, under other names; `names` maps new to old ones."""

    def __init__(self, source: Source, names: Mapping[str, str], label: str) -> None:
        self.label, self.folder, self.config = label, source.folder, source.config
        self._source, self._names = source, names
        self.entries = {new: source.entries[old] for new, old in names.items()}

    def tensor(self, name: str) -> Tensor:
        """Return a tensor by its new name."""
        return self._source.tensor(self._names[name])

    def stored(self, name: str) -> str | None:
        """Return how a tensor is stored, by its new name."""
        return self._source.stored(self._names[name])

    def spacing(self, name: str) -> Tensor | None:
        """Return the spacing of a tensor by its new name."""
        return self._source.spacing(self._names[name])

    def release(self) -> None:
        """Close the files of the other source."""
        self._source.release()
