"""Comparison of networks: scalars against the labels, averaged over the samples that converged."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from rankscope.experiments.averages import averages_of, was_trained
from rankscope.figures.labels import QUANTITIES, Quantity, label_prefix, label_title, suits_logarithm, value_text
from rankscope.report.networks import label_dims, scalar_names
from rankscope.report.packing import finite_or_none

#: Scalars with a panel, if measured. The first four are those of Schuessler et al. 2020, Fig. 2.
PANELS = (
    "convergence_epoch",
    "change_norm",
    "shuffled_loss",
    "functional_rank",
    "accuracy",
    "functional_rank_trained",
    "outlier",
)


def comparison(dataset: xr.Dataset) -> dict[str, Any]:
    """Return what the comparison charts show.

    Returns
    -------
    dict
        `dimensions`: the labels along which networks are compared, each with `name`, `title`, `short` (the text before
        a value), `values`, `texts`, `numeric`, `log` (whether a logarithmic axis suits it); `main`: the label of the
        horizontal axis, or None; `panels` and `scalars`: each with `name`, `title`, `log`, `integer`; `groups`: for
        each combination of labels its `place` (index along each dimension), `total` (trained networks) and `scalars`,
        each with `mean`, `std` (None for a single network) and `count`. Without labels besides `sample` there are no
        groups.
    """
    labels = label_dims(dataset)
    dimensions = [_dimension(dataset, name) for name in ([name for name in labels if name != "sample"] or labels)]
    scalars = [{"name": name} | _quantity(name, dataset)._asdict() for name in scalar_names(dataset)]
    panels = [one for name in PANELS for one in scalars if one["name"] == name]
    names = [one["name"] for one in dimensions]
    groups = [] if names in ([], ["sample"]) else _groups(dataset, names, [panel["name"] for panel in panels])
    return {
        "dimensions": dimensions,
        "main": _main_dimension(dimensions),
        "panels": panels,
        "scalars": scalars,
        "groups": groups,
    }


def _quantity(name: str, dataset: xr.Dataset) -> Quantity:
    """Return title and scale of a scalar, from our table or from its attributes."""
    if name in QUANTITIES:
        return QUANTITIES[name]
    attributes = dataset[name].attrs
    title = str(attributes.get("long_name", name.replace("_", " ")))
    return Quantity(f"{title} ({attributes['units']})" if "units" in attributes else title)


def _main_dimension(dimensions: list[dict[str, Any]]) -> str | None:
    """Return `gain`, or else the numeric label with the most values."""
    numeric = [one for one in dimensions if one["numeric"]]
    if any(one["name"] == "gain" for one in numeric):
        return "gain"
    best = max(numeric or dimensions, key=lambda one: len(one["values"]), default=None)
    return None if best is None else str(best["name"])


def _dimension(dataset: xr.Dataset, name: str) -> dict[str, Any]:
    values = dataset[name].values
    numeric = values.dtype.kind in "fiu"
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    return {
        "name": name,
        "title": label_title(name),
        "values": plain if numeric else [str(value) for value in plain],
        "short": label_prefix(name),
        "texts": [value_text(name, value) for value in plain],
        "numeric": numeric,
        "log": suits_logarithm(values),
    }


def _groups(dataset: xr.Dataset, dims: list[str], names: list[str]) -> list[dict[str, Any]]:
    run = dataset[list(dict.fromkeys(["status", *names, *({"convergence_epoch"} & set(dataset))]))]
    if "sample" not in run.dims:
        run = run.drop_vars("sample", errors="ignore").expand_dims("sample")
    total = was_trained(run).sum("sample").transpose(*dims)
    averages = {name: averages_of(run, name).transpose(*dims) for name in names}
    return [
        {
            "place": list(index),
            "total": int(total.values[index]),
            "scalars": {
                name: {
                    "mean": finite_or_none(average["mean"].values[index]),
                    "std": finite_or_none(average["std"].values[index]),
                    "count": int(average["count"].values[index]),
                }
                for name, average in averages.items()
            },
        }
        for index in np.ndindex(total.shape)
        if total.values[index]
    ]
