"""The networks of a run one by one, as plain values: what became of each, its curves, spectra and example trial.

A run's Dataset is a grid padded with NaN. Here each network that was trained gets its own numbers, without padding,
thinned to what a chart can show. The dearest parts (spectra, histories, trials) are kept for as many networks as a
page can hold, the first samples first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.report.labels import SCALARS, network_name
from rankscope.report.packing import finite_or_none, pack, packed_bytes, thinned
from rankscope.sweep.results import is_sparse
from rankscope.training.history import Status

CURVE_POINTS = 400
FEWEST_POINTS = 50
CURVE_BYTES = 3_500_000
"""Characters that the curves of the loss may take together, with three numbers a point."""
RECORDS = 60
SHOWN_SINGULAR_VALUES = 20
SHOWN_EIGENVALUES = 2048
DETAIL_BYTES = 7_000_000
"""Characters that the details of all networks may take together."""

NETWORK = "number of the network"
"""The dimension in place of all labels, where there are few networks; no label can be called that."""

Array = NDArray[np.float64]
Place = dict[str, int]
"""The index of a network along each label."""


def label_dims(dataset: xr.Dataset) -> list[str]:
    """Return the labels in which the networks of a run differ.

    Raises
    ------
    InputError
        If the dataset is not that of a run.
    """
    if "status" not in dataset.data_vars:
        raise InputError(f"dataset must be that of a run, with a status, got one with {', '.join(map(str, dataset))}")
    return [str(dim) for dim in dataset["status"].dims]


def networks_of(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Return every network that was trained, in the order of the labels.

    Returns
    -------
    list
        Of dictionaries: `name`, `labels` (those that vary), `status`, `seed` (text, or None), `scalars` (None where
        there is no number), and, where there are numbers, `loss` (rows: epoch, loss, gradient norm), `truncation`,
        and `detail` with `history`, `spectra` and `trial`. Arrays are packed.

    Raises
    ------
    InputError
        If the dataset is not that of a run, or holds no network.
    """
    dims = label_dims(dataset)
    places = list(_places(dataset, dims))
    read = _Reader(dataset, dims, [place for place, _ in places])
    points = curve_points(len(places))
    networks = [
        {
            "name": network_name(labels),
            "labels": labels,
            "status": str(read.at("status", place)),
            "seed": _seed(read, place),
            "scalars": _scalars(read, place),
            **_present(loss=_loss(read, place, points), truncation=_truncation(read, place)),
        }
        for place, labels in places
    ]
    if not networks:
        raise InputError("dataset must hold a network that was trained, got none")
    _add_details(networks, read, [place for place, _ in places])
    return networks


def curve_points(count: int) -> int:
    """Return how many points the curve of each of `count` networks has at most."""
    return min(CURVE_POINTS, max(FEWEST_POINTS, CURVE_BYTES // (16 * max(count, 1))))


def scalar_names(dataset: xr.Dataset) -> list[str]:
    """Return the names of the numbers that each network has one of, the usual ones first, without those all NaN."""
    dims = set(dataset["status"].dims)
    there = [
        str(name)
        for name, values in dataset.data_vars.items()
        if set(values.dims) == dims and values.dtype.kind in "fiu" and bool(np.isfinite(values.values).any())
    ]
    return [name for name in SCALARS if name in there] + sorted(set(there) - set(SCALARS))


class _Reader:
    """Values of a dataset at one network, each variable read from its files once."""

    def __init__(self, dataset: xr.Dataset, dims: list[str], places: list[Place]) -> None:
        self.dataset = dataset
        self.scalars = scalar_names(dataset)
        self._dims = dims
        self._sparse = is_sparse(dataset["status"].size, len(places))
        self._points = {dim: xr.DataArray([place[dim] for place in places], dims=NETWORK) for dim in dims}
        self._numbers = {tuple(place.values()): number for number, place in enumerate(places)}
        self._loaded: dict[str, xr.DataArray] = {}

    def has(self, *names: str) -> bool:
        return all(name in self.dataset.variables for name in names)

    def array(self, name: str) -> xr.DataArray:
        """Return a variable in memory, no longer than is shown, along the labels first, or along `NETWORK`."""
        if name not in self._loaded:
            values = self.dataset[name]
            for dim, most in (("leading_index", SHOWN_SINGULAR_VALUES), ("eigenvalue", SHOWN_EIGENVALUES)):
                values = values.isel({dim: slice(most)}) if dim in values.dims else values
            if self._sparse and set(self._dims) <= set(values.dims):
                values = values.isel(self._points).transpose(NETWORK, ...)
            self._loaded[name] = values.transpose(*(d for d in self._dims if d in values.dims), ...).load()
        return self._loaded[name]

    def at(self, name: str, place: Place) -> Any:
        """Return the values of a variable at a network, as numpy gives them; its other dimensions keep their order."""
        array = self.array(name)
        if NETWORK in array.dims:
            return array.values[self._numbers[tuple(place.values())]]
        return array.values[tuple(place[dim] for dim in self._dims if dim in array.dims)]

    def numbers(self, name: str, place: Place) -> Array:
        """Return the values as numbers; NaN where the network has none."""
        return np.asarray(self.at(name, place), dtype=np.float64)

    def own_dims(self, name: str) -> list[str]:
        """Return the dimensions of what `at` returns."""
        return [str(dim) for dim in self.array(name).dims if dim not in (*self._dims, NETWORK)]


def _places(dataset: xr.Dataset, dims: list[str]) -> Iterator[tuple[Place, dict[str, Any]]]:
    status = dataset["status"].values
    known = get_args(Status)
    values = {dim: dataset[dim].values for dim in dims}
    for index in np.ndindex(status.shape):
        if str(status[index]) in known:
            place: Place = dict(zip(dims, index, strict=True))
            labels = {dim: _plain(values[dim][i]) for dim, i in zip(dims, index, strict=True)}
            yield place, labels


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def _seed(read: _Reader, place: Place) -> str | None:
    if not read.has("seed"):
        return None
    # Text, because a seed may be larger than the whole numbers that a browser tells apart.
    return str(int(read.at("seed", place)))


def _scalars(read: _Reader, place: Place) -> dict[str, float | None]:
    return {name: finite_or_none(read.at(name, place)) for name in read.scalars}


def _present(**parts: Any) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if part is not None}


def _loss(read: _Reader, place: Place, points: int) -> dict[str, Any] | None:
    if not read.has("loss"):
        return None
    losses = _without_end(read.numbers("loss", place))
    if not losses.size:
        return None
    kept = thinned(losses.size, points)
    epochs = read.numbers("epoch", place) if read.has("epoch") else np.arange(losses.size)
    rows = [epochs[kept], losses[kept]]
    if read.has("gradient_norm"):
        rows.append(read.numbers("gradient_norm", place)[kept])
    return pack(rows)


def _truncation(read: _Reader, place: Place) -> dict[str, Any] | None:
    """Return the curves of the loss, and of the accuracy, over the rank; of each matrix that was truncated."""
    names, rows = [], []
    for variable, word in (("truncation_loss", "loss"), ("truncation_accuracy", "accuracy")):
        if not read.has(variable):
            continue
        values = read.numbers(variable, place)
        kinds = [str(kind) for kind in read.dataset["truncated"].values] if values.ndim == 2 else [""]
        for kind, curve in zip(kinds, np.atleast_2d(values), strict=True):
            if np.isfinite(curve).any():
                names.append({"of": word, "truncated": kind})
                rows.append(curve)
    if not rows:
        return None
    ranks = read.numbers("rank", place)
    known = np.isfinite(np.array(rows)).any(axis=0)
    return {"names": names, "values": pack(np.array([ranks, *rows])[:, known])}


def _add_details(networks: list[dict[str, Any]], read: _Reader, places: list[Place]) -> None:
    """Give networks their details until a page is full: all first samples, then all second ones, and so on."""
    order = sorted(range(len(networks)), key=lambda index: (places[index].get("sample", 0), index))
    room = DETAIL_BYTES
    for index in order:
        place = places[index]
        detail = _present(history=_history(read, place), spectra=_spectra(read, place), trial=_trial(read, place))
        room -= packed_bytes(detail)
        if room < 0:
            return
        networks[index]["detail"] = detail


def _history(read: _Reader, place: Place) -> dict[str, Any] | None:
    """Return the singular values of dW, and the leading eigenvalues of W, at recorded epochs."""
    if not read.has("recorded_epoch"):
        return None
    epochs = _without_end(read.numbers("recorded_epoch", place))
    if not epochs.size:
        return None
    kept = thinned(epochs.size, RECORDS)
    history = {}
    if read.has("singular_value_history"):
        singular = read.numbers("singular_value_history", place)[kept]
        known = np.isfinite(singular).any(axis=0)
        if known.any():
            history["singular"] = pack(singular[:, known])
    if read.has("eigenvalue_real_history", "eigenvalue_imag_history"):
        parts = [read.numbers(f"eigenvalue_{part}_history", place)[kept] for part in ("real", "imag")]
        if np.isfinite(parts[0]).any():
            history["eigen"] = pack(parts)
    return {"epochs": pack(epochs[kept]), **history} if history else None


def _spectra(read: _Reader, place: Place) -> dict[str, Any] | None:
    """Return the singular values of W0, dW and W (of each weight matrix, and gate), and their eigenvalues."""
    if not read.has("singular_value", "matrix"):
        return None
    singular = []
    for variable in ("singular_value", "gate_singular_value"):
        if not read.has(variable):
            continue
        own = read.own_dims(variable)
        of = [dim for dim in ("weight", "gate") if dim in own]
        values = np.moveaxis(read.numbers(variable, place), [own.index(dim) for dim in of], range(len(of)))
        for index in np.ndindex(values.shape[: len(of)]):
            name = ", ".join(str(read.dataset[dim].values[i]) for dim, i in zip(of, index, strict=True))
            known = np.isfinite(values[index]).any(axis=0)
            if known.any():
                singular.append({"name": name, "values": pack(values[index][:, known])})
    if not singular:
        return None
    spectra: dict[str, Any] = {"matrices": [str(name) for name in read.dataset["matrix"].values], "singular": singular}
    if read.has("eigenvalue_real", "eigenvalue_imag"):
        parts = np.stack([read.numbers(f"eigenvalue_{part}", place) for part in ("real", "imag")])
        known = np.isfinite(parts).any(axis=(0, 1))
        if known.any():
            spectra["eigen"] = pack(parts[:, :, known])
    return spectra


def _trial(read: _Reader, place: Place) -> dict[str, Any] | None:
    """Return the example trial; outside the mask there is no target."""
    names = ("example_input", "example_target", "example_mask", "example_output")
    if not read.has("time", *names):
        return None
    inputs, target, mask, output = (read.numbers(name, place) for name in names)
    steps = np.isfinite(output).any(axis=1)
    if not steps.any():
        return None

    def rows(values: Array) -> dict[str, Any]:
        kept = values[steps]
        return pack(kept[:, np.isfinite(kept).any(axis=0)].T)

    channels = np.isfinite(output[steps]).any(axis=0)
    return {
        "time": pack(read.numbers("time", place)[steps]),
        "input": rows(inputs),
        "output": rows(output),
        # Not by its own finite values: a channel of which the mask leaves nothing is a channel still.
        "target": pack(np.where(mask > 0, target, np.nan)[np.ix_(steps, channels)].T),
    }


def _without_end(values: Array) -> Array:
    """Return values without the padding at their end."""
    known = np.flatnonzero(~np.isnan(values))
    return values[: known[-1] + 1] if known.size else values[:0]
