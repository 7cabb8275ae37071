"""Everything measured in a run in one file for other programs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from rankscope.errors import InputError
from rankscope.extras import needs
from rankscope.io.atomic import make_folder, replacing
from rankscope.sweep.results import open_run
from rankscope.validation import choice

LARGE = 4096
"""Bytes from which a variable is compressed in netCDF."""


def export_run(folder: str | os.PathLike[str], out: str | os.PathLike[str], format: str) -> None:
    """Write everything measured in a run to one file.

    Parameters
    ----------
    folder
        Folder of a run.
    out
        The file to write; for Zarr, a folder that must not exist.
    format
        "nc" (netCDF) or "zarr" for everything; "csv" or "parquet" for the scalars, one row for each network.

    Raises
    ------
    InputError
        If the folder holds no run, `out` cannot be written, or an optional package is missing.
    """
    write = FORMATS[choice("format", format, FORMATS)]
    dataset, target = open_run(folder, in_memory=format in ("nc", "zarr")), Path(out)
    make_folder(target.parent)
    write(dataset, target)


def write_netcdf(dataset: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a netCDF file, compressed and atomically. Needs the extra rankscope[netcdf]."""
    with needs("netcdf", "netCDF"):
        import h5netcdf  # noqa: F401
    names = [name for name, x in dataset.variables.items() if x.dtype.kind not in "OU" and x.nbytes >= LARGE and x.ndim]
    encoding = {name: {"zlib": True, "complevel": 4} for name in names}
    with replacing(path) as temporary:
        dataset.load().to_netcdf(temporary, engine="h5netcdf", encoding=encoding)


def write_zarr(dataset: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a Zarr folder. Needs the extra rankscope[zarr]."""
    with needs("zarr", "Zarr"):
        import zarr  # noqa: F401
    target = Path(path)
    if target.exists():
        raise InputError(f"out must be a folder that does not exist, got {str(target)!r}")
    partial = target.with_name(f".{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    # Version 2, as version 3 has no text yet.
    dataset.load().to_zarr(partial, mode="w", zarr_format=2)
    partial.rename(target)


def write_csv(dataset: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write the scalars as CSV, one row for each network."""
    with replacing(path) as temporary:
        scalars_of(dataset).to_csv(temporary, index=False)


def write_parquet(dataset: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write the scalars as Parquet, one row for each network. Needs the extra rankscope[parquet]."""
    with needs("parquet", "Parquet"):
        from arro3.core import Array, DataType, Table
        from arro3.io import write_parquet as write
    frame = scalars_of(dataset)
    columns: dict[str, Any] = {}
    for name in frame.columns:
        values = frame[name].to_numpy()
        columns[str(name)] = (
            Array.from_numpy(np.ascontiguousarray(values))
            if values.dtype.kind in "iuf"
            else Array([str(value) for value in values], type=DataType.string())
        )
    with replacing(path) as temporary:
        write(Table.from_pydict(columns), str(temporary))


def scalars_of(dataset: xr.Dataset) -> Any:
    """Return the scalars of a run as a pandas DataFrame, one row for each network."""
    labels = set(dataset["status"].dims)
    names = [name for name, variable in dataset.data_vars.items() if set(variable.dims) <= labels]
    # A run of one network has no dimension, and a table needs one.
    table = dataset[names] if labels else dataset[names].expand_dims("network")
    frame = table.to_dataframe().reset_index()
    missing = (frame["status"] == "") | frame["status"].isna()
    return frame[~missing].drop(columns="network", errors="ignore").reset_index(drop=True)


FORMATS: dict[str, Callable[[xr.Dataset, Path], None]] = {
    "nc": write_netcdf,
    "zarr": write_zarr,
    "csv": write_csv,
    "parquet": write_parquet,
}
