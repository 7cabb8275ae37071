"""Files of any format, and checkpoints in several files with an index of the tensors in each.

The safetensors library checks that the header of a file describes exactly its bytes; nothing in such a file can run.
An index is a JSON file in the format of Hugging Face: `{"weight_map": {"name of a tensor": "name of a file"}}`. As it
may come from an untrusted source, it can name files of its own folder only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rankscope.checkpoints.formats.hdf5_file import HDF5, MATLAB_HDF5, Hdf5File, is_keras_archive
from rankscope.checkpoints.formats.matlab_file import BEGINS as MATLAB
from rankscope.checkpoints.formats.matlab_file import MatlabFile
from rankscope.checkpoints.formats.numpy_file import MAGIC as NUMPY
from rankscope.checkpoints.formats.numpy_file import NumpyFile, is_npz
from rankscope.checkpoints.formats.onnx_file import OnnxFile
from rankscope.checkpoints.formats.torch_archive import is_legacy
from rankscope.checkpoints.formats.torch_file import TorchFile
from rankscope.checkpoints.other_formats import other_format
from rankscope.checkpoints.source import Entry, Mapped, Source, Unreadable, in_order
from rankscope.errors import InputError
from rankscope.io import tensor_file

DTYPES = tensor_file.DTYPES | {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}


class SafetensorsFile(Mapped):
    """One safetensors file."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self.entries = {}
        try:
            with self._open() as file:
                for name in in_order(file.keys()):
                    tensor = file.get_slice(name)
                    kind = tensor.get_dtype()
                    dtype = DTYPES.get(kind, f"of type {kind}, which is not read")
                    self.entries[name] = Entry(tuple(tensor.get_shape()), dtype)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"{path} is not a readable safetensors file ({error}); if it should be one, copy it again, "
                f"it has {path.stat().st_size} bytes"
            ) from error

    def _open(self) -> Any:
        return safe_open(self.path, framework="pt")

    def _view(self, opened: Any, name: str) -> Tensor:
        tensor: Tensor = opened.get_tensor(name)
        return tensor


class Shards(Source):
    """All files of an index as one checkpoint; one file is open at a time."""

    def __init__(self, index: Path) -> None:
        self.label, self.folder = str(index), index.parent
        self._file_of = _weight_map(index)
        self._files: dict[str, Source] = {}
        for file in sorted(set(self._file_of.values())):
            self._files[file] = open_file(index.parent / file)
            self._files[file].release()
        # A tensor that is in the index but not in its file stays listed, so that it is reported.
        self.entries = {}
        for name in in_order(self._file_of):
            file = self._file_of[name]
            missing = Entry((), f"not in {file}, where the index has it")
            self.entries[name] = self._files[file].entries.get(name, missing)
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


def open_file(path: Path, key: str | None = None) -> Source:
    """Open one file, of the format that its first bytes have.

    Parameters
    ----------
    key
        Name of a state dict, for files that hold several.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(512)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    # A safetensors file begins with the length of its header, and the header with a brace.
    if begins[8:9] == b"{":
        return SafetensorsFile(path)
    if begins.startswith(NUMPY) or (begins.startswith(b"PK") and is_npz(path)):
        return NumpyFile(path)
    if begins.startswith((HDF5, MATLAB_HDF5)) or (begins.startswith(b"PK") and is_keras_archive(path)):
        return Hdf5File(path)
    if begins.startswith(MATLAB):
        return MatlabFile(path)
    if path.suffix == ".onnx" and begins and not begins.startswith((b"version https", b"<")):
        return OnnxFile(path)
    if not is_legacy(begins) and (what := other_format(path, begins)):
        raise InputError(f"{path} is {what}")
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path, key)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, or raise `InputError`."""
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
