"""The files of a job's result: the networks, and a Dataset of measurements with the job, their names and its origin."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from rankscope.errors import InputError
from rankscope.io.dataset_file import StoredDataset, open_dataset, write_dataset
from rankscope.io.tensor_file import read_file, read_header
from rankscope.version import __version__

if TYPE_CHECKING:
    from rankscope.sweep.job import Job

NETWORK, MEASUREMENTS, TRAINING = "network.safetensors", "measurements.safetensors", "training.safetensors"
FORMAT = "rankscope.measurements.2"
WARNINGS = "warnings"
"""Attribute of a result: sentences that restrict what its numbers mean."""


def write_result(
    path: str | os.PathLike[str], measured: xr.Dataset, job: Job, names: Iterable[str], network_kept: bool
) -> None:
    """Write the measurements of a job, atomically.

    Parameters
    ----------
    names
        The measurements that were made.
    network_kept
        Whether the network is stored beside this file.
    """
    attrs = {**measured.attrs, "job": job.to_json(), "digest": job.digest, **versions()}
    metadata = {
        "format": FORMAT,
        "job": job.to_json(),
        "digest": job.digest,
        "measurements": json.dumps(list(dict.fromkeys(names))),
        "network": "kept" if network_kept else "dropped",
    }
    write_dataset(path, measured.assign_attrs(attrs), metadata)


def open_result(path: str | os.PathLike[str], verify: bool = False) -> StoredDataset:
    """Return the measurements of a job, of which only the header is read.

    Parameters
    ----------
    verify
        Read the whole file once and compare its checksum.

    Raises
    ------
    InputError
        If the file is missing, damaged, or not the result of a job.
    """
    result = open_dataset(path, verify)
    if result.metadata.get("format") != FORMAT or not {"job", "digest"} <= result.metadata.keys():
        raise InputError(f"{path} must be the result of a job ({FORMAT}), got {result.metadata.get('format')!r:.100}")
    return result


def damage(folder: Path, digest: str, thorough: bool = False) -> str | None:
    """Return what is wrong with the files of a job's result, or None.

    Parameters
    ----------
    thorough
        Read both files completely and compare their checksums; otherwise only the headers.

    Raises
    ------
    InputError
        If a file cannot be read for a reason that leaves its content unknown, for example missing permission.
    """
    if not (folder / MEASUREMENTS).exists():
        return "it does not exist"
    try:
        result = open_result(folder / MEASUREMENTS, verify=thorough)
        if result.metadata.get("digest") != digest:
            return f"it is the result of another job, {result.metadata.get('digest')!s:.40}"
        if result.metadata.get("network") == "kept":
            network = (read_file if thorough else read_header)(folder / NETWORK)
            if network.metadata.get("digest") != digest:
                return f"its network is that of another job, {network.metadata.get('digest')!s:.40}"
    except InputError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise
        return str(error)
    return None


def measurements_of(result: StoredDataset) -> tuple[str, ...]:
    """Return the names of the measurements in a result."""
    try:
        names = json.loads(result.metadata["measurements"])
    except (KeyError, ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{result.path} must list its measurements, got something else")
    return tuple(names)


def versions() -> dict[str, str]:
    """Return the versions of the software, the platform and the date."""
    return {
        "rankscope_version": __version__,
        "torch_version": str(torch.__version__),
        "numpy_version": np.__version__,
        "python_version": platform.python_version(),
        "platform": platform.platform(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
