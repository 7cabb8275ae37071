"""Files of `torch.save`, of which only tensors and plain containers are accepted.

Since torch 1.6 they are zip archives with a pickle and uncompressed data, which is memory-mapped; before, they were
several pickles and the data, one after the other. A pickle can call any function. torch's `weights_only` reader, the
only one used here, allows a short list of harmless functions and refuses all others.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankscope.checkpoints.source import Mapped, entry_of
from rankscope.errors import InputError

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module", "weights", "params")
"""Keys under which a file of a training keeps the weights, next to the state of the optimizer."""

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""Beginning of a file in the format before torch 1.6: a pickle of a certain number."""

PICKLES = 5
"""Pickles of such a file: two numbers, the platform, the object, the keys of its data."""

LONGEST_NAME = 1000
"""Characters of a name in a pickle. torch's error for a longer one takes quadratic time."""


class TorchFile(Mapped):
    """The weights in one file of `torch.save`."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        with path.open("rb") as file:
            self._legacy = file.read(len(LEGACY)) == LEGACY
        _check_names(path, _legacy_names(path) if self._legacy else _archive_names(path))
        self.entries = {name: entry_of(tensor) for name, tensor in self._open().items()}

    def _open(self) -> dict[str, Tensor]:
        try:
            loaded = torch.load(self.path, map_location="cpu", mmap=not self._legacy, weights_only=True)
        except pickle.UnpicklingError as error:
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = named[1] if named else str(error).strip().splitlines()[-1]
            raise InputError(
                f"{self.path} holds a pickle that calls code ({what}); it was refused and nothing of it was run: "
                "save the state dict alone, torch.save(model.state_dict(), path), or use safetensors"
            ) from error
        except Exception as error:
            # For damaged archives torch raises RuntimeError, EOFError, KeyError, struct.error and others.
            raise InputError(f"{self.path} is not a readable file of torch.save: {error}") from error
        return _weights(loaded, str(self.path))

    def _view(self, opened: dict[str, Tensor], name: str) -> Tensor:
        return opened[name]


def _check_names(path: Path, names: Iterator[str]) -> None:
    """Refuse pickles that cannot be parsed, or import an overlong name."""
    try:
        endless = next((name for name in names if len(name) > LONGEST_NAME), None)
    except InputError:
        raise
    except Exception as error:  # for damaged pickles the library raises nearly anything
        raise InputError(
            f"{path} is not a readable file of torch.save: its pickle is damaged ({error!s:.200})"
        ) from error
    if endless is not None:
        raise InputError(
            f"{path} holds a pickle that calls code ({endless[:40]}..., a name of {len(endless)} characters); it was "
            "refused and nothing of it was run"
        )


def _archive_names(path: Path) -> Iterator[str]:
    """Yield the names that the pickles in an uncompressed archive import; refuse other files."""
    try:
        with zipfile.ZipFile(path) as archive:
            items = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        with path.open("rb") as file:
            cut_off = file.read(2) == b"PK"
        remedy = ": it is an archive that was cut off; copy it again" if cut_off else ", nor another known checkpoint"
        raise InputError(f"{path} is not a file of torch.save ({error}){remedy}") from error
    for item in items:
        if item.compress_type != zipfile.ZIP_STORED:
            raise InputError(f"{path} must be uncompressed, as torch.save writes them, got {item.filename!r}")
    with path.open("rb") as file:
        for item in items:
            if item.filename.endswith("data.pkl"):
                # Not through `archive`, which refuses wrong checksums: torch ignores them, and need not write them.
                file.seek(item.header_offset + 26)
                file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
                yield from _imports(file.read(min(item.file_size, path.stat().st_size)))


def _legacy_names(path: Path) -> Iterator[str]:
    """Yield the names that the pickles of a file in the old format import."""
    with path.open("rb") as file:
        for _ in range(PICKLES):
            yield from _imports(file)


def _imports(pickled: Any) -> Iterator[str]:
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name in ("GLOBAL", "INST"):
            yield str(argument)


def _weights(loaded: Any, label: str, depth: int = 0) -> dict[str, Tensor]:
    """Return the state dict in a loaded object, which may be nested under a few keys."""
    if not isinstance(loaded, Mapping) or not _has_tensors(loaded):
        raise InputError(f"{label} must hold a state dict, names with tensors, got {type(loaded).__name__} without any")
    inner = [key for key, value in loaded.items() if isinstance(value, Mapping) and _has_tensors(value)]
    if inner and depth < 5:
        known = [key for key in WRAPPERS if key in inner]
        own = [key for key, value in loaded.items() if isinstance(value, Tensor) and value.ndim > 1]
        if known or (len(inner) == 1 and not own):
            return _weights(loaded[(known or inner)[0]], label, depth + 1)
        if not own:
            raise InputError(
                f"{label} holds several groups of tensors, {', '.join(map(repr, inner))}, and none has a known "
                f"name ({', '.join(WRAPPERS[:4])}); save the one you mean alone"
            )
    return {str(name): value.detach() for name, value in loaded.items() if isinstance(value, Tensor)}


def _has_tensors(value: Mapping[Any, Any], depth: int = 0) -> bool:
    return any(
        isinstance(item, Tensor) or (depth < 5 and isinstance(item, Mapping) and _has_tensors(item, depth + 1))
        for item in value.values()
    )
