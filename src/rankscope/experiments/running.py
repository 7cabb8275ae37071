"""Running cells: on processes or a cluster, into a folder; what they cost; and everything measured in one file."""

from __future__ import annotations

import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch

from rankscope.errors import InputError
from rankscope.experiments.base import AnyCell
from rankscope.experiments.cell import Cell, generators_of, initial_network
from rankscope.experiments.measuring import measure_cell
from rankscope.io.atomic import make_folder, replacing
from rankscope.networks.rate import RateRNN
from rankscope.sweep import RunFolder, SweepReport, open_run, run_sweep
from rankscope.sweep.netcdf import write_netcdf
from rankscope.sweep.together import Trainee, train_groups
from rankscope.tasks import FlipFlop
from rankscope.training import TrainingConfig, train
from rankscope.training.cuda import find_device

Report = Callable[[int, int, float], None]


def run_cells(
    cells: Sequence[AnyCell],
    folder: str | os.PathLike[str],
    *,
    description: dict[str, Any] | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    on_progress: Callable[[int, int, int, float], None] | None = None,
    device: str | None = None,
) -> SweepReport:
    """Run cells into a folder; those that are there already are left alone. Arguments as in `sweep.run_sweep`.

    Parameters
    ----------
    device
        "cuda" or "cpu", to train there together what is alike (see `sweep.together`); "auto" for "cuda" where
        there is a graphics card. Otherwise, and by default, every network is trained on a process.

    Raises
    ------
    InputError
        Also, and before any work, if a cell cannot be run here, say because its data is not, or there is no such
        device.
    """
    where = chosen_device(device)
    if where is not None and executor is not None:
        raise InputError(f"device must be None beside an executor, got {device!r}: the one or the other does the work")
    for cell in cells:
        cell.check()
    if where is not None:
        store = RunFolder(folder)
        wanted = list({cell.digest: cell for cell in cells}.values())
        store.prepare([(cell.digest, cell.describe()) for cell in wanted], description)
        train_groups([_trainee(cell) for cell in wanted if isinstance(cell, Cell)], store, where)
    return run_sweep(
        measure_cell,
        cells,
        folder,
        description=description,
        executor=executor,
        workers=workers,
        retry_failed=retry_failed,
        on_progress=on_progress,
    )


def _trainee(cell: Cell) -> Trainee:
    described = {
        k: v for k, v in cell.describe().items() if k not in ("gain", "seed", "sample", "labels", "measurements")
    }
    return Trainee(
        cell.digest,
        json.dumps(described, sort_keys=True),
        cell.task,
        cell.steps,
        TrainingConfig(epochs=cell.epochs, **cell.training),
        lambda: (initial_network(cell), generators_of(cell)[1]),
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


def seconds_for(cells: Sequence[AnyCell], cores: int) -> float:
    """Estimate how long cells take on this machine, from a fraction of a second of training.

    Parameters
    ----------
    cores
        Networks trained side by side.
    """
    fixed, each = _cost_of_training()
    seconds = [fixed * cell.steps + each * cell.work for cell in cells]
    return max(sum(seconds) / cores, *seconds)


@functools.cache
def _cost_of_training() -> tuple[float, float]:
    """Return seconds for a time step, and for a multiplication, from epochs of a small and of a larger network."""
    seconds = {}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for N in (32, 256):
            network = RateRNN.initialize(FlipFlop(), hidden_size=N, rng=0)
            train(network, FlipFlop(), epochs=2, rng=0, recorded_epochs=0)
            began = time.perf_counter()
            train(network, FlipFlop(), epochs=10, rng=0, recorded_epochs=0)
            seconds[N] = (time.perf_counter() - began) / 10
    finally:
        torch.set_num_threads(before)
    steps = FlipFlop().steps
    multiplications = {N: 3.0 * steps * 32 * N**2 for N in seconds}
    each = (seconds[256] - seconds[32]) / (multiplications[256] - multiplications[32])
    fixed = max(seconds[32] - each * multiplications[32], 0.0) / steps
    return fixed, max(each, 1e-13)


def export_run(folder: str | os.PathLike[str], out: str | os.PathLike[str], kind: str) -> None:
    """Write everything measured in a run to one file.

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
        scalars = [name for name, v in dataset.data_vars.items() if set(v.dims) <= set(dataset["change_norm"].dims)]
        # A run of one network has no dimension, and a table needs one.
        table = dataset[scalars] if dataset["change_norm"].dims else dataset[scalars].expand_dims("sample")
        with replacing(target) as temporary:
            table.to_dataframe().dropna(how="all", subset=["change_norm"]).to_csv(temporary)
    elif kind == "zarr":
        part = target.with_name(f".{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        # Version 2: the third says nothing of text yet.
        dataset.load().to_zarr(part, mode="w", zarr_format=2)
        part.rename(target)
    else:
        write_netcdf(dataset, target)
