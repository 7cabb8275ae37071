"""The file of a job's measurements: a Dataset, the job, the names of the measurements and where it was computed."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from rankscope.errors import InputError
from rankscope.io.dataset_file import StoredDataset, open_dataset, write_dataset
from rankscope.version import __version__

if TYPE_CHECKING:
    from rankscope.sweep.job import Job

NETWORK, MEASUREMENTS, TRAINING = "network.safetensors", "measurements.safetensors", "training.safetensors"
FORMAT = "rankscope.measurements.2"


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
