"""Read single files from archives into memory: nothing is unpacked to disk, no link followed, sizes are limited."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from rankscope.errors import InputError

MOST_BYTES = 200_000_000
"""Largest accepted size of a file in an archive; the largest file read has 80 million bytes."""
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Accepted compressions of zip archives. Other decoders can allocate gigabytes before they unpack a byte."""


def names_in_zip(path: Path) -> list[str]:
    """Return the names of the files in a zip archive.

    Raises
    ------
    InputError
        If it is not a complete zip archive, or a name in it refers to a path outside.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    for name in names:
        _check_inside(name, path)
    return names


def from_zip(path: Path, name: str) -> bytes:
    """Return the content of a file in a zip archive.

    Raises
    ------
    InputError
        If the archive is damaged, or has no such file of a reasonable size, stored or deflated.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():
            raise InputError(f"{path} must hold {name}, got an archive without it")
        item = archive.getinfo(name)
        if item.compress_type not in COMPRESSIONS:
            raise InputError(f"{path} must hold {name} stored or deflated, got compression {item.compress_type}")
        _check_size(item.file_size, name, path)
        with archive.open(name) as file:
            return _whole(file, item.file_size, name, path)


def from_tar(file: BinaryIO, name: str, label: str) -> bytes:
    """Return the content of a file in a tar.gz archive, which is called `label` in messages.

    Raises
    ------
    InputError
        If the archive is damaged, has no such file of a reasonable size, or a member before it refers to a path
        outside.
    """
    with _reading(label), tarfile.open(fileobj=file, mode="r:gz") as archive:
        passed = 0
        for member in archive:
            _check_inside(member.name, label)
            passed += member.size
            _check_size(passed, member.name, label)
            if member.name == name:
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    raise InputError(f"{label} must hold {name} as a file, got a link or folder")
                return _whole(content, member.size, name, label)
    raise InputError(f"{label} must hold {name}, got an archive without it")


@contextmanager
def _reading(archive: Path | str) -> Iterator[None]:
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        # tarfile, zipfile and zlib raise a dozen types of exceptions for damaged archives.
        raise InputError(
            f"{archive} must be a complete archive, got a damaged one ({error!s:.200}); download it again"
        ) from error


def _whole(file: IO[bytes], size: int, name: str, archive: Path | str) -> bytes:
    content = file.read(size + 1)
    if len(content) != size:
        raise InputError(f"{archive} must be a complete archive, got {name} with {len(content)} bytes, not {size}")
    return content


def _check_inside(name: str, archive: Path | str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or name[1:2] == ":":
        raise InputError(f"{archive} must hold only paths inside it, got {name!r}; do not trust this file")


def _check_size(size: int, name: str, archive: Path | str) -> None:
    if size > MOST_BYTES:
        raise InputError(f"{archive} must unpack to at most {MOST_BYTES} bytes, got {size} up to {name!r}")
