"""One result, one netCDF file: written whole or not at all, checked cheaply, told from a foreign file by its digest."""

from __future__ import annotations

import io
import os
from pathlib import Path

import h5netcdf
import h5py
import xarray as xr
from xarray.backends import H5NetCDFStore

from rankscope.errors import InputError

COMPRESSED_FROM = 4096
"""Bytes from which a variable is compressed and checksummed; below, that costs more room than it saves."""

LARGE = {"zlib": True, "complevel": 4, "fletcher32": True}


def damage(path: Path, digest: str) -> str | None:
    """Return what is wrong with the result file at `path`, or None if it looks whole. Only its header is read.

    Raises
    ------
    InputError
        If the file may be whole but cannot be read, for example for want of permission.
    """
    try:
        # No file is ever changed in place, so there is nothing to lock, and some clusters cannot.
        with h5py.File(path, "r", locking=False) as file:
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


def encode(digest: str, dataset: xr.Dataset) -> bytes:
    """Return the bytes of a netCDF file, compressed and checksummed, that names its cell.

    In memory, because the HDF5 library crashes the process if the disk fills up below a file that it has open. Not by
    `to_netcdf`, because that asks a Dask scheduler for a lock wherever one is near, and fails for what is in memory.
    """
    names = [name for name, x in dataset.variables.items() if x.ndim and x.nbytes >= COMPRESSED_FROM]
    named = dataset.assign_attrs(digest=digest).load()
    content = io.BytesIO()
    with h5netcdf.File(content, "w") as file:
        named.dump_to_store(H5NetCDFStore(file), encoding={name: dict(LARGE) for name in names})
    return content.getvalue()


def read_netcdf(path: Path) -> xr.Dataset:
    """Return the content of a netCDF file, loaded.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    try:
        return xr.load_dataset(path, engine="h5netcdf")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
