"""Files of `torch.save`: a zip archive with a pickle, of which only tensors and plain containers are accepted.

A pickle can call any function. torch's `weights_only` reader, the only one used here, allows a short list of harmless
functions and refuses all others. The data is stored uncompressed and is memory-mapped.
"""

from __future__ import annotations

import contextlib
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

LONGEST_NAME = 1000
"""Characters of a name in a pickle. torch's error for a longer one takes quadratic time."""


class TorchFile(Mapped):
    """The weights in one file of `torch.save`."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        _check_archive(path)
        self.entries = {name: entry_of(tensor) for name, tensor in self._open().items()}

    def _open(self) -> dict[str, Tensor]:
        try:
            loaded = torch.load(self.path, map_location="cpu", mmap=True, weights_only=True)
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


def _check_archive(path: Path) -> None:
    """Refuse a file that is not an archive, a compressed archive, and a pickle with an overlong name."""
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = [item.filename for item in archive.infolist() if item.compress_type != zipfile.ZIP_STORED]
            names = () if compressed else _imported_names(path, archive)
            endless = next((name for name in names if len(name) > LONGEST_NAME), None)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        with path.open("rb") as file:
            begins = file.read(2)
        raise InputError(
            f"{path} is not a file of torch.save ({error}): "
            + (
                "it is an archive that was cut off; copy it again"
                if begins == b"PK"
                else "a bare pickle, or the format before torch 1.6, is not opened; load it where you trust it and "
                "save the state dict again"
            )
        ) from error
    if compressed:
        raise InputError(f"{path} must be uncompressed, as torch.save writes them, got {compressed[0]!r}")
    if endless is not None:
        raise InputError(
            f"{path} holds a pickle that calls code ({endless[:40]}..., a name of {len(endless)} characters); it was "
            "refused and nothing of it was run"
        )


def _imported_names(path: Path, archive: zipfile.ZipFile) -> Iterator[str]:
    """Yield the names that the pickles in an uncompressed archive import, as far as they can be parsed."""
    # For damaged pickles both libraries raise nearly any exception; torch's reader reports them afterwards.
    with contextlib.suppress(Exception), path.open("rb") as file:
        for item in archive.infolist():
            if item.filename.endswith("data.pkl"):
                # Not through `archive`, which refuses wrong checksums: torch ignores them, and need not write them.
                file.seek(item.header_offset + 26)
                file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
                for operation, argument, _ in pickletools.genops(file.read(min(item.file_size, path.stat().st_size))):
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
