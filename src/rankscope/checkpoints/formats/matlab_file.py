"""MATLAB files of versions 5 to 7.2: matrices, also in the fields of structs. Version 7.3 is HDF5.

The reader is ours, as `scipy.io.loadmat` crashes the process for damaged files (scipy 1.17, found by fuzzing). It
follows "MAT-File Format" by The MathWorks. A file is a header of 128 bytes and one element for each variable, most of
them compressed. An element is a tag (type, number of bytes) and its data; that of a matrix holds elements: flags with
the class, the dimensions, the name, the numbers by columns, and the imaginary parts.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankscope.checkpoints.formats.numpy_file import LARGEST_RATIO, SMALL_BYTES
from rankscope.checkpoints.source import Entry, Source, Unreadable
from rankscope.errors import InputError

BEGINS = b"MATLAB 5.0"
HEADER = 128
MATRIX, COMPRESSED = 14, 15
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Types of numbers in a file."""

CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""Classes of matrices."""

OTHERS = {1: "a cell array", 2: "an array of structs", 4: "a text", 5: "a sparse matrix", 16: "a function"}
STRUCT = 2
COMPLEX, LOGICAL = 0x0800, 0x0200
HEAD = 4096
"""Bytes that flags, dimensions and name of a matrix fit in."""

DEEPEST = 20
MOST_NAMES = 300_000


class Element(NamedTuple):
    """Where the data of a variable are in the file."""

    start: int
    size: int
    compressed: bool


class Matrix(NamedTuple):
    """Where the numbers of a matrix are in the uncompressed data of its variable, and their type."""

    element: Element
    start: int
    size: int
    stored: str


class MatlabFile(Source):
    """The matrices of a .mat file, by the name of the variable, or `net.W` for a field of a struct."""

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self._path = path
        self._order = "<"
        self._last: tuple[Element, bytes] | None = None
        self._matrices: dict[str, Matrix] = {}
        self.entries: dict[str, Entry] = {}
        try:
            with path.open("rb") as file:
                self._order = "<" if file.read(HEADER)[126:128] == b"IM" else ">"
                for element in self._elements(path.stat().st_size):
                    self._describe(element)
        except Exception as error:  # whatever a damaged file makes go wrong
            raise InputError(f"{path} is not a readable MATLAB file: {error!s:.300}") from error
        self.release()
        if not self.entries:
            raise InputError(f"{path} must hold variables, got a MATLAB file without any")

    def tensor(self, name: str) -> Tensor:
        """Return a matrix."""
        entry = self.entries[name]
        try:
            matrix = self._matrices[name]
            data = self._content(matrix.element, matrix.start + matrix.size)[matrix.start :][: matrix.size]
            numbers = np.frombuffer(data, np.dtype(self._order + matrix.stored)).reshape(entry.shape, order="F")
            native = np.ascontiguousarray(numbers.astype(numbers.dtype.newbyteorder("=")))
            assert isinstance(entry.dtype, torch.dtype)
            return torch.from_numpy(native).to(entry.dtype)
        except Exception as error:
            raise Unreadable(f"cannot be read from {self.label}: {error!s:.300}") from error

    def release(self) -> None:
        """Forget the data of the last variable."""
        self._last = None

    def _elements(self, whole: int) -> Iterator[Element]:
        """Yield the elements of the variables."""
        start = HEADER
        with self._path.open("rb") as file:
            while start < whole:
                file.seek(start)
                kind, size = struct.unpack(f"{self._order}II", file.read(8))
                if start + 8 + size > whole:
                    raise ValueError("a variable ends after the file")
                if kind in (MATRIX, COMPRESSED):
                    yield Element(start + 8, size, kind == COMPRESSED)
                start += 8 + size

    def _content(self, element: Element, most: int) -> bytes:
        """Return the beginning of the uncompressed data of a variable, `most` bytes or more if there are so many."""
        if self._last is not None and self._last[0] == element and len(self._last[1]) >= most:
            return self._last[1]
        self._last = None
        with self._path.open("rb") as file:
            file.seek(element.start)
            content = file.read(element.size if element.compressed else min(most, element.size))
        if element.compressed:
            # The tag of the matrix is compressed with it.
            content = zlib.decompressobj().decompress(content, most + 8)[8:]
        self._last = element, content
        return content

    def _describe(self, element: Element) -> None:
        head = self._content(element, HEAD)
        if _Parts(head, self._order).flags() & 0xFF == STRUCT:
            head = self._content(element, max(SMALL_BYTES, LARGEST_RATIO * element.size))
        self._add("", head, 0, len(head), element, 0)

    def _add(self, prefix: str, content: bytes, start: int, end: int, element: Element, depth: int) -> None:
        """Add a matrix whose parts are in a range of the content, or the fields of a struct."""
        if start == end:  # an empty field
            return
        parts = _Parts(content, self._order, start)
        flags, shape, name = parts.flags(), parts.numbers("i4"), parts.text()
        kind, name = flags & 0xFF, prefix or name
        if not name or name.startswith("__"):  # data of MATLAB's own
            return
        if any(size < 0 for size in shape) or len(shape) > 64 or len(self.entries) > MOST_NAMES:
            raise ValueError(f"{name[:100]!r} has a shape that is not possible")
        if kind == STRUCT and math.prod(shape) == 1 and depth < DEEPEST:
            for field, inner, last in parts.fields():
                self._add(f"{name}.{field}", content, inner, last, element, depth + 1)
            return
        if name in self.entries:
            raise ValueError(f"two variables are called {name[:100]!r}")
        if kind not in CLASSES:
            self.entries[name] = Entry(shape, f"{OTHERS.get(kind, 'an object')}, which is not read")
        elif flags & COMPLEX:
            self.entries[name] = Entry(shape, "of complex numbers")
        else:
            self._numbers(name, shape, "?" if flags & LOGICAL else CLASSES[kind], parts, element)

    def _numbers(self, name: str, shape: tuple[int, ...], kind: str, parts: _Parts, element: Element) -> None:
        stored, start, size = parts.tag()
        code, dtype = STORED.get(stored, ""), np.dtype(kind)
        needed = math.prod(shape) * (np.dtype(code).itemsize if code else 1)
        if not code or (dtype.kind != "f" and (code[0] == "f" or np.dtype(code).itemsize > max(1, dtype.itemsize))):
            self.entries[name] = Entry(shape, "damaged: its numbers are of another type")
        elif size != needed:
            self.entries[name] = Entry(shape, f"damaged: its shape needs {needed} bytes, and there are {size}")
        elif math.prod(shape) * dtype.itemsize > max(SMALL_BYTES, LARGEST_RATIO * element.size):
            self.entries[name] = Entry(shape, "of less than 1 % of its size in the file")
        else:
            self.entries[name] = Entry(shape, torch.from_numpy(np.empty(0, dtype)).dtype)
            self._matrices[name] = Matrix(element, start, size, code)


class _Parts:
    """The elements that a matrix consists of, one after the other."""

    def __init__(self, content: bytes, order: str, start: int = 0) -> None:
        self._content, self._order, self._at = content, order, start

    def tag(self) -> tuple[int, int, int]:
        """Return type, offset and number of bytes of the next element, and go on after it."""
        (word,) = struct.unpack_from(f"{self._order}I", self._content, self._at)
        if word >> 16:  # up to four bytes, in the tag itself
            start, size, kind = self._at + 4, word >> 16, word & 0xFFFF
            self._at += 8
            if size > 4:
                raise ValueError("a short element has more than four bytes")
            return kind, start, size
        (size,) = struct.unpack_from(f"{self._order}I", self._content, self._at + 4)
        start = self._at + 8
        self._at = start + size + -size % 8
        return word, start, size

    def _data(self) -> bytes:
        _, start, size = self.tag()
        if start + size > len(self._content):
            raise ValueError("a variable is cut off")
        return self._content[start : start + size]

    def flags(self) -> int:
        """Return flags and class."""
        (flags,) = struct.unpack_from(f"{self._order}I", self._data())
        return int(flags)

    def numbers(self, kind: str) -> tuple[int, ...]:
        """Return an element of integers."""
        return tuple(map(int, np.frombuffer(self._data(), np.dtype(self._order + kind))))

    def text(self) -> str:
        """Return an element of letters."""
        return self._data().decode("latin-1")

    def fields(self) -> Iterator[tuple[str, int, int]]:
        """Yield the fields of a struct: name, and range of its matrix."""
        (length,) = self.numbers("i4")
        names = self._data()
        if not 0 < length <= HEAD:
            raise ValueError("the names of fields have no length")
        for at in range(0, len(names), length):
            kind, start, size = self.tag()
            if kind != MATRIX or start + size > len(self._content):
                raise ValueError("a field is cut off")
            yield names[at : at + length].split(b"\0")[0].decode("latin-1"), start, start + size
