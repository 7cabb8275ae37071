"""Scalars over groups of networks that differ only in their sample: mean, deviation, how many there are.

As in the figures, a network that did not converge stays out of the means, and the page says how many did.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from rankscope.figures.averages import mean_and_std
from rankscope.figures.selection import was_trained
from rankscope.report.labels import LOGARITHMIC, PANELS, WHOLE, before_value, dimension_title, scalar_title, value_text
from rankscope.report.networks import label_dims, scalar_names
from rankscope.report.packing import finite_or_none


def dimensions(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Return the labels along which networks are compared: all that vary but the sample, or that if it is all there is.

    Returns
    -------
    list
        Of `name`, `title`, `short` (what stands before a value), `values`, `texts`, `numeric`, `log` (whether numbers
        suit a logarithmic axis).
    """
    names = label_dims(dataset)
    compared = [name for name in names if name != "sample"] or names
    return [_dimension(dataset, name) for name in compared]


def main_dimension(described: list[dict[str, Any]]) -> str | None:
    """Return the label that the page draws against first: the gain, or the numeric one with the most values."""
    numeric = [one for one in described if one["numeric"]]
    for one in numeric:
        if one["name"] == "gain":
            return "gain"
    best = max(numeric or described, key=lambda one: len(one["values"]), default=None)
    return None if best is None else str(best["name"])


def panels(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Return the scalars that are drawn against a label: `name`, `title`, `log`, `whole`."""
    there = scalar_names(dataset)
    return [
        {"name": name, "title": scalar_title(name, dataset), "log": name in LOGARITHMIC, "whole": name in WHOLE}
        for name in PANELS
        if name in there
    ]


def groups(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Return the means of the panels' scalars.

    Returns
    -------
    list
        An entry for every combination of the labels of `dimensions` that has networks: `place` (indices of its labels),
        `total` (networks trained), and `scalars`, of each `mean`, `std` (None for a single network) and `count`
        (networks it is over). None at all if the networks differ in nothing but their sample.
    """
    names = [one["name"] for one in dimensions(dataset)]
    if names in ([], ["sample"]):
        return []
    there = [panel["name"] for panel in panels(dataset)]
    judged = _judges_convergence(dataset)
    whole = dataset[list(dict.fromkeys(["status", *there, *(["convergence_epoch"] if judged else [])]))]
    if "sample" not in whole.dims:
        whole = whole.drop_vars("sample", errors="ignore").expand_dims("sample")
    total = was_trained(whole).sum("sample").transpose(*names)
    averages = {}
    for name in there:
        values = whole[name].where(whole["convergence_epoch"].notnull()) if judged else whole[name]
        averages[name] = mean_and_std(values).transpose(*names)
    found = []
    for index in np.ndindex(total.shape):
        if total.values[index]:
            scalars = {
                name: {
                    "mean": finite_or_none(average["mean"].values[index]),
                    "std": finite_or_none(average["std"].values[index]),
                    "count": int(average["count"].values[index]),
                }
                for name, average in averages.items()
            }
            found.append({"place": list(index), "total": int(total.values[index]), "scalars": scalars})
    return found


def _judges_convergence(dataset: xr.Dataset) -> bool:
    """Return whether the run says of any network that it converged; some experiments do not ask."""
    name = "convergence_epoch"
    return name in dataset.data_vars and bool(np.isfinite(dataset[name].values.astype(float)).any())


def _dimension(dataset: xr.Dataset, name: str) -> dict[str, Any]:
    values = dataset[name].values
    numeric = values.dtype.kind in "fiu"
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    return {
        "name": name,
        "title": dimension_title(name),
        "values": plain if numeric else [str(value) for value in plain],
        "short": before_value(name),
        "texts": [value_text(name, value) for value in plain],
        "numeric": numeric,
        "log": bool(numeric and values.size > 2 and values.min() > 0 and values.max() >= 8 * values.min()),
    }
