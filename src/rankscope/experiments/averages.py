"""Mean and standard deviation of a quantity over the networks of a run that converged."""

from __future__ import annotations

from typing import get_args

import numpy as np
import xarray as xr

from rankscope.errors import InputError
from rankscope.training.history import Status


def was_trained(dataset: xr.Dataset) -> xr.DataArray:
    """Return for each combination of labels whether the run has a network there, whatever its status."""
    return dataset["status"].isin(get_args(Status))


def mean_and_std(values: xr.DataArray) -> xr.Dataset:
    """Return `mean`, `std` and `count` of the finite values over `sample`.

    The standard deviation has n - 1 in the denominator and is NaN for a single value. Without any finite value, mean
    and standard deviation are NaN.
    """
    finite = values.where(np.isfinite(values))
    count = finite.notnull().sum("sample")
    mean = finite.sum("sample") / count.where(count > 0)
    std = np.sqrt(((finite - mean) ** 2).sum("sample") / (count - 1).where(count > 1))
    return xr.Dataset({"mean": mean, "std": std, "count": count})


def averages_of(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """Return `mean_and_std` of a variable over `sample`, and `total`, the number of trained samples.

    The samples are those that converged, if any network of the run did. Some experiments do not define convergence, and
    in short runs no network reaches it.
    """
    epochs = dataset.get("convergence_epoch")
    if epochs is None or not bool(np.isfinite(epochs.values.astype(float)).any()):
        found = mean_and_std(dataset[name]).assign(total=was_trained(dataset).sum("sample"))
        return found.assign_attrs(over="all samples")
    return over_converged(dataset, name)


def over_converged(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """Return `mean_and_std` of a variable over the converged samples, and `total`, the number of trained samples.

    A network that did not converge has no convergence time, and its change does not solve the task, so it is excluded.

    Parameters
    ----------
    dataset
        With `name`, `convergence_epoch` and `status` along `sample`.

    Raises
    ------
    InputError
        If the dataset lacks one of these.
    """
    for needed in (name, "convergence_epoch"):
        if needed not in dataset:
            raise InputError(
                f"dataset must have {needed}, got one without; `rankscope measure RUN --add NAME` adds measurements"
            )
    values = dataset[name].where(dataset["convergence_epoch"].notnull())
    found = mean_and_std(values).assign(total=was_trained(dataset).sum("sample"))
    return found.assign_attrs(over="the samples that converged")
