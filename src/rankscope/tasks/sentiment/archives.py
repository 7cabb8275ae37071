"""Single files out of archives, into memory: nothing is unpacked to the disk, no link followed, sizes are bounded."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from rankscope.errors import InputError

MOST_BYTES = 200_000_000
"""Of a file in an archive; the largest that we take has 80 million."""
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Of zip archives. Others are found nowhere, and may ask for gigabytes before they unpack a byte."""


def names_in_zip(path: Path) -> list[str]:
    """Return the names of the files in a zip archive.

    Raises
    ------
    InputError
        If it is not a whole zip archive, or a name leads outside of it.
    """
    with _reading(str(path)), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    for name in names:
        _check_inside(name, str(path))
    return names


def from_zip(path: Path, name: str) -> bytes:
    """Return the content of a file in a zip archive.

    Raises
    ------
    InputError
        If the archive is damaged, or has no such file of a reasonable size, stored or deflated.
    """
    with _reading(str(path)), zipfile.ZipFile(path) as archive:
        try:
            item = archive.getinfo(name)
        except KeyError:
            raise InputError(f"{path} must hold {name}, got an archive without it") from None
        if item.compress_type not in COMPRESSIONS:
            raise InputError(f"{path} must hold {name} stored or deflated, got compression {item.compress_type}")
        size = item.file_size
        _check_size(size, name, str(path))
        with archive.open(name) as file:
            return _at_most(file, size, name, str(path))  # type: ignore[arg-type]


def from_tar(file: BinaryIO, name: str, archive_name: str) -> bytes:
    """Return the content of a file in a tar.gz archive. The members before it are looked at, too.

    Parameters
    ----------
    archive_name
        What to call the archive in messages.

    Raises
    ------
    InputError
        If the archive is damaged, has no such file of a reasonable size, or a name in it leads outside.
    """
    with _reading(archive_name), tarfile.open(fileobj=file, mode="r:gz") as archive:
        passed = 0
        for member in archive:
            _check_inside(member.name, archive_name)
            passed += member.size
            _check_size(passed, member.name, archive_name)
            if member.name == name:
                if not member.isreg():
                    raise InputError(f"{archive_name} must hold {name} as a file, got a link or folder")
                content = archive.extractfile(member)
                assert content is not None
                return _at_most(content, member.size, name, archive_name)  # type: ignore[arg-type]
    raise InputError(f"{archive_name} must hold {name}, got an archive without it")


@contextmanager
def _reading(archive: str) -> Iterator[None]:
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        # The libraries raise a dozen kinds, of their own and of the parts that they stumble over.
        raise InputError(
            f"{archive} must be a whole archive, got a damaged one ({error!s:.200}); fetch it again"
        ) from error


def _at_most(file: BinaryIO, size: int, name: str, archive: str) -> bytes:
    content = file.read(size + 1)
    if len(content) != size:
        raise InputError(f"{archive} must be a whole archive, got {name} with {len(content)} bytes, not {size}")
    return content


def _check_inside(name: str, archive: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or name[1:2] == ":":
        raise InputError(f"{archive} must hold only paths inside it, got {name!r}; do not trust this file")


def _check_size(size: int, name: str, archive: str) -> None:
    if size > MOST_BYTES:
        raise InputError(f"{archive} must unpack to at most {MOST_BYTES} bytes, got {size} up to {name!r}")
