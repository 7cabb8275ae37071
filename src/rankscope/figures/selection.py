"""Select what a figure draws from the Dataset of a run.

Jobs of different shapes share one Dataset. Short trials, narrow inputs, small networks and combinations of labels
without a network are padded with NaN.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.experiments.averages import was_trained

# For each dimension, the variable whose NaN are the padding.
_PADDED = {
    "step": "example_mask",
    "input_channel": "example_input",
    "output_channel": "example_mask",
    "epoch": "loss",
    "rank": "truncation_loss",
}


def with_dims(dataset: xr.Dataset, *dims: str) -> xr.Dataset:
    """Return `dataset` with each of `dims`; an absent one, or a scalar coordinate, becomes a dimension of size 1."""
    return dataset.expand_dims([dim for dim in dims if dim not in dataset.dims])


def single(dataset: xr.Dataset, dim: str) -> xr.Dataset:
    """Return `dataset` without `dim`, which must have one entry.

    Raises
    ------
    InputError
        If it has several.
    """
    if dim not in dataset.dims:
        return dataset
    if dataset.sizes[dim] != 1:
        raise InputError(
            f"dataset must hold one {dim}, got {dataset.sizes[dim]}; choose with --select {dim}=VALUE (dataset.sel in "
            "Python), or draw the figure 'sweep'"
        )
    return dataset.isel({dim: 0})


def over_tasks(dataset: xr.Dataset, *dims: str) -> xr.Dataset:
    """Return `dataset` with the dimensions `task`, `gain`, `sample` and `dims`.

    The gain is NaN if the networks have none.

    Raises
    ------
    InputError
        If the networks differ by another label.
    """
    kept = ("task", "gain", "sample", *dims)
    for dim in map(str, dataset["status"].dims):
        dataset = dataset if dim in kept else single(dataset, dim)
    if "gain" not in dataset.coords:
        dataset = dataset.assign_coords(gain=np.nan)
    return with_dims(dataset, *kept)


def require(dataset: xr.Dataset, figure: str, *names: str) -> None:
    """Check that a run has variables.

    Raises
    ------
    InputError
        If one is absent.
    """
    absent = [name for name in names if name not in dataset.variables]
    if absent:
        raise InputError(
            f"dataset must have {', '.join(absent)} for the figure {figure!r}, got a run without; it is drawn from a "
            f"run of {figure!r}, and `rankscope measure RUN --add NAME` adds measurements"
        )


def without_padding(dataset: xr.Dataset) -> xr.Dataset:
    """Return `dataset` without the steps, channels, epochs and ranks that are all padding."""
    for dim, variable in _PADDED.items():
        if dim in dataset.dims:
            values = dataset[variable]
            known = values.notnull().any([other for other in values.dims if other != dim])
            if bool(known.any()):
                dataset = dataset.isel({dim: known.values.nonzero()[0]})
    return dataset


def networks_of(
    dataset: xr.Dataset, experiment: str, task: str, names: Iterable[str], dims: Iterable[str]
) -> xr.Dataset:
    """Return the variables that a figure draws of an experiment's networks, along `dims` first, not yet read.

    Parameters
    ----------
    task
        The task of the networks; other tasks of the run are dropped.
    names
        Variables besides `status`.
    dims
        Labels by which the networks may differ; a scalar one becomes a dimension.

    Raises
    ------
    InputError
        If the dataset is of another experiment, its networks differ by another label, or there are none.
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
        chosen = chosen if dim in dims else single(chosen, dim)
    if not bool(was_trained(chosen).any()):
        raise InputError(f"dataset must hold networks of the task {task!r}, got none")
    return with_dims(chosen, *dims).transpose(*dims, ...)


def trained_along(run: xr.Dataset, dim: str) -> NDArray[np.float64]:
    """Return, in increasing order, the values of the label `dim` for which there are networks."""
    trained = was_trained(run)
    some = trained.any([other for other in trained.dims if other != dim])
    return np.sort(np.asarray(run[dim].values[some.values], dtype=np.float64))
