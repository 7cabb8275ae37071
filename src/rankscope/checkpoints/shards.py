"""Checkpoints in several files, with an index of the tensors in each.

The index is a JSON file in the format of Hugging Face: `{"weight_map": {"name of a tensor": "name of a file"}}`. As an
index may come from an untrusted source, it can name files of its own folder only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from rankscope.checkpoints.safetensors_file import SafetensorsFile
from rankscope.checkpoints.source import Entry, Source, Unreadable, in_order
from rankscope.checkpoints.torch_file import TorchFile
from rankscope.errors import InputError


class Shards(Source):
    """All files of an index as one checkpoint; one file is open at a time.

    Raises
    ------
    InputError
        If the index is damaged or names files outside its folder, or a file is missing or damaged.
    """

    def __init__(self, index: Path) -> None:
        self.label = str(index)
        placed = _weight_map(index)
        self._file_of = placed
        self._files: dict[str, Source] = {}
        for file in sorted(set(placed.values())):
            self._files[file] = open_file(index.parent / file)
            self._files[file].release()
        # A tensor that is in the index but not in its file stays listed, so that it is reported.
        self.entries = {
            name: self._files[file].entries.get(name, Entry((), f"not in {file}, where the index has it"))
            for name in in_order(placed)
            for file in [placed[name]]
        }
        self._last: Source | None = None

    def tensor(self, name: str) -> Tensor:
        """Return a tensor from its file."""
        file = self._files[self._file_of[name]]
        if name not in file.entries:
            raise Unreadable(f"not in {file.label}, where the index has it")
        if self._last is not None and self._last is not file:
            self._last.release()
        self._last = file
        return file.tensor(name)

    def release(self) -> None:
        """Close the open file."""
        if self._last is not None:
            self._last.release()


def open_file(path: Path) -> Source:
    """Open one file, of the format that its first bytes have."""
    try:
        with path.open("rb") as file:
            begins = file.read(9)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    # A safetensors file begins with the length of its header, and the header with a brace.
    if begins[8:] == b"{" or path.suffix == ".safetensors":
        return SafetensorsFile(path)
    return TorchFile(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises
    ------
    InputError
        If there is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def _weight_map(index: Path) -> dict[str, str]:
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise InputError(f"{index} must have a 'weight_map' from tensors to files, got {type(placed).__name__}")
    for name, file in placed.items():
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or "\0" in file or file in ("", ".."):
            raise InputError(f"{index} must name files in its own folder, got {file!r:.100} for {name!r:.100}")
        try:
            there = (index.parent / file).is_file()
        except OSError as error:  # a name that the file system does not allow
            raise InputError(
                f"{index} must name files in its own folder, got {file[:100]!r}: {error.strerror}"
            ) from error
        if not there:
            raise InputError(f"{index} names the file {file[:100]!r}, which is not there: is the download complete?")
    return placed
