"""Values of each network of a run: scalars, curves, spectra and example trial, without padding.

Curves are thinned to what a chart can show. Spectra, histories and trials take the most space: they are included for as
many networks as fit into a page, first samples first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.experiments.averages import was_trained
from rankscope.figures.labels import QUANTITIES, label_prefix, value_text
from rankscope.report.anatomy import ANATOMY, anatomy_of
from rankscope.report.packing import finite_or_none, pack, packed_bytes, thinned

CURVE_POINTS = (50, 400)  # of each loss curve, at least and at most
CURVE_BYTES = 3_500_000  # characters of all loss curves, with three numbers a point
RECORDS = 60
SHOWN = {"leading_index": 20, "eigenvalue": 2048}  # entries along these dimensions
DETAIL_BYTES = 7_000_000  # characters of the details of all networks
NETWORK = "number of the network"  # dimension of the flat Dataset; labels cannot have spaces

#: Arrays on the page; scalars are added.
ARRAYS = (
    "loss",
    "gradient_norm",
    "truncation_loss",
    "truncation_accuracy",
    "singular_value",
    "gate_singular_value",
    "singular_value_history",
    "eigenvalue_real",
    "eigenvalue_imag",
    "eigenvalue_real_history",
    "eigenvalue_imag_history",
    "example_input",
    "example_target",
    "example_mask",
    "example_output",
    *ANATOMY,
)

Array = NDArray[np.float64]
Values = Mapping[str, NDArray[Any]]


def label_dims(dataset: xr.Dataset) -> list[str]:
    """Return the labels by which the networks of a run differ.

    Raises
    ------
    InputError
        If the dataset is not that of a run.
    """
    if "status" not in dataset.data_vars:
        raise InputError(f"dataset must be that of a run, with a status, got one with {', '.join(map(str, dataset))}")
    return [str(dim) for dim in dataset["status"].dims]


def scalar_names(dataset: xr.Dataset) -> list[str]:
    """Return the names of all scalars with a finite value, common ones first."""
    dims = set(dataset["status"].dims)
    found = [
        str(name)
        for name, values in dataset.data_vars.items()
        if set(values.dims) == dims and values.dtype.kind in "fiu" and bool(np.isfinite(values.values).any())
    ]
    return [name for name in QUANTITIES if name in found] + sorted(set(found) - set(QUANTITIES))


def networks_of(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Return every trained network, in the order of the labels.

    Returns
    -------
    list
        Of dictionaries: `name`, `labels` (those that vary), `status`, `seed` and `digest` (text, or None), `scalars`
        (None if not finite), and, if measured, `loss` (rows: epoch, loss, gradient norm), `truncation`, and `detail`
        with `history`, `spectra`, `trial` and `anatomy`. Arrays are packed.

    Raises
    ------
    InputError
        If the dataset is not that of a run, or holds no trained network.
    """
    flat, labels = _flatten(dataset)
    if not labels:
        raise InputError("dataset must hold a network that was trained, got none")
    scalars = scalar_names(dataset)
    fewest, most = CURVE_POINTS
    points = min(most, max(fewest, CURVE_BYTES // (16 * len(labels))))
    all_values = [_values_of(flat, number) for number in range(len(labels))]
    networks = [
        {
            "name": network_name(own),
            "labels": own,
            "status": str(values["status"]),
            # As text: browsers round integers beyond 2^53.
            "seed": str(int(values["seed"])) if "seed" in values else None,
            "digest": str(values["digest"]) if "digest" in values else None,
            "scalars": {name: finite_or_none(values[name]) for name in scalars},
            **_known(loss=_loss(values, points), truncation=_truncation(values)),
        }
        for own, values in zip(labels, all_values, strict=True)
    ]
    left = DETAIL_BYTES
    for number in sorted(range(len(networks)), key=lambda number: (labels[number].get("sample", 0), number)):
        values = all_values[number]
        detail = _known(
            history=_history(values),
            spectra=_spectra(values, flat),
            trial=_trial(values),
            anatomy=anatomy_of(values) or None,
        )
        left -= packed_bytes(detail)
        if left < 0:
            break
        networks[number]["detail"] = detail
    return networks


def _flatten(dataset: xr.Dataset) -> tuple[xr.Dataset, list[dict[str, Any]]]:
    """Return the trained networks, in memory, along `NETWORK`, and the labels of each."""
    dims = label_dims(dataset)
    trained = np.argwhere(was_trained(dataset).values)
    labels = [
        {dim: _plain(dataset[dim].values[at]) for dim, at in zip(dims, index, strict=True)}
        for index in trained.tolist()
    ]
    kept = dataset[
        [name for name, values in dataset.data_vars.items() if name in ARRAYS or set(values.dims) <= set(dims)]
    ]
    kept = kept.isel({dim: slice(most) for dim, most in SHOWN.items() if dim in kept.dims})
    if dims:
        places = {dim: xr.DataArray(trained[:, axis], dims=NETWORK) for axis, dim in enumerate(dims)}
        kept = kept.isel(places)
    else:
        kept = kept.expand_dims(NETWORK)
    return kept.transpose(NETWORK, ...).load(), labels


def _values_of(flat: xr.Dataset, number: int) -> Values:
    return {
        str(name): variable.values[number] if NETWORK in variable.dims else variable.values
        for name, variable in flat.variables.items()
    }


def network_name(labels: Mapping[str, Any]) -> str:
    """Return a name such as "flip-flop, g = 0.9, sample 0"."""
    names = sorted(labels, key=lambda name: name == "sample")
    return ", ".join(label_prefix(name) + value_text(name, labels[name]) for name in names) or "the network"


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _numbers(values: Values, name: str) -> Array:
    return np.asarray(values[name], dtype=np.float64)


def _without_end(values: Array) -> Array:
    """Return values without the padding at their end."""
    known = np.flatnonzero(~np.isnan(values))
    return values[: known[-1] + 1] if known.size else values[:0]


def _loss(values: Values, points: int) -> dict[str, Any] | None:
    losses = _without_end(_numbers(values, "loss")) if "loss" in values else np.empty(0)
    if not losses.size:
        return None
    kept = thinned(losses.size, points)
    epochs = _numbers(values, "epoch") if "epoch" in values else np.arange(losses.size)
    rows = [epochs[kept], losses[kept]]
    if "gradient_norm" in values:
        rows.append(_numbers(values, "gradient_norm")[kept])
    return pack(rows)


def _truncation(values: Values) -> dict[str, Any] | None:
    """Return loss and accuracy over the rank, for each truncated matrix."""
    names, rows = [], []
    for score in ("loss", "accuracy"):
        if f"truncation_{score}" not in values:
            continue
        curves = _numbers(values, f"truncation_{score}")
        kinds = [str(kind) for kind in values["truncated"]] if curves.ndim == 2 else [""]
        for kind, curve in zip(kinds, np.atleast_2d(curves), strict=True):
            if np.isfinite(curve).any():
                names.append({"of": score, "truncated": kind})
                rows.append(curve)
    if not rows:
        return None
    known = np.isfinite(np.array(rows)).any(axis=0)
    return {"names": names, "values": pack(np.array([_numbers(values, "rank"), *rows])[:, known])}


def _history(values: Values) -> dict[str, Any] | None:
    """Return the singular values of dW and the leading eigenvalues of W at recorded epochs."""
    epochs = _without_end(_numbers(values, "recorded_epoch")) if "recorded_epoch" in values else np.empty(0)
    kept = thinned(epochs.size, RECORDS)
    history = {}
    if epochs.size and "singular_value_history" in values:
        singular = _numbers(values, "singular_value_history")[kept]
        known = np.isfinite(singular).any(axis=0)
        if known.any():
            history["singular"] = pack(singular[:, known])
    if epochs.size and "eigenvalue_real_history" in values:
        eigenvalues = [_numbers(values, f"eigenvalue_{component}_history")[kept] for component in ("real", "imag")]
        if np.isfinite(eigenvalues[0]).any():
            history["eigen"] = pack(eigenvalues)
    return {"epochs": pack(epochs[kept]), **history} if history else None


def _spectra(values: Values, flat: xr.Dataset) -> dict[str, Any] | None:
    """Return the singular values of W0, dW and W, of each weight matrix and gate, and their eigenvalues."""
    singular = []
    for name in ("singular_value", "gate_singular_value"):
        if name not in values or "matrix" not in values:
            continue
        dims = [dim for dim in flat[name].dims if dim != NETWORK]
        blocks = [str(dim) for dim in ("weight", "gate") if dim in dims]
        matrices = np.moveaxis(_numbers(values, name), [dims.index(dim) for dim in blocks], range(len(blocks)))
        for index in np.ndindex(matrices.shape[: len(blocks)]):
            known = np.isfinite(matrices[index]).any(axis=0)
            if known.any():
                title = ", ".join(str(values[dim][at]) for dim, at in zip(blocks, index, strict=True))
                singular.append({"name": title, "values": pack(matrices[index][:, known])})
    if not singular:
        return None
    spectra: dict[str, Any] = {"matrices": [str(name) for name in values["matrix"]], "singular": singular}
    if "eigenvalue_real" in values:
        eigenvalues = np.stack([_numbers(values, f"eigenvalue_{component}") for component in ("real", "imag")])
        known = np.isfinite(eigenvalues).any(axis=(0, 1))
        if known.any():
            spectra["eigen"] = pack(eigenvalues[:, :, known])
    return spectra


def _trial(values: Values) -> dict[str, Any] | None:
    """Return the example trial; the target is NaN outside the mask."""
    names = ("example_input", "example_target", "example_mask", "example_output")
    if not all(name in values for name in ("time", *names)):
        return None
    inputs, target, mask, output = (_numbers(values, name) for name in names)
    steps = np.isfinite(output).any(axis=1)
    if not steps.any():
        return None
    input_channels, channels = (np.isfinite(one[steps]).any(axis=0) for one in (inputs, output))
    return {
        "time": pack(_numbers(values, "time")[steps]),
        "input": pack(inputs[np.ix_(steps, input_channels)].T),
        "output": pack(output[np.ix_(steps, channels)].T),
        "target": pack(np.where(mask > 0, target, np.nan)[np.ix_(steps, channels)].T),
    }
