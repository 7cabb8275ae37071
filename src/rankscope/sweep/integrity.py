"""The seal at the end of a result file: whose it is, how long it is, and a checksum of all that comes before.

HDF5 keeps checksums of a few structures only. A flipped bit elsewhere is read as another number, and in the wrong place
it crashes or holds the library itself. So each result ends with a line of text that HDF5 does not look at. Its last
`LENGTH` bytes tell in no time whether a file is whole and whose it is; the checksum is looked at before the file is
opened. A file without a seal is no result.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

LENGTH = 256
MARK = b"\nrankscope seal 1: "
LINE = re.compile(re.escape(MARK) + rb"(\d{20}) bytes, sha256 ([0-9a-f]{64}), cell ([A-Za-z0-9_-]{1,100}) *\n")


@dataclass(frozen=True)
class Seal:
    """What a seal says: the length in bytes of what it seals, its SHA-256, and the digest of its cell."""

    content_length: int
    checksum: str
    digest: str


def sealed(content: bytes, digest: str) -> bytes:
    """Return `content` with a seal behind it."""
    checksum = hashlib.sha256(content).hexdigest()
    line = MARK + f"{len(content):020d} bytes, sha256 {checksum}, cell {digest}".encode()
    return content + line.ljust(LENGTH - 1) + b"\n"


def read_seal(path: Path) -> Seal:
    """Return the seal of a file. Only its last bytes are read.

    Raises
    ------
    OSError
        If the file is gone or cannot be read.
    ValueError
        If there is none, it is damaged, or the file is longer or shorter than it says.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LENGTH))
        return _seal_in(file.read(LENGTH), size)


def check_seal(path: Path) -> Seal:
    """Return the seal of a file that is what was sealed. All of it is read.

    Raises
    ------
    OSError
        If the file is gone or cannot be read.
    ValueError
        If the file is not what was sealed.
    """
    whole = path.read_bytes()
    seal = _seal_in(whole[-LENGTH:], len(whole))
    if hashlib.sha256(memoryview(whole)[:-LENGTH]).hexdigest() != seal.checksum:
        raise ValueError("its content has changed since it was written: the checksum does not fit")
    return seal


def _seal_in(end: bytes, size: int) -> Seal:
    """Return the seal at the end of a file of so many bytes."""
    found = LINE.fullmatch(end)
    if found is None:
        raise ValueError("its seal is damaged" if MARK in end else "it ends without a seal")
    seal = Seal(int(found[1]), found[2].decode(), found[3].decode())
    if size != seal.content_length + LENGTH:
        raise ValueError(f"it has {size - LENGTH} bytes before its seal, which speaks of {seal.content_length}")
    return seal
