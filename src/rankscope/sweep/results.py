"""All cells of a run as one labelled Dataset, whose arrays are read from their files when they are needed.

Every cell carries scalar labels (task, gain, sample, hidden_size, ...). A label that takes several values in the run
becomes a dimension; the others stay scalars. Cells that a run does not have are NaN, and so is what is shorter in one
cell than in another (the epochs of a task that trains for fewer).
"""

from __future__ import annotations

import itertools
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.sweep.glance import InMemory, Part, glance
from rankscope.sweep.store import RunFolder

FIRST_LABELS = ("task", "gain", "hidden_size", "sample")
NOT_LABELS = ("seed",)
HOLE = -1
"""Instead of a cell's number, where the run has no cell."""


def open_run(folder: str | os.PathLike[str]) -> xr.Dataset:
    """Return everything measured in a run.

    Parameters
    ----------
    folder
        A folder that a run was stored in.

    Returns
    -------
    xr.Dataset
        First the labels that vary as dimensions, then those of the variables. Scalars are in memory, arrays are lazy
        (dask): a chunk for each cell, for which its file is opened and closed again.

    Raises
    ------
    InputError
        If the folder does not exist, holds no finished cell, or one of its files is damaged.
    """
    run = RunFolder(folder)
    parts = list(glance([run.path_of(digest) for digest in run.done()]))
    if not parts:
        raise InputError(f"folder must hold finished cells, got {str(folder)!r}, which has none yet")
    return _side_by_side(parts)


def assemble(cells: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return cells with scalar labels as one Dataset over the labels that vary.

    Raises
    ------
    InputError
        If two cells have the same labels.
    """
    return _side_by_side([InMemory(cell) for cell in cells])


def _side_by_side(parts: Sequence[Part]) -> xr.Dataset:
    described = [part.labels for part in parts]
    names = _labels_of(described)
    for theirs in described:
        for name in names:
            _check_plain(name, theirs[name])
    labels = {name: _in_order({theirs[name] for theirs in described}) for name in names}
    varying = [name for name in names if len(labels[name]) > 1]
    places: dict[tuple[Any, ...], int] = {}
    for number, theirs in enumerate(described):
        place = tuple(theirs[name] for name in varying)
        if place in places:
            raise InputError(
                f"cells must differ in {', '.join(names)}, got two with {dict(zip(varying, place, strict=True))}"
            )
        places[place] = number
    grid = itertools.product(*(labels[name] for name in varying))
    shape = tuple(len(labels[name]) for name in varying)
    numbers = np.array([places.get(place, HOLE) for place in grid]).reshape(shape)
    together = xr.Dataset(
        coords={name: (_of_one_type(labels[name]) if name in varying else labels[name][0]) for name in names},
        attrs=_common_attributes(parts),
    )
    lengths = _lengths(parts)
    makes = {id(part.variables): part.variables for part in parts}
    for name in dict.fromkeys(name for variables in makes.values() for name in variables if name not in names):
        together[name] = _spread(name, parts, numbers, varying, lengths)
    return together.set_coords([name for name in ("seed", "time", "recorded_epoch") if name in together])


def _check_plain(name: str, value: object) -> None:
    if not isinstance(value, str | bytes | bool | int | float | np.generic):
        raise InputError(f"{name} must be a number or a word in every cell, got {value!r:.200}")


def _in_order(labels: set[Any]) -> list[Any]:
    """Return labels in order, numbers before words: a learning rate may be 0.01 or "default"."""
    return sorted(labels, key=lambda label: (isinstance(label, str), label))


def _of_one_type(labels: list[Any]) -> list[Any]:
    """Return labels as words if some are."""
    return [str(label) for label in labels] if any(isinstance(label, str) for label in labels) else labels


def _labels_of(described: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the scalar coordinates that all cells have, the usual ones first."""
    shared = set(described[0]).intersection(*described)
    usual = [name for name in FIRST_LABELS if name in shared]
    return usual + sorted(shared - set(usual) - set(NOT_LABELS))


def _lengths(parts: Sequence[Part]) -> dict[str, int]:
    """Return how long each dimension is in the cell in which it is longest."""
    lengths: dict[str, int] = {}
    for part in parts:
        for name, variable in part.variables.items():
            for dim, length in zip(variable.dims, part.shape(name), strict=True):
                lengths[dim] = max(lengths.get(dim, 0), length)
    return lengths


def _spread(
    name: str, parts: Sequence[Part], numbers: NDArray[Any], varying: list[str], lengths: Mapping[str, int]
) -> xr.Variable:
    """Return one variable over the grid of the cells' numbers, padded to `lengths`."""
    having = {n: parts[n] for n in numbers.ravel().tolist() if n != HOLE and name in parts[n].variables}
    largest = max(having.values(), key=lambda part: math.prod(part.shape(name)))
    model = largest.variables[name]
    if model.dims == (name,):
        coordinate: xr.Variable = largest.whole(name)  # of a dimension: the longest one serves all
        return coordinate
    text = model.dtype.kind in "OU"
    missing: Any = "" if text else np.nan
    if not model.dims:
        scalars = [having[n].scalar(name) if n in having else missing for n in numbers.ravel().tolist()]
        for scalar in scalars:
            _check_plain(name, scalar)
        return xr.Variable(varying, np.array(scalars).reshape(numbers.shape), model.attrs)
    inner = tuple(lengths[dim] for dim in model.dims)
    # dask looks through all arguments for its own collections, but not into a function.
    block = partial(_block, variable=name, parts=having, inner=inner, missing=missing)
    blocks = da.map_blocks(  # type: ignore[no-untyped-call]
        block,
        da.from_array(numbers, chunks=1),  # type: ignore[no-untyped-call]
        name=f"{name}-{uuid.uuid4().hex}",
        chunks=(*((1,) * length for length in numbers.shape), *((length,) for length in inner)),
        new_axis=list(range(numbers.ndim, numbers.ndim + len(inner))),
        meta=np.empty((0,) * (numbers.ndim + len(inner)), dtype=object if text else np.float64),
    )
    return xr.Variable((*varying, *model.dims), blocks, model.attrs)


def _block(
    number: NDArray[Any], variable: str, parts: Mapping[int, Part], inner: tuple[int, ...], missing: Any
) -> NDArray[Any]:
    """Return the values of the cell of that number, padded to `inner`."""
    padded = np.full(inner, missing, dtype=object if isinstance(missing, str) else np.float64)
    part = parts.get(number.item())
    if part is not None:
        values = part.array(variable)
        padded[tuple(map(slice, values.shape))] = values
    return padded.reshape(number.shape + inner)


def _common_attributes(parts: Sequence[Part]) -> dict[str, Any]:
    first = parts[0].attrs()
    if len({type(part) for part in parts}) > 1:
        theirs: list[Mapping[str, Any]] = [part.attrs() for part in parts]
    else:
        theirs = [part.attributes for part in parts]
    shared = {name: value for name, value in theirs[0].items() if all(_equal(said.get(name), value) for said in theirs)}
    return {name: value for name, value in first.items() if name in shared and _equal(value, value)}


def _equal(one: Any, other: Any) -> bool:
    """Return whether two attributes are equal, also if they are arrays; NaN is not."""
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else bool(one == other)
