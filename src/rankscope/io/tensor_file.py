"""Safetensors files with checksums.

A file is laid out as in the safetensors format: a length, a JSON header (names, dtypes, shapes, offsets and metadata),
and the numbers. Its metadata also holds the SHA-256 of the header and that of the numbers, so that metadata can be
trusted after reading the header alone, and no number is returned from a file whose content has changed. Any other
reader of safetensors reads the files too.

Files may come from anybody. Lengths, offsets, dtypes and shapes are compared with the size of the file before memory
is allocated, and nothing in a file is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.errors import InputError
from rankscope.io.atomic import replacing

LARGEST_HEADER = 50_000_000
HEADER_CHECKSUM, DATA_CHECKSUM = "header_sha256", "data_sha256"
_MARK = f'"{HEADER_CHECKSUM}":"'.encode()
_NO_CHECKSUM = b"0" * 64

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_SIZES = {name: dtype.itemsize for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """Position of one tensor in a file: dtype by its name in the format, shape, and the bytes [begin, end)."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class TensorFile:
    """Header of a file whose checksum is right and, after `read_file`, its numbers.

    Attributes
    ----------
    path
        Where it was read from.
    metadata
        Text by name.
    entries
        The tensors by name.
    data
        Their bytes, or None after `read_header`.
    """

    path: Path
    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]
    data: bytearray | None = None

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, without a copy."""
        assert self.data is not None
        entry = self.entries[name]
        dtype = DTYPES[entry.dtype]
        if entry.begin == entry.end:
            return torch.empty(entry.shape, dtype=dtype)
        count = math.prod(entry.shape)
        return torch.frombuffer(self.data, dtype=dtype, count=count, offset=entry.begin).reshape(entry.shape)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, in alphabetical order."""
        return {name: self.tensor(name) for name in sorted(self.entries)}

    def array(self, name: str) -> NDArray[Any]:
        """Return a tensor as a numpy array, without a copy."""
        array: NDArray[Any] = self.tensor(name).numpy()
        return array


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor | NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write tensors or arrays and metadata to `path`, atomically and with checksums.

    Raises
    ------
    InputError
        If a dtype cannot be stored, or the folder cannot be written to.
    OSError
        If the disk is full.
    """
    stored = {name: _contiguous(name, values) for name, values in tensors.items()}
    # As the safetensors library does: large items first, so that all are aligned.
    names = sorted(stored, key=lambda name: (-stored[name].dtype.itemsize, name))
    checksum = hashlib.sha256()
    header: dict[str, Any] = {}
    begin = 0
    for name in names:
        tensor = stored[name]
        checksum.update(_bytes_of(tensor))
        end = begin + tensor.numel() * tensor.dtype.itemsize
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    checksums = {HEADER_CHECKSUM: _NO_CHECKSUM.decode(), DATA_CHECKSUM: checksum.hexdigest()}
    metadata = {name: text for name, text in metadata.items() if name not in checksums}
    text = json.dumps({"__metadata__": {**checksums, **metadata}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise InputError(f"metadata of {path} must be smaller than {LARGEST_HEADER} bytes, got {len(text)}")
    text = text.replace(_MARK + _NO_CHECKSUM, _MARK + hashlib.sha256(text).hexdigest().encode(), 1)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            file.write(_bytes_of(stored[name]))


def read_header(path: str | os.PathLike[str]) -> TensorFile:
    """Return names, shapes and metadata of a file; its numbers are not read.

    Raises
    ------
    InputError
        If the file is missing, is not a safetensors file with checksums, or its header has changed since it was
        written.
    """
    return _read(Path(path), with_data=False)


def read_file(path: str | os.PathLike[str]) -> TensorFile:
    """Return a file with its numbers.

    Raises
    ------
    InputError
        As `read_header`; also if the numbers have changed since they were written.
    """
    return _read(Path(path), with_data=True)


def _read(path: Path, with_data: bool) -> TensorFile:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            metadata, entries, begin = _header(file, size)
            if not with_data:
                return TensorFile(path, metadata, entries)
            data = bytearray(size - begin)
            if file.readinto(data) != len(data):
                raise ValueError("it is cut short")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path} is not a whole rankscope file: {error!s:.300}") from error
    if hashlib.sha256(data).hexdigest() != metadata[DATA_CHECKSUM]:
        raise InputError(f"{path} has changed since it was written: its checksum does not match its numbers")
    return TensorFile(path, metadata, entries, data)


def _header(file: BinaryIO, size: int) -> tuple[dict[str, str], dict[str, Entry], int]:
    """Return metadata, entries and where the numbers begin.

    Raises
    ------
    ValueError, TypeError, KeyError, RecursionError
        If the header is none, is damaged, or does not describe a file of `size` bytes.
    """
    length = int.from_bytes(file.read(8), "little")
    begin = 8 + length
    if size < 8 or begin > size or length > LARGEST_HEADER:
        raise ValueError(f"its header is to have {length} bytes, and the file has {size}")
    text = file.read(length)
    mark = text.find(_MARK)
    if mark < 0:
        raise ValueError("its header has no checksum")
    mark += len(_MARK)
    cleared = text[:mark] + _NO_CHECKSUM + text[mark + 64 :]
    if hashlib.sha256(cleared).hexdigest().encode() != text[mark : mark + 64]:
        raise ValueError("its header has changed since it was written")
    header = json.loads(text)
    metadata = header.pop("__metadata__")
    if not all(type(value) is str for value in metadata.values()) or DATA_CHECKSUM not in metadata:
        raise ValueError("its metadata is not text")
    entries = {name: _entry(name, described) for name, described in header.items()}
    at = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != at:
            raise ValueError("its tensors overlap or leave gaps")
        at = entry.end
    if begin + at != size:
        raise ValueError(f"its tensors end at byte {begin + at}, and the file has {size}")
    return metadata, entries, begin


def _entry(name: str, described: Any) -> Entry:
    dtype, shape, (begin, end) = described["dtype"], described["shape"], described["data_offsets"]
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)) or len(shape) > 32:
        raise ValueError(f"{name[:40]!r} has the shape {shape!r:.100}")
    if end - begin != math.prod(shape) * _SIZES[dtype]:
        raise ValueError(f"{name[:40]!r} has {end - begin} bytes, which is not the size of its shape")
    return Entry(dtype, tuple(shape), begin, end)


def _contiguous(name: str, values: Tensor | NDArray[Any]) -> Tensor:
    if not isinstance(values, Tensor):
        try:
            values = torch.from_numpy(np.array(values, order="C"))  # a copy, as torch warns of read-only memory
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} must be numbers or booleans to be stored, got {values.dtype}") from error
    if values.dtype not in _NAMES:
        raise InputError(f"{name} must have one of the dtypes {', '.join(map(str, _NAMES))}, got {values.dtype}")
    return values.detach().cpu().contiguous()


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")
