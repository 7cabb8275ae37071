"""Run jobs into a folder of netCDF files, and export what was measured.

A bridge to the runner of version 1, until `rankscope.sweep` runs jobs by itself.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import xarray as xr

from rankscope.errors import InputError
from rankscope.io.atomic import make_folder, replacing
from rankscope.networks.rate import RateRNN
from rankscope.sweep import Job, RunFolder, SweepReport, open_run, run_sweep
from rankscope.sweep.job import Done
from rankscope.sweep.netcdf import write_netcdf
from rankscope.sweep.together import Trainee, train_groups
from rankscope.training.cuda import find_device
from rankscope.version import __version__

SCALARS = (
    "initial_loss",
    "evaluation_loss",
    "convergence_epoch",
    "functional_rank",
    "change_norm",
    "trained_norm",
    "shuffled_loss",
    "average_gradient",
    "outlier",
    "learning_rate",
)
MEASUREMENTS_FILE = "measurements.nc"
NETWORK_FILE = "network.safetensors"


@dataclass(frozen=True)
class _Described:
    """A job as the runner takes it."""

    job: Job

    @property
    def digest(self) -> str:
        return self.job.digest

    def describe(self) -> dict[str, Any]:
        return described(self.job)


def described(job: Job) -> dict[str, Any]:
    """Return the entry of a job in run.json: its labels, and its description."""
    network = job.description["network"]
    labels = {name: network[name] for name in ("gain", "hidden_size") if name in network}
    return {"task": job.task_name, **labels, **job.labels, "job": job.description}


def run_jobs(
    jobs: Sequence[Job],
    folder: str | os.PathLike[str],
    *,
    description: dict[str, Any] | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    on_progress: Callable[[int, int, int, float], None] | None = None,
    device: str | None = None,
) -> SweepReport:
    """Run jobs into a folder; finished ones are left alone.

    Parameters
    ----------
    device
        "cuda" or "cpu" trains similar networks together there; "auto" is "cuda" where there is a GPU. By default every
        network is trained on a process.

    Raises
    ------
    InputError
        Before any work, if a job cannot be run here.
    """
    where = chosen_device(device)
    if where is not None and executor is not None:
        raise InputError(f"device must be None beside an executor, got {device!r}")
    for job in jobs:
        job.check()
    if where is not None:
        store = RunFolder(folder)
        wanted = list({job.digest: job for job in jobs}.values())
        store.prepare([(job.digest, described(job)) for job in wanted], description)
        train_groups([_trainee(job) for job in wanted if job.network["kind"] == "rate"], store, where)
    return run_sweep(
        _measured,
        [_Described(job) for job in jobs],
        folder,
        description=description,
        executor=executor,
        workers=workers,
        retry_failed=retry_failed,
        on_progress=on_progress,
    )


def chosen_device(device: str | None) -> torch.device | None:
    """Return the device to train on together, or None for processes.

    Raises
    ------
    InputError
        If there is no such device here.
    """
    if device is None or (device == "auto" and not torch.cuda.is_available()):
        return None
    return find_device("cuda" if device == "auto" else device)


def _trainee(job: Job) -> Trainee:
    network = {name: value for name, value in job.description["network"].items() if name != "gain"}
    kind = {"task": job.description["task"], "network": network, "training": job.description["training"]}
    task = job.make_task()
    return Trainee(
        job.digest,
        json.dumps(kind, sort_keys=True),
        task,
        task.steps,
        job.training,
        lambda: (cast(RateRNN, job.initial_network(task)), job.random_streams()[1]),
    )


def _measured(described: _Described, report: Any, checkpoint: Path) -> xr.Dataset:
    return stamped(described.job.run(report, checkpoint))


def stamped(done: Done) -> xr.Dataset:
    """Return the measurements of a job with its provenance as attributes."""
    return done.measurements.assign_attrs(
        cell=json.dumps(described(done.job)),
        rankscope_version=__version__,
        torch_version=str(torch.__version__),
        numpy_version=np.__version__,
        python_version=platform.python_version(),
        platform=platform.platform(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        device="cpu",
    )


def run_stored(
    job: Job,
    folder: str | os.PathLike[str],
    progress: Callable[[int, int, float], None] | None = None,
    overwrite: bool = False,
) -> tuple[xr.Dataset, list[Path]]:
    """Run a job into FOLDER/measurements.nc and FOLDER/network.safetensors; the same call continues it.

    Raises
    ------
    InputError
        If the folder cannot be written to or already holds results.
    """
    root = make_folder(folder)
    files = [root / MEASUREMENTS_FILE, root / NETWORK_FILE]
    if files[0].exists() and not overwrite:
        raise InputError(f"out must be a folder without results, got {folder}; choose another or say --overwrite")
    checkpoint = root / f"checkpoint-{job.digest}.safetensors"
    done = job.run(progress, checkpoint)
    after: Any = done.after
    after.save(files[1], initial=done.before)
    write_netcdf(stamped(done), files[0])
    checkpoint.unlink(missing_ok=True)
    return done.measurements, files


def summary(measured: xr.Dataset) -> dict[str, Any]:
    """Return the scalars of one network as plain values; None for those that do not exist."""
    row: dict[str, Any] = {"task": str(measured["task"].item())}
    for name in ("gain", "hidden_size", "seed", *SCALARS):
        value = measured[name].item() if name in measured else None
        missing = value is None or (isinstance(value, float) and not math.isfinite(value))
        whole = name in ("convergence_epoch", "functional_rank", "hidden_size")
        row[name] = None if missing else int(value or 0) if whole else value
    return row | {"status": str(measured["status"].item())}


def export_run(folder: str | os.PathLike[str], out: str | os.PathLike[str], kind: str) -> None:
    """Write the measurements of a run to one file.

    Parameters
    ----------
    out
        The file; for zarr, a folder that must not exist.
    kind
        "nc", "zarr", or "csv" for the scalars alone, a row for each network.

    Raises
    ------
    InputError
        If the folder holds no run, or `out` cannot be written.
    """
    dataset, target = open_run(folder), Path(out)
    make_folder(target.parent)
    if kind == "csv":
        labels = set(dataset["status"].dims)
        scalars = [name for name, variable in dataset.data_vars.items() if set(variable.dims) <= labels]
        # A run of one network has no dimension, and a table needs one.
        table = dataset[scalars] if labels else dataset[scalars].expand_dims("sample")
        with replacing(target) as temporary:
            table.to_dataframe().dropna(how="all", subset=["learning_rate"]).to_csv(temporary)
    elif kind == "zarr":
        part = target.with_name(f".{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        dataset.load().to_zarr(part, mode="w", zarr_format=2)  # version 3 has no specification of text yet
        part.rename(target)
    else:
        write_netcdf(dataset, target)
