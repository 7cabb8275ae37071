"""What a figure takes from a run: dimensions that it can count on, and without the padding.

A run's Dataset holds cells of different shapes side by side, so that short trials, narrow inputs, small networks and
combinations that were never trained are padded with NaN.
"""

from __future__ import annotations

from typing import get_args

import xarray as xr

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
