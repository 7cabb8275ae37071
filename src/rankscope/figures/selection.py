"""What a figure takes from a run: dimensions that it can count on, and without the padding.

A run's Dataset holds cells of different shapes side by side, so that short trials, narrow inputs, small networks and
combinations that were never trained are padded with NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.training.history import Status

# Along each dimension, the variable that says where the padding begins.
_WITNESSES = {
    "step": "example_mask",
    "input_channel": "example_input",
    "output_channel": "example_mask",
    "epoch": "loss",
    "rank": "truncation_loss",
}


def with_dims(dataset: xr.Dataset, *dims: str) -> xr.Dataset:
    """Return `dataset` with each of `dims`; one that is absent, or a scalar coordinate, becomes one of size 1."""
    absent = [dim for dim in dims if dim not in dataset.dims]
    return dataset.expand_dims(absent)


def the_only(dataset: xr.Dataset, dim: str) -> xr.Dataset:
    """Return `dataset` without `dim`, along which it must hold one entry.

    Raises
    ------
    InputError
        If it holds several.
    """
    if dim not in dataset.dims:
        return dataset
    if dataset.sizes[dim] != 1:
        raise InputError(f"dataset must hold one {dim}, got {dataset.sizes[dim]}; choose with dataset.isel({dim}=...)")
    return dataset.isel({dim: 0})


def without_padding(dataset: xr.Dataset) -> xr.Dataset:
    """Return `dataset` without the steps, channels, epochs and ranks that it has no numbers for; not without all."""
    for dim, witness in _WITNESSES.items():
        if dim in dataset.dims:
            values = dataset[witness]
            known = values.notnull().any([other for other in values.dims if other != dim])
            if bool(known.any()):
                dataset = dataset.isel({dim: known.values.nonzero()[0]})
    return dataset


def was_trained(dataset: xr.Dataset) -> xr.DataArray:
    """Return for each combination whether there is a network: it has a status, whatever became of it."""
    return dataset["status"].isin(get_args(Status))


def networks_of(
    dataset: xr.Dataset, experiment: str, task: str, names: Iterable[str], dims: Iterable[str]
) -> xr.Dataset:
    """Return what a figure draws of the networks of an experiment, along `dims` first, arrays not yet read.

    Parameters
    ----------
    task
        That the networks learned; of a run with several tasks, its part of this one.
    names
        Variables that are drawn, besides `status`.
    dims
        Labels that the networks may differ by; one that a run holds a single value of becomes a dimension.

    Raises
    ------
    InputError
        If the dataset is of another experiment, its networks differ by something else, too, or there are none.
    """
    needed = [*dict.fromkeys(["status", *names])]
    absent = [name for name in (*needed, *dims) if name not in dataset.variables and name != "sample"]
    if absent:
        raise InputError(f"dataset must be of a run of {experiment!r}, got one without {', '.join(absent)}")
    tasks = np.atleast_1d(dataset["task"].values).tolist() if "task" in dataset.coords else [task]
    if task not in tasks:
        raise InputError(f"dataset must be of a run of {experiment!r}, with the task {task!r}, got {', '.join(tasks)}")
    chosen = dataset[needed].sel(task=task) if "task" in dataset["status"].dims else dataset[needed]
    for dim in map(str, chosen["status"].dims):
        chosen = chosen if dim in dims else the_only(chosen, dim)
    if not bool(was_trained(chosen).any()):
        raise InputError(f"dataset must hold networks of the task {task!r}, got none")
    return with_dims(chosen, *dims).transpose(*dims, ...)


def trained_along(run: xr.Dataset, dim: str) -> NDArray[np.float64]:
    """Return the values of the label `dim` at which there is a network, increasing."""
    there = was_trained(run)
    some = there.any([other for other in there.dims if other != dim])
    return np.sort(np.asarray(run[dim].values[some.values], dtype=np.float64))
