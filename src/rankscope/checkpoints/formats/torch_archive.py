"""Containers of `torch.save` and TorchScript: where a file has its pickle, and where its data.

Since torch 1.6 a file is a zip archive with a pickle and uncompressed data; before, it was several pickles and the
data, one after the other.
"""

from __future__ import annotations

import mmap
import struct
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from rankscope.checkpoints.formats.pickles import RunsCode, interpret
from rankscope.checkpoints.formats.torch_tensors import CALLS, Span, storage_of, whole
from rankscope.errors import InputError

NUMBER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""At the beginning of a file in the format before torch 1.6: a pickle of a certain number."""

MOST_CODE = 50_000_000
"""Bytes of the classes' code in a TorchScript archive."""


class Saved(NamedTuple):
    """Content of a file: the object in its pickle, the places of the data, and code by name (TorchScript only)."""

    root: Any
    spans: Mapping[str, Span]
    swapped: bool  # numbers are in the other byte order than the machine's
    code: Mapping[str, str] | None


def is_legacy(begins: bytes) -> bool:
    """Return whether the first bytes of a file are those of the format before torch 1.6."""
    return begins.startswith(b"\x80") and NUMBER in begins[:30]


def read_saved(path: Path, start: int = 0, size: int | None = None) -> Saved:
    """Return the content of a file, or of a range of bytes in it; the data are not read.

    Raises
    ------
    InputError
        If it is no such file, is damaged, or its pickle would run code.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        window = Window(content, start, len(content) - start if size is None else size)
        try:
            return _legacy(window) if is_legacy(window.read(64)) else _archive(window, path)
        except InputError:
            raise
        except RunsCode as error:
            raise InputError(
                f"{path} holds a pickle that calls code ({error}); it was refused and nothing of it was run: "
                "save the state dict alone, torch.save(model.state_dict(), path), or use safetensors"
            ) from error
        except Exception as error:  # for damaged pickles and archives the libraries raise nearly anything
            raise InputError(
                f"{path} is not a readable file of torch.save: it is damaged or cut off "
                f"({type(error).__name__}: {error!s:.200})"
            ) from error


class Window:
    """A range of bytes of a mapped file, as a file. Reading beyond the end allocates nothing."""

    def __init__(self, content: mmap.mmap, start: int, size: int) -> None:
        if start < 0 or size < 0 or start + size > len(content):
            raise ValueError("a range of bytes is outside the file")
        self.start, self.size = start, size
        self._content, self._at = content, 0

    def read(self, count: int | None = -1) -> bytes:
        """Return up to `count` bytes; all for -1."""
        end = self.size if count is None or count < 0 else min(self.size, self._at + count)
        data = self._content[self.start + self._at : self.start + max(end, self._at)]
        self._at = max(end, self._at)
        return data

    def readline(self) -> bytes:
        """Return bytes up to the next end of a line."""
        begin = self.start + self._at
        found = self._content.find(b"\n", begin, self.start + self.size)
        return self.read((found + 1 if found >= 0 else self.start + self.size) - begin)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset from the beginning (0), here (1) or the end (2)."""
        target = offset + (0, self._at, self.size)[whence]
        if target < 0:
            raise OSError("before the beginning of the file")
        self._at = target
        return target

    def readinto(self, buffer: memoryview) -> int:
        """Read into a buffer; return the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def tell(self) -> int:
        """Return the offset from the beginning."""
        return self._at

    def seekable(self) -> bool:
        """Return True."""
        return True


def _archive(window: Window, path: Path) -> Saved:
    try:
        archive = zipfile.ZipFile(window)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        window.seek(0)
        remedy = ": it is an archive that was cut off; copy it again"
        remedy = remedy if window.read(2) == b"PK" else ", nor another known checkpoint"
        raise InputError(f"{path} is not a file of torch.save ({error}){remedy}") from error
    items = {item.filename: item for item in archive.infolist()}
    if len(items) < len(archive.infolist()):
        raise InputError(f"{path} must be an archive whose files have different names, as torch.save writes it")
    pickles = [name for name in items if name.rsplit("/", 1)[-1] == "data.pkl" and name.count("/") <= 1]
    if len(pickles) != 1:
        raise InputError(f"{path} must be an archive of torch.save, with one data.pkl, got {_other(items)}")
    top = pickles[0].removesuffix("data.pkl")
    spans = {}
    for name, item in items.items():
        if name.startswith(top + "data/") or name in (pickles[0], top + "byteorder"):
            if item.compress_type != zipfile.ZIP_STORED:
                raise InputError(f"{path} must be uncompressed, as torch.save writes it, got {name[:100]!r}")
            # Not through `archive`, which refuses wrong checksums: torch ignores them, and need not write them.
            spans[name.removeprefix(top).removeprefix("data/")] = span_of(window, item)

    def content(name: str) -> bytes:
        span = spans[name]
        window.seek(span.start)
        return window.read(span.size)

    order = content("byteorder").decode() if "byteorder" in spans else "little"
    root = interpret(content("data.pkl"), CALLS, storage_of)
    placed = {key: Span(window.start + span.start, span.size) for key, span in spans.items()}
    return Saved(root, placed, order != sys.byteorder, _code(archive, top) if top + "constants.pkl" in items else None)


def _other(names: Iterable[str]) -> str:
    """Return what another zip archive is, and what to do."""
    ends = {name.rsplit("/", 1)[-1] for name in names}
    if "archive_format" in ends:
        return "a program of torch.export; pass torch.export.load(path).state_dict"
    if "extern_modules" in ends:
        return "a package of torch.package, which runs its code when it is loaded; save its state dict with torch.save"
    return "another archive; unpack it and name the file in it"


def span_of(window: Window, item: zipfile.ZipInfo) -> Span:
    """Return where an uncompressed file is in an archive."""
    window.seek(item.header_offset + 26)
    begin = item.header_offset + 30 + sum(struct.unpack("<HH", window.read(4)))
    if begin + item.file_size > window.size:
        raise ValueError(f"{item.filename[:100]!r} ends after the file")
    return Span(begin, item.file_size)


def _code(archive: zipfile.ZipFile, top: str) -> dict[str, str]:
    """Return the code of TorchScript's classes by module, `__torch__.torch.nn.modules.linear`."""
    items = [item for item in archive.infolist() if item.filename.startswith(top + "code/")]
    items = [item for item in items if item.filename.endswith(".py")]
    if sum(item.file_size for item in items) > MOST_CODE:
        raise ValueError("its code is too large")
    return {
        item.filename.removeprefix(top + "code/").removesuffix(".py").replace("/", "."): archive.read(item).decode()
        for item in items
    }


def _legacy(window: Window) -> Saved:
    """Read the pickles (two numbers, the platform, the object, the keys of the data), and then the data."""
    types: dict[str, torch.dtype | str] = {}

    def found(identity: Any) -> Any:
        if identity[0] == "module":  # a class, with the text of its file
            return identity[1]
        storage = storage_of(identity)
        types[storage.key] = storage.dtype
        return storage

    window.seek(0)
    interpret(window, {}, found)
    interpret(window, {}, found)
    platform = interpret(window, {}, found)
    root = interpret(window, CALLS, found)
    keys = interpret(window, {}, found)
    little = platform.get("little_endian", True) if isinstance(platform, dict) else True
    spans = {}
    order: Literal["little", "big"] = "little" if little else "big"
    for key in keys:
        kind = types[key]
        if isinstance(kind, str):
            raise ValueError(f"data are {kind}")
        size = whole(int.from_bytes(window.read(8), order)) * kind.itemsize
        if window.tell() + size > window.size:
            raise ValueError("data end after the file")
        spans[key] = Span(window.start + window.tell(), size)
        window.seek(size, 1)
    return Saved(root, spans, order != sys.byteorder, None)
