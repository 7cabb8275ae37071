"""One result, one netCDF file: written whole or not at all, checked cheaply, told from a foreign file by its digest."""

from __future__ import annotations

import io
import os
from pathlib import Path

import h5netcdf
import h5py
import xarray as xr
from xarray.backends import H5NetCDFStore

from rankscope.durable import replacing
from rankscope.errors import InputError

COMPRESSED_FROM = 4096
"""Bytes from which a variable is compressed and checksummed; below, that costs more room than it saves."""

# No file is ever changed in place, so there is nothing to lock, and some clusters cannot. All readers have to say the
# same: HDF5 refuses a file that is open otherwise in the same process, which would look like damage.
UNLOCKED = {"locking": False}

LARGE = {"zlib": True, "complevel": 4, "fletcher32": True}


def damage(path: Path, digest: str) -> str | None:
    """Return what is wrong with the result file at `path`, or None if it looks whole. Only its header is read.

    Raises
    ------
    InputError
        If the file may be whole but cannot be read, for example for want of permission.
    """
    try:
        with h5py.File(path, "r", **UNLOCKED) as file:
            found = file.attrs.get("digest")
    except FileNotFoundError:
        return "it is gone"
    except OSError as error:
        if error.errno is not None:
            raise InputError(f"cannot read {path}: {os.strerror(error.errno)}") from error
        return f"not a whole netCDF file: {_first_line(error)}"
    except (RuntimeError, KeyError, ValueError) as error:
        return f"not a whole netCDF file: {_first_line(error)}"
    return None if found == digest else f"not the result of this cell: its digest is {found!r}, not {digest!r}"


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
        return xr.load_dataset(path, engine="h5netcdf", driver_kwds=UNLOCKED)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
