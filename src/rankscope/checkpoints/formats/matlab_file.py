"""MATLAB files of versions 5 to 7.2, by scipy.io. Version 7.3 is HDF5.

Such a file is a header of 128 bytes and one element for each variable, most of them compressed. One element with the
header before it is a file, too, so that one variable is read at a time, by its place.
"""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io
import torch
from torch import Tensor

from rankscope.checkpoints.formats.numpy_file import LARGEST_RATIO, SMALL_BYTES
from rankscope.checkpoints.source import Entry, Source, Unreadable
from rankscope.errors import InputError

BEGINS = b"MATLAB 5.0"
HEADER = 128
DESCRIBED = 65_536
"""Bytes of an element that hold name, shape and class of its variable, and more."""

CLASSES = {
    "double": np.float64,
    "single": np.float32,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "logical": np.bool_,
}
ADVICE = {
    "struct": "a struct, which is not read; save its fields as variables, save(file, '-struct', 'name')",
    "sparse": "sparse, not a plain matrix",
    "cell": "a cell array, which is not read",
}


class Element(NamedTuple):
    """Where the element of a variable is in the file."""

    start: int
    size: int


class MatlabFile(Source):
    """The variables of a .mat file; each has two axes or more, also a vector."""

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self._path = path
        self._elements: dict[str, Element] = {}
        self.entries: dict[str, Entry] = {}
        try:
            with path.open("rb") as file:
                header, whole = file.read(HEADER), path.stat().st_size
                order = "<" if header[126:128] == b"IM" else ">"
                start = HEADER
                while start < whole:
                    _, size = struct.unpack(f"{order}II", file.read(8))
                    if start + 8 + size > whole:
                        raise ValueError("a variable ends after the file")
                    file.seek(start)
                    self._describe(header + file.read(min(8 + size, DESCRIBED)), Element(start, 8 + size))
                    file.seek(start + 8 + size)
                    start += 8 + size
        except Exception as error:  # for damaged files the library raises nearly anything
            raise InputError(f"{path} is not a readable MATLAB file: {error!s:.300}") from error
        if not self.entries:
            raise InputError(f"{path} must hold variables, got a MATLAB file without any")

    def tensor(self, name: str) -> Tensor:
        """Return a variable as a tensor."""
        try:
            with self._path.open("rb") as file:
                header = file.read(HEADER)
                file.seek(self._elements[name].start)
                content = header + file.read(self._elements[name].size)
            # Numbers may be stored in a smaller type; they are converted below, as mat_dtype drops imaginary parts.
            array = scipy.io.loadmat(io.BytesIO(content), variable_names=[name])[name]
            if np.iscomplexobj(array):
                raise ValueError("of complex numbers")
            dtype = self.entries[name].dtype
            assert isinstance(dtype, torch.dtype)
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False)).to(dtype)
        except Exception as error:
            raise Unreadable(f"cannot be read from {self.label}: {error!s:.300}") from error

    def _describe(self, content: bytes, place: Element) -> None:
        for name, shape, kind in scipy.io.whosmat(io.BytesIO(content)):
            if name in self.entries:
                raise ValueError(f"two variables are called {name[:100]!r}")
            if name and not name.startswith("__"):
                self.entries[name] = _entry(tuple(map(int, shape)), kind, place.size)
                self._elements[name] = place


def _entry(shape: tuple[int, ...], kind: str, stored: int) -> Entry:
    if kind not in CLASSES:
        return Entry(shape, ADVICE.get(kind, f"of the class {kind[:100]}, which is not read"))
    needed = math.prod(shape) * np.dtype(CLASSES[kind]).itemsize
    if needed > max(SMALL_BYTES, LARGEST_RATIO * stored):
        return Entry(shape, "of less than 1 % of its size in the file")
    return Entry(shape, torch.from_numpy(np.empty(0, CLASSES[kind])).dtype)
