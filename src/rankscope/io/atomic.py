"""Atomic writes: an interruption at any moment leaves the old file or the new one.

The bytes go to a temporary file beside the target, are flushed to the disk, and take the target's name in one step.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rankscope.errors import InputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it replaces `path`, on failure it is removed.

    Raises
    ------
    InputError
        If `path` is a folder, or its own folder cannot be made or written to.
    """
    target = Path(path)
    make_folder(target.parent)
    try:
        if target.is_dir():
            raise InputError(f"path must be a file to write, got the folder {str(target)!r}")
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        raise InputError(f"cannot write in {target.parent}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        force_to_disk(temporary)
        temporary.chmod(0o644)
        temporary.replace(target)
        force_to_disk(target.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Make `folder` and its parents if they are not there, and check that it can be written to.

    Raises
    ------
    InputError
        If it cannot be made, or is not writable.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise InputError(f"the folder {path} is not writable")
    return path


def force_to_disk(path: Path) -> None:
    """Flush a file or folder from the system's cache to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
