"""What a checkpoint is to the rest of this room: names, shapes, and rows of tensors on demand.

Nothing is read before it is asked for, and then a block of rows at a time, so that a checkpoint may be much larger than
the memory. Formats differ in how they do it: each has a file here with one subclass of `Source`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rankscope.errors import InputError

HELD_BYTES = 64 * 2**20
"""How much of a file may stay mapped: pages that were read count as our memory until the file is closed."""


class Entry(NamedTuple):
    """What is known of a tensor before reading it; `dtype` is the reason why it cannot be read, where it cannot."""

    shape: tuple[int, ...]
    dtype: torch.dtype | str


def in_order(names: Iterable[str]) -> list[str]:
    """Return names with the numbers in them in order, layer 2 before layer 10."""

    def key(name: str) -> list[tuple[str, int]]:
        parts = re.split(r"([0-9]{1,15})", name)
        return [(text, int(number)) for text, number in zip(parts[::2], [*parts[1::2], "0"], strict=True)]

    return sorted(names, key=key)


def entry_of(tensor: Tensor) -> Entry:
    """Return what is known of a tensor, without looking at its values."""
    shape = tuple(tensor.shape)
    if tensor.is_meta:
        return Entry(shape, "it has a shape only, no values")
    if tensor.layout != torch.strided:
        return Entry(shape, "sparse, not a plain tensor")
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        # A file of a few bytes can claim any shape if its strides are zero.
        return Entry(shape, "it repeats itself: its shape is larger than what is stored")
    return Entry(shape, tensor.dtype)


class Unreadable(Exception):  # noqa: N818
    """One tensor cannot be read; the others may be fine. The message is the reason."""


class Source(ABC):
    """A checkpoint.

    Attributes
    ----------
    label
        What to call it in a message: the path, or what it was given as.
    entries
        Shape and type of every tensor, by name.
    """

    label: str
    entries: Mapping[str, Entry]

    @abstractmethod
    def rows(self, name: str, start: int | None = None, stop: int | None = None) -> Tensor:
        """Return the rows (entries along the first dimension) `start` to `stop` of a tensor, or all of it.

        Raises
        ------
        Unreadable
            If it is damaged.
        """

    def release(self) -> None:
        """Let go of the memory that reading has taken, once the tensors returned so far are no longer needed."""
        return


class InMemory(Source):
    """A state dict, or the parameters and buffers of a module, as they are now."""

    def __init__(self, tensors: Mapping[str, Any] | nn.Module, label: str) -> None:
        state = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
        self.label = label
        self._tensors: dict[str, Tensor] = {}
        for name, value in state.items():
            # A module's own extra state may be anything; it is no weight.
            if str(name).endswith("_extra_state") and not isinstance(value, Tensor):
                continue
            try:
                self._tensors[str(name)] = torch.as_tensor(value).detach()
            except (TypeError, ValueError, RuntimeError) as error:
                got = type(value).__name__
                raise InputError(f"{label} must map names to tensors, got {got} for {name!r}") from error
        self.entries = {name: entry_of(tensor) for name, tensor in self._tensors.items()}

    def rows(self, name: str, start: int | None = None, stop: int | None = None) -> Tensor:
        """Return rows of a tensor, on the CPU."""
        tensor = self._tensors[name]
        return (tensor if start is None else tensor[start:stop]).cpu()


class Mapped(Source):
    """A file whose tensors are views into its memory map, which is closed and opened again as it fills up."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._opened: Any = None
        self._touched = 0

    @abstractmethod
    def _open(self) -> Any:
        """Open the file anew."""

    @abstractmethod
    def _view(self, opened: Any, name: str, start: int | None, stop: int | None) -> Tensor:
        """Return rows of a tensor out of what `_open` returned."""

    def rows(self, name: str, start: int | None = None, stop: int | None = None) -> Tensor:
        """Return rows of a tensor, as a view into the file."""
        if self._touched > HELD_BYTES:
            self.release()
        if self._opened is None:
            self._opened = self._open()
        try:
            view = self._view(self._opened, name, start, stop)
        except Exception as error:
            # What a library raises for a damaged tensor is not documented; none of it may stop the others.
            raise Unreadable(f"cannot be read from {self.label}: {error}") from error
        self._touched += view.nbytes
        return view

    def release(self) -> None:
        """Close the file."""
        self._opened, self._touched = None, 0


class Renamed(Source):
    """Some tensors of another source, under other names.

    Parameters
    ----------
    names
        From the new name to the old one.
    """

    def __init__(self, source: Source, names: Mapping[str, str], label: str) -> None:
        self.label = label
        self.source = source
        self._names = dict(names)
        self.entries = {new: source.entries[old] for new, old in names.items()}

    def rows(self, name: str, start: int | None = None, stop: int | None = None) -> Tensor:
        """Return rows of the tensor that is called `name` here."""
        return self.source.rows(self._names[name], start, stop)

    def release(self) -> None:
        """Release the other source."""
        self.source.release()
