"""Distributed checkpoints of PyTorch: a folder with `.metadata` and the shards of each process, `__0_0.distcp`.

`.metadata` is a pickle of names, shapes, and places of the chunks of each tensor; it is read as data (`pickles.py`),
and nothing in it is run. A chunk is a tensor in the format of `torch.save`, in a range of bytes of a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rankscope.checkpoints.formats.groups import Groups
from rankscope.checkpoints.formats.pickles import Made, RunsCode, interpret
from rankscope.checkpoints.formats.torch_archive import read_saved
from rankscope.checkpoints.formats.torch_tensors import CALLS, Storage, Stored, dtype_of, placed, shape_of, view, whole
from rankscope.checkpoints.source import Entry, Source, Unreadable
from rankscope.errors import InputError

METADATA = ".metadata"
DEEPEST = 10
PLACES = "torch.distributed.checkpoint.metadata."


class Chunk(NamedTuple):
    """A rectangular range of a tensor, and the range of bytes of a file that holds it."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start: int
    length: int


def is_distributed(folder: Path) -> bool:
    """Return whether a folder is a distributed checkpoint."""
    return (folder / METADATA).is_file() and any(folder.glob("*.distcp"))


class Distributed(Source):
    """A distributed checkpoint; `key` is the name of a state dict in it, as in `Groups.weights`."""

    def __init__(self, folder: Path, key: str | None = None) -> None:
        self.label = str(folder)
        self._folder = folder
        self._sizes = {path.name: path.stat().st_size for path in folder.glob("*.distcp") if not path.is_symlink()}
        self._chunks: dict[str, list[Chunk]] = {}
        try:
            content = (folder / METADATA).read_bytes()
            metadata = interpret(content, CALLS, lambda _: None)
            stored = self._tensors(metadata.state)
            names = Groups(_nested(stored, metadata.state.get("planner_data")), self.label).weights(key)
        except InputError:
            raise
        except RunsCode as error:
            raise InputError(
                f"{folder / METADATA} calls code ({error}); it was refused and nothing of it was run"
            ) from error
        except Exception as error:  # for damaged pickles the library raises nearly anything
            raise InputError(
                f"{folder / METADATA} is not a readable file of torch.distributed.checkpoint "
                f"({type(error).__name__}: {error!s:.200})"
            ) from error
        self._full = {name: stored.storage.key for name, stored in names.items() if stored.storage is not None}
        self.entries = {name: stored.entry for name, stored in names.items()}

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, put together from its chunks."""
        entry = self.entries[name]
        try:
            if isinstance(entry.dtype, str):
                raise ValueError(entry.dtype)
            full = torch.empty(entry.shape, dtype=entry.dtype)
            if entry.dtype.is_floating_point:
                full.fill_(math.nan)  # where chunks overlap instead of covering it
            for chunk in self._chunks[self._full[name]]:
                place = tuple(slice(at, at + size) for at, size in zip(chunk.offsets, chunk.sizes, strict=True))
                full[place] = self._read(chunk, entry.dtype)
        except Exception as error:
            raise Unreadable(f"cannot be read from {self.label}: {error!s:.300}") from error
        return full

    def _read(self, chunk: Chunk, dtype: torch.dtype) -> Tensor:
        path = self._folder / chunk.file
        saved = read_saved(path, chunk.start, chunk.length)
        stored = saved.root
        if not isinstance(stored, Stored) or placed(stored, saved.spans) != Entry(chunk.sizes, dtype):
            raise ValueError(f"a chunk in {chunk.file} is not the tensor that {METADATA} describes")
        file = torch.from_file(str(path), shared=False, size=self._sizes[chunk.file], dtype=torch.uint8)
        return view(file, stored, saved.spans, saved.swapped)

    def _tensors(self, metadata: Mapping[str, Any]) -> dict[str, Stored]:
        """Return the tensors by their full names, and keep the places of their chunks."""
        places = {}
        for index, info in metadata["storage_data"].items():
            offset = index.state.get("offset")
            places[str(index.state["fqn"]), None if offset is None else shape_of(offset)] = info.state
        found = {}
        for name, about in metadata["state_dict_metadata"].items():
            if isinstance(about, Made) and about.name == f"{PLACES}TensorStorageMetadata":
                found[str(name)] = self._describe(str(name), about.state, places)
        return found

    def _describe(self, name: str, about: Mapping[str, Any], places: Mapping[Any, Mapping[str, Any]]) -> Stored:
        """Describe a tensor, with the reason if its chunks are not whole."""
        properties = about["properties"].state
        shape = shape_of(about["size"])
        dtype = dtype_of(properties["dtype"] if isinstance(properties, dict) else properties[0])
        if isinstance(dtype, str):
            return Stored(Entry(shape, dtype))
        chunks = []
        for one in about["chunks"]:
            offsets, sizes = shape_of(one.state["offsets"]), shape_of(one.state["sizes"])
            info = places[name, offsets]
            if info.get("transform_descriptors"):
                return Stored(Entry(shape, "compressed by an extension of torch, which is not read"))
            file, start, length = info["relative_path"], whole(info["offset"]), whole(info["length"])
            if file not in self._sizes or start + length > self._sizes[file]:
                return Stored(Entry(shape, "without its data in the folder"))
            if any(at + size > most for at, size, most in zip(offsets, sizes, shape, strict=True)):
                return Stored(Entry(shape, "damaged: a chunk is outside of it"))
            if math.prod(sizes) * dtype.itemsize > length:
                return Stored(Entry(shape, "larger than its data in the folder"))
            chunks.append(Chunk(offsets, sizes, file, start, length))
        if sum(math.prod(chunk.sizes) for chunk in chunks) != math.prod(shape):
            return Stored(Entry(shape, "incomplete: its chunks do not cover it"))
        if math.prod(shape) * dtype.itemsize > sum(self._sizes.values()):
            return Stored(Entry(shape, "larger than the folder"))
        self._chunks[name] = chunks
        return Stored(Entry(shape, dtype), Storage(name, dtype, math.prod(shape)))


def _nested(stored: Mapping[str, Stored], paths: Any) -> dict[Any, Any]:
    """Return the tensors in dictionaries, as they were before their names were joined; `paths` are the keys of each."""
    nested: dict[Any, Any] = {}
    for name, tensor in stored.items():
        keys = paths.get(name) if isinstance(paths, dict) else None
        *outer, last = map(str, keys) if isinstance(keys, (tuple, list)) and 0 < len(keys) < DEEPEST else [name]
        group = nested
        for key in outer:
            inner = group.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{key[:100]!r} is a tensor and a group")
            group = inner
        group[last] = tensor
    return nested
