"""Arrays of NumPy: one in a .npy file, several in a .npz archive. Pickled objects are not read.

The shape in the header of an array is compared with the size of its data before memory is allocated.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from rankscope.checkpoints.source import Entry, Source, Unreadable, in_order
from rankscope.errors import InputError

MAGIC = b"\x93NUMPY"
SINGLE = "array"
"""Name of the only array of a .npy file."""

LARGEST_RATIO = 100
SMALL_BYTES = 100_000_000
"""A compressed array larger than this must not unpack to more than LARGEST_RATIO times its size in the archive."""


class NumpyFile(Source):
    """A .npy or .npz file."""

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self._path = path
        self._archive: zipfile.ZipFile | None = None
        self._members: dict[str, str] = {}
        self.entries = {}
        try:
            if not zipfile.is_zipfile(path):
                with path.open("rb") as file:
                    self.entries[SINGLE] = _entry(file, path.stat().st_size)
                return
            with zipfile.ZipFile(path) as archive:
                self._members = {
                    item.removesuffix(".npy"): item for item in archive.namelist() if item.endswith(".npy")
                }
                for name in in_order(self._members):
                    item = archive.getinfo(self._members[name])
                    if item.file_size > max(SMALL_BYTES, LARGEST_RATIO * item.compress_size):
                        raise ValueError(f"{name[:100]!r} is compressed to less than 1 % of its size")
                    with archive.open(item) as file:
                        self.entries[name] = _entry(file, item.file_size)
        except Exception as error:
            # For damaged headers and archives the libraries raise nearly anything, tokenize.TokenError among them.
            raise InputError(f"{path} is not a readable file of NumPy: {error!s:.300}") from error
        if not self.entries:
            raise InputError(f"{path} must hold arrays of NumPy, got an archive without .npy files")

    def tensor(self, name: str) -> Tensor:
        """Return an array as a tensor."""
        try:
            if not self._members:
                return torch.from_numpy(np.load(self._path, allow_pickle=False))
            if self._archive is None:  # kept open, as reading its directory takes time linear in all arrays
                self._archive = zipfile.ZipFile(self._path)
            with self._archive.open(self._members[name]) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)  # type: ignore[no-untyped-call]
                return torch.from_numpy(array)
        except Exception as error:
            raise Unreadable(f"cannot be read from {self.label}: {error!s:.300}") from error

    def release(self) -> None:
        """Close the archive."""
        if self._archive is not None:
            self._archive.close()
        self._archive = None


def is_npz(path: Path) -> bool:
    """Return whether a zip archive holds .npy files."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except Exception:  # what is no archive is not told by one kind of error
        return False


def _entry(file: IO[bytes], size: int) -> Entry:
    """Return shape and type of the array whose file begins here and has `size` bytes."""
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format is not read")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)  # type: ignore[no-untyped-call]
    if dtype.hasobject:
        return Entry(shape, "of Python objects, which are pickled and can run code")
    if math.prod(shape) * dtype.itemsize > size - file.tell():
        raise ValueError(f"its shape {shape} is larger than its data")
    try:
        return Entry(shape, torch.from_numpy(np.empty(0, dtype)).dtype)
    except TypeError:
        return Entry(shape, f"of type {dtype!s:.100}, which is not read")
