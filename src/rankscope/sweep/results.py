"""All results of a run as one labelled Dataset.

Every result carries scalar labels (task, gain, sample, hidden_size, ...). A label with several values in the run
becomes a dimension; the others stay scalars. Combinations of labels without a result are NaN, and so is the rest of an
array that is shorter in one result than in another (the losses of a training with fewer epochs).

Scalars come from the headers of the files. Arrays are read when they are needed, and no number is returned from a file
whose checksum does not match.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.io.dataset_file import StoredDataset, StoredVariable
from rankscope.sweep.axes import Places, axes_of, own_labels
from rankscope.sweep.manifest import read_manifest
from rankscope.sweep.result_file import WARNINGS, open_result
from rankscope.sweep.store import RunFolder

FIRST_LABELS = ("task", "gain", "hidden_size", "sample")
NOT_LABELS = ("seed",)
MOST_CELLS_OF_GRID = 10_000_000
"""Largest number of combinations of labels; every scalar has a number for each."""
SPARSE = 4
"""A grid with this many times more combinations than results is sparse."""

Place = tuple[int, ...]
Joined = Mapping[str, tuple[str, ...]]
"""Coordinates of text that differ between results -> all their words."""


def open_run(folder: str | os.PathLike[str], in_memory: bool = False, without: Collection[str] = ()) -> xr.Dataset:
    """Return everything measured in a run.

    Parameters
    ----------
    folder
        Folder of a run.
    in_memory
        Load all arrays, reading each file once, unless the grid of labels is sparse.
    without
        Variables to leave out.

    Returns
    -------
    xr.Dataset
        Dimensions are the labels that vary, then those of the variables. Scalars are in memory; arrays are lazy (dask),
        with one chunk for each result.

    Raises
    ------
    InputError
        If the folder does not exist, holds no finished job, a file is damaged, or the labels have too many different
        values to form a grid.
    """
    results, unreadable = read_results(folder)
    for digest, reason in unreadable.items():
        raise InputError(f"job {digest} must have an undamaged result: {reason}; running the jobs again replaces it")
    if not results:
        raise RunFolder(folder).without_results()
    return assemble(results, in_memory, without)


def read_results(folder: str | os.PathLike[str], verify: bool = False) -> tuple[list[StoredDataset], dict[str, str]]:
    """Return the results of a run with their scalars, and by digest why others cannot be read.

    Parameters
    ----------
    verify
        Read all files completely and compare their checksums.
    """
    store = RunFolder(folder)
    results, unreadable = [], {}
    for digest in store.done():
        try:
            result = open_result(store.measurements_path(digest), verify)
            if result.metadata["digest"] != digest:
                raise InputError(f"it is the result of another job, {result.metadata['digest']!s:.40}")
            results.append(result)
        except InputError as error:
            if not isinstance(error.__cause__, FileNotFoundError):  # removed meanwhile
                unreadable[digest] = str(error)
    return _with_axes(results, store), unreadable


def _with_axes(results: Sequence[StoredDataset], store: RunFolder) -> list[StoredDataset]:
    """Return results with a label for every further option in which the jobs of the run differ."""
    manifest = read_manifest(store.path / "run.json")
    jobs = {} if manifest is None else dict(manifest.jobs)
    jobs |= {result.metadata["digest"]: description_of(result) for result in results}
    structures = {id(result.variables): result.variables for result in results}
    taken = {name for all_ in structures.values() for n, v in all_.items() if v.dims for name in (n, *v.dims)}
    axes = axes_of(jobs, taken)
    sizes = [result.values.get("hidden_size") for result in results]
    further = [axes[result.metadata["digest"]] for result in results]
    # The size of a network of the user's own is measured, and usually follows from an option.
    own = [{**own_labels(description_of(result)), **new} for result, new in zip(results, further, strict=True)]
    names = sorted(set().union(*own) - {"hidden_size"})
    follows = Places(len(own), [[one.get(name) for one in own] for name in names]).determines(sizes)
    dropped = {"hidden_size"} if follows and not all("hidden_size" in one for one in own) else set()
    shared: dict[tuple[int, tuple[type, ...]], dict[str, StoredVariable]] = {}
    labelled = []
    for result, new in zip(results, further, strict=True):
        kinds = tuple(map(type, new.values()))
        added = {**new, "digest": result.metadata["digest"]}
        variables = shared.get((id(result.variables), kinds))
        if variables is None:
            scalars = {name: StoredVariable((), np.asarray(value).dtype, (), {}) for name, value in added.items()}
            variables = shared[id(result.variables), kinds] = {**result.variables, **scalars}
        coordinates = result.coordinates - dropped | set(new)
        values = {**result.values, **added}
        labelled.append(replace(result, variables=variables, coordinates=coordinates, values=values))
    return labelled


def description_of(result: StoredDataset) -> dict[str, Any]:
    """Return the description of the job of a result, empty if it cannot be read."""
    try:
        found = json.loads(result.metadata["job"])
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def labels_of(result: StoredDataset) -> dict[str, Any]:
    """Return the scalar coordinates of a result."""
    return {name: result.values[name] for name in sorted(result.coordinates) if not result.variables[name].dims}


def is_sparse(combinations: int, results: int) -> bool:
    """Return whether so few combinations of labels have a result that arrays should not be allocated for all."""
    return combinations > SPARSE * results


def assemble(results: Sequence[StoredDataset], in_memory: bool = False, without: Collection[str] = ()) -> xr.Dataset:
    """Return results as one Dataset over the labels that vary. Arguments as in `open_run`.

    Raises
    ------
    InputError
        If two results have the same labels, or the labels have too many combinations.
    """
    described = [labels_of(result) for result in results]
    names = _common_labels(described)
    values = {name: in_order({labels[name] for labels in described}) for name in names}
    varying = [name for name in names if len(values[name]) > 1]
    sizes = {name: len(values[name]) for name in varying}
    if math.prod(sizes.values()) > MOST_CELLS_OF_GRID:
        many = ", ".join(f"{size} of {name}" for name, size in sizes.items())
        raise InputError(f"results must have at most {MOST_CELLS_OF_GRID} combinations of labels, got {many}")
    places = _places(results, described, {name: values[name] for name in varying})
    dataset = xr.Dataset(
        coords={name: (_of_one_type(values[name]) if name in varying else values[name][0]) for name in names},
        attrs=_common_attributes(results),
    )
    joined = _joined(results)
    lengths = _lengths(results) | {dim: len(words) for dim, words in joined.items()}
    structures = {id(result.variables): result for result in results}
    variables = dict.fromkeys(name for result in structures.values() for name in result.variables)
    load = in_memory and not is_sparse(math.prod(sizes.values()), len(results))
    arrays: dict[str, NDArray[Any]] = {}
    for name in variables:
        if name not in names and name not in without:
            if name in joined:
                dataset[name] = (name, np.array(joined[name], dtype=object))
                continue
            dataset[name], array = _spread(name, places, sizes, lengths, load, joined)
            if array is not None:
                arrays[name] = array
    if arrays:
        _fill(arrays, places, joined)
    return dataset.set_coords([name for name in ("seed", "digest", "time", "recorded_epoch") if name in dataset])


def _common_labels(described: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the labels that all results have, the usual ones first."""
    shared = set(described[0]).intersection(*described)
    usual = [name for name in FIRST_LABELS if name in shared]
    return usual + sorted(shared - set(usual) - set(NOT_LABELS))


def in_order(labels: set[Any]) -> list[Any]:
    """Return labels in order, numbers before text: a learning rate may be 0.01 or "default"."""
    return sorted(labels, key=lambda label: (isinstance(label, str), label))


def _of_one_type(labels: list[Any]) -> list[Any]:
    """Return labels as text if some are."""
    return [str(label) for label in labels] if any(isinstance(label, str) for label in labels) else labels


def _places(
    results: Sequence[StoredDataset], described: Sequence[Mapping[str, Any]], values: Mapping[str, list[Any]]
) -> dict[Place, StoredDataset]:
    """Return the results by their indices in the grid, in order."""
    numbers = {name: {label: number for number, label in enumerate(labels)} for name, labels in values.items()}
    places: dict[Place, StoredDataset] = {}
    for result, labels in zip(results, described, strict=True):
        place = tuple(numbers[name][labels[name]] for name in values)
        if place in places:
            same = {name: labels[name] for name in values}
            raise InputError(f"results must have different labels, got two with {same or dict(labels)}")
        places[place] = result
    return dict(sorted(places.items()))


def _lengths(results: Sequence[StoredDataset]) -> dict[str, int]:
    """Return the length of each dimension in the result in which it is longest."""
    lengths: dict[str, int] = {}
    for variables in {id(result.variables): result.variables for result in results}.values():
        for variable in variables.values():
            for dim, length in zip(variable.dims, variable.shape, strict=True):
                lengths[dim] = max(lengths.get(dim, 0), length)
    return lengths


def _joined(results: Sequence[StoredDataset]) -> Joined:
    """Return all words of each coordinate of text that differs between results, such as the gates of rnn and gru."""
    found: dict[str, dict[tuple[str, ...], None]] = {}
    for result in results:
        for name, variable in result.variables.items():
            if variable.dims == (name,) and variable.dtype.kind == "O":
                words = tuple(result.values[name].tolist())
                if len(set(words)) == len(words):
                    found.setdefault(name, {})[words] = None
    return {
        name: tuple(dict.fromkeys(word for words in different for word in words))
        for name, different in found.items()
        if len(different) > 1
    }


def _index(result: StoredDataset, name: str, joined: Joined) -> tuple[Any, ...]:
    """Return where the values of a variable belong in its array over all results."""
    variable = result.variables[name]
    if joined.keys().isdisjoint(variable.dims):
        return tuple(map(slice, variable.shape))
    where = [
        [joined[dim].index(word) for word in result.values[dim].tolist()] if dim in joined else range(length)
        for dim, length in zip(variable.dims, variable.shape, strict=True)
    ]
    return np.ix_(*where)


def _spread(
    name: str,
    places: Mapping[Place, StoredDataset],
    sizes: Mapping[str, int],
    lengths: Mapping[str, int],
    load: bool,
    joined: Joined,
) -> tuple[xr.Variable, NDArray[Any] | None]:
    """Return one variable of all results on the grid, padded to `lengths`, and the array that is to be filled."""
    having = {place: result for place, result in places.items() if name in result.variables}
    different = {id(result.variables): result for result in reversed(having.values())}.values()
    largest = max(different, key=lambda result: math.prod(result.variables[name].shape))
    model = largest.variables[name]
    if any(result.variables[name].dims != model.dims for result in different):
        raise InputError(f"{name} must have the same dimensions in all results, got {model.dims} and others")
    attrs = dict(model.attrs)
    if model.dims == (name,):
        longest = largest.array(name)
        # Of whole numbers, the structure holds the values.
        for result in having.values() if model.coordinate is None else different:
            values = result.array(name)
            if not np.array_equal(values, longest[: len(values)]):
                raise InputError(
                    f"{name} must have the same values in all results, got {longest} and {values}; "
                    "results of different kinds belong in different folders"
                )
        return xr.Variable(model.dims, longest, attrs), None
    shape = tuple(sizes.values())
    missing: Any = "" if model.dtype.kind in "OU" else np.nan
    if not model.dims:
        return xr.Variable(tuple(sizes), _scalars(name, having, shape, missing), attrs), None
    inner = tuple(lengths[dim] for dim in model.dims)
    dims = (*sizes, *model.dims)
    if load:
        array: NDArray[Any] = np.full((*shape, *inner), missing, dtype=_type_of(missing))
        return xr.Variable(dims, array, attrs), array
    return xr.Variable(dims, _lazily(name, having, shape, inner, missing, joined), attrs), None


def _fill(arrays: Mapping[str, NDArray[Any]], places: Mapping[Place, StoredDataset], joined: Joined) -> None:
    """Fill arrays over the grid, reading each file once."""
    for place, result in places.items():
        found = result.arrays([name for name in arrays if name in result.variables])
        for name, values in found.items():
            arrays[name][place][_index(result, name, joined)] = values


def _scalars(name: str, having: Mapping[Place, StoredDataset], shape: Place, missing: Any) -> NDArray[Any]:
    scalars = [result.values[name] for result in having.values()]
    # numpy finds the type that can hold all of them, and the value for what is missing.
    values = np.array(scalars if len(scalars) == math.prod(shape) else [*scalars, missing])
    array = np.full(shape, values[-1], dtype=values.dtype)
    index = tuple(np.array(list(having), dtype=np.intp).reshape(len(having), -1).T)
    array[index] = values[: len(scalars)] if shape else values[0]
    return array


def _lazily(
    name: str,
    having: Mapping[Place, StoredDataset],
    shape: Place,
    inner: tuple[int, ...],
    missing: Any,
    joined: Joined,
) -> da.Array:
    # dask searches all arguments for its own collections, but not inside a function.
    blocks: da.Array = da.map_blocks(  # type: ignore[no-untyped-call]
        partial(_block, variable=name, having=having, inner=inner, missing=missing, joined=joined),
        name=f"{name}-{uuid.uuid4().hex}",
        chunks=(*((1,) * length for length in shape), *((length,) for length in inner)),
        meta=np.empty((0,) * (len(shape) + len(inner)), dtype=_type_of(missing)),
    )
    return blocks


def _block(
    variable: str,
    having: Mapping[Place, StoredDataset],
    inner: tuple[int, ...],
    missing: Any,
    joined: Joined,
    block_id: tuple[int, ...] = (),
) -> NDArray[Any]:
    """Return the values of the result at one place, padded to `inner`."""
    padded: NDArray[Any] = np.full(inner, missing, dtype=_type_of(missing))
    place = block_id[: len(block_id) - len(inner)]
    result = having.get(place)
    if result is not None:
        padded[_index(result, variable, joined)] = result.array(variable)
    return padded.reshape((1,) * len(place) + inner)


def _type_of(missing: Any) -> type:
    return object if isinstance(missing, str) else np.float64


def _common_attributes(results: Sequence[StoredDataset]) -> dict[str, Any]:
    """Return the attributes that all results share, and the warnings of any."""
    first, *rest = [result.attrs for result in results]
    common = {name: value for name, value in first.items() if all(attrs.get(name) == value for attrs in rest)}
    warned = dict.fromkeys(text for attrs in (first, *rest) for text in attrs.get(WARNINGS, ()))
    return common | ({WARNINGS: list(warned)} if warned else {})
