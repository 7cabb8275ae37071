"""One result, one netCDF file: written whole or not at all, and nothing that was not sealed as such is opened.

The seal (`seal.py`) says in no time whether a file is whole and whose result it is. HDF5, which does not survive every
file, sees only what is as it was written.
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5netcdf
import h5py
import xarray as xr
from xarray.backends import H5NetCDFStore

from rankscope.errors import InputError
from rankscope.io.atomic import replacing
from rankscope.sweep.integrity import check_seal, read_seal, sealed

COMPRESSED_FROM = 4096
"""Bytes from which a variable is compressed and checksummed; below, that costs more room than it saves."""

COLLECTION = b"GCOL\1\0\0\0"
"""How a collection of words begins in an HDF5 file."""

NOT_LARGE = 100_000_000
MOST_COMPRESSED = 300
"""Of a file with more than `NOT_LARGE` bytes in it; numbers that are all the same are compressed a thousandfold."""

# No file is ever changed in place, so there is nothing to lock, and some clusters cannot. All readers have to say the
# same: HDF5 refuses a file that is open otherwise in the same process, which would look like damage.
UNLOCKED = {"locking": False}

LARGE = {"zlib": True, "complevel": 4, "fletcher32": True}


def damage(path: Path, digest: str, thorough: bool = False) -> str | None:
    """Return what is wrong with the result file at `path`, or None if it looks whole.

    Parameters
    ----------
    digest
        Of the cell that it is to be the result of.
    thorough
        Read all of it and compare its checksum; else only a few bytes at its end are read.

    Raises
    ------
    InputError
        If the file may be whole but cannot be read, for example for want of permission.
    """
    try:
        seal = check_seal(path) if thorough else read_seal(path)
    except FileNotFoundError:
        return "it is gone"
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        return f"not a whole result: {error}"
    if seal.digest == digest:
        return None
    return f"not the result of this cell: it was sealed as that of {seal.digest!r}, not {digest!r}"


def check_content(path: Path) -> None:
    """Raise ValueError if a file is not what was sealed, or would hold HDF5 for ever. All of it is read."""
    check_seal(path)
    check_heaps(path)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a result to be read by HDF5's own functions.

    Raises
    ------
    Exception
        Of any kind, if it is damaged: ValueError from the checks here, what h5py raises from others.
    """
    check_content(path)
    with h5py.File(path, "r", **UNLOCKED) as file:
        check_sizes(file)
        yield file


def check_heaps(path: Path) -> None:
    """Raise ValueError if the words in a file are stored in a way that HDF5 would never come to the end of.

    They lie in collections, one object behind the other, without a checksum. The library walks along them and trusts
    every length: one that leads nowhere holds it for ever, in a loop that nothing interrupts.
    """
    if not path.stat().st_size:
        return  # which HDF5 says in its own words
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        begin = content.find(COLLECTION)
        while begin >= 0:
            end = begin + int.from_bytes(content[begin + 8 : begin + 16], "little")
            at = begin + 16
            while at + 16 <= min(end, len(content)):
                size = int.from_bytes(content[at + 8 : at + 16], "little")
                is_free = content[at : at + 2] == b"\0\0"
                # The length of what is free counts from here, that of an object from behind its own 16 bytes.
                length = size if is_free else 16 + (size + 7) // 8 * 8
                if length < 16 or at + length > end:
                    raise ValueError(f"the words at byte {begin} are damaged")
                at += length
            begin = content.find(COLLECTION, begin + len(COLLECTION))


def check_sizes(file: h5py.File) -> None:
    """Raise ValueError if the variables of a file claim to be much larger than the file is.

    A few bytes can promise any shape, and reading takes the memory that was promised.
    """
    everything = [item for item in file.values() if isinstance(item, h5py.Dataset)]
    variables = [item for item in everything if not _is_bare_dimension(item)]
    size = file.id.get_filesize()
    promised = sum(item.nbytes for item in variables)
    if promised > max(NOT_LARGE, size * MOST_COMPRESSED):
        raise ValueError(f"its variables are to have {promised} bytes, in a file of {size}")
    # A dimension has a length and no values; variables that are shorter are filled up to it.
    longest = max((length for item in variables for length in item.shape), default=0)
    for item in everything:
        if item.ndim and item.shape[0] > longest:
            raise ValueError(
                f"its dimension {item.name[:40]!r} is of {item.shape[0]}, its variables of up to {longest}"
            )


def _is_bare_dimension(item: h5py.Dataset) -> bool:
    name = item.attrs.get("NAME", b"")
    return isinstance(name, bytes) and name.startswith(b"This is a netCDF dimension but not a netCDF variable")


def write_netcdf(dataset: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a netCDF file, compressed, checksummed and atomically.

    Raises
    ------
    InputError
        If the folder cannot be written to.
    OSError
        If the disk is full.
    """
    content = encode(dataset)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def encode_result(result: xr.Dataset, digest: str) -> bytes:
    """Return the bytes of the file of a cell, with its digest and its seal."""
    return sealed(encode(result.assign_attrs(digest=digest)), digest)


def encode(dataset: xr.Dataset) -> bytes:
    """Return the bytes of a netCDF file, compressed and checksummed.

    In memory, because the HDF5 library crashes the process if the disk fills up below a file that it has open. Not by
    `to_netcdf`, because that asks a Dask scheduler for a lock wherever one is near, and fails for what is in memory.
    """
    numbers = {name: x for name, x in dataset.variables.items() if x.dtype.kind not in "OU"}
    names = [name for name, x in numbers.items() if x.ndim and x.nbytes >= COMPRESSED_FROM]
    loaded = dataset.load()
    content = io.BytesIO()
    with h5netcdf.File(content, "w") as file:
        loaded.dump_to_store(H5NetCDFStore(file), encoding={name: dict(LARGE) for name in names})
    return content.getvalue()


def read_netcdf(path: Path) -> xr.Dataset:
    """Return the content of a netCDF file, loaded.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    try:
        with opened(path):
            pass
        return xr.load_dataset(path, engine="h5netcdf", driver_kwds=UNLOCKED)
    except MemoryError:
        raise
    except Exception as error:
        # As above, and xarray, which decodes what it finds, raises still others.
        raise ValueError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]
