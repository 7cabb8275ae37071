"""All cells of a run as one labelled Dataset, whose arrays are read from their files when they are needed.

Every cell carries scalar labels (task, gain, sample, hidden_size, ...). A label that takes several values in the run
becomes a dimension; the others stay scalars. Cells that a run does not have are NaN, and so is what is shorter in one
cell than in another (the epochs of a task that trains for fewer).
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.sweep.glance import Reader, glance
from rankscope.sweep.parts import InMemory, Part
from rankscope.sweep.store import RunFolder

FIRST_LABELS = ("task", "gain", "hidden_size", "sample")
NOT_LABELS = ("seed",)
MOST_PLACES = 10_000_000
"""Combinations of labels, of each of which every scalar has a number, whether there is a cell or not."""
SPARSE = 4
"""As many times more combinations than cells are few cells."""


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
        If the folder does not exist, holds no finished cell, one of its files is damaged, or its cells have too many
        different labels to be laid out as a grid.
    """
    run = RunFolder(folder)
    parts = list(glance([run.path_of(digest) for digest in run.done()]))
    if not parts:
        raise InputError(f"folder must hold finished cells, got {str(folder)!r}, which has none yet")
    return assemble(parts)


def read_cells(run: RunFolder, without: Collection[str] = ()) -> tuple[list[Part], dict[str, str]]:
    """Return the finished cells of a run, each read once and whole, and by digest why others cannot be read.

    Parameters
    ----------
    without
        Variables that are left out.
    """
    reader = Reader(with_arrays=True, without=without)
    parts: list[Part] = []
    unreadable = {}
    for digest in run.done():
        part: Part | None
        try:
            part = reader.part(run.path_of(digest))
        except MemoryError:
            raise
        except Exception:
            part = None  # Of many kinds; the plain way of reading says what is wrong.
        if part is None or part.said("digest") != digest:
            try:
                part = InMemory(run.read(digest).drop_vars(without, errors="ignore"))
            except (InputError, ValueError) as error:
                unreadable[digest] = str(error)
                continue
        parts.append(part)
    return parts, unreadable


def is_sparse(combinations: int, cells: int) -> bool:
    """Return whether few of the combinations of labels have a cell: too few to lay out arrays with room for all."""
    return combinations > SPARSE * cells


def assemble(parts: Sequence[Part]) -> xr.Dataset:
    """Return cells with scalar labels as one Dataset over the labels that vary.

    An array that all cells have in memory is in memory, unless most of its room would be empty; the others are lazy.
    A cell that was read whole lets go of an array that is laid out, so that no array is in memory twice.

    Raises
    ------
    InputError
        If two cells have the same labels, or the labels make too many combinations.
    """
    described = [part.labels for part in parts]
    names = _labels_of(described)
    for theirs in described:
        for name in names:
            _check_plain(name, theirs[name])
    labels = {name: _in_order({theirs[name] for theirs in described}) for name in names}
    varying = [name for name in names if len(labels[name]) > 1]
    shape = tuple(len(labels[name]) for name in varying)
    if math.prod(shape) > MOST_PLACES:
        many = ", ".join(f"{len(labels[name])} of {name}" for name in varying)
        raise InputError(f"cells must have labels with at most {MOST_PLACES} combinations, got {many}")
    number_of = [{label: number for number, label in enumerate(labels[name])} for name in varying]
    places: dict[tuple[int, ...], Part] = {}
    for part, theirs in zip(parts, described, strict=True):
        place = tuple(numbers[theirs[name]] for name, numbers in zip(varying, number_of, strict=True))
        if place in places:
            same = {name: theirs[name] for name in varying}
            raise InputError(f"cells must differ in {', '.join(names)}, got two with {same}")
        places[place] = part
    places = dict(sorted(places.items()))
    sparse = is_sparse(math.prod(shape), len(places))
    together = xr.Dataset(
        coords={name: (_of_one_type(labels[name]) if name in varying else labels[name][0]) for name in names},
        attrs=_common_attributes(parts),
    )
    lengths = _lengths(parts)
    makes = {id(part.variables): part.variables for part in parts}
    for name in dict.fromkeys(name for variables in makes.values() for name in variables if name not in names):
        having = {place: part for place, part in places.items() if name in part.variables}
        together[name] = _spread(name, having, dict(zip(varying, shape, strict=True)), lengths, sparse)
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
    name: str,
    having: Mapping[tuple[int, ...], Part],
    sizes: Mapping[str, int],
    lengths: Mapping[str, int],
    sparse: bool,
) -> xr.Variable:
    """Return one variable of the cells at their places on a grid of `sizes`, padded to `lengths`."""
    largest = max(having.values(), key=lambda part: math.prod(part.shape(name)))
    model = largest.variables[name]
    if model.dims == (name,):
        coordinate: xr.Variable = largest.whole(name)  # of a dimension: the longest one serves all
        return coordinate
    shape = tuple(sizes.values())
    missing: Any = "" if model.dtype.kind in "OU" else np.nan
    if not model.dims:
        return xr.Variable(tuple(sizes), _scalars(name, having, shape, missing), largest.attrs_of(name))
    inner = tuple(lengths[dim] for dim in model.dims)
    at_hand = all(part.at_hand(name) for part in having.values())
    lay_out = _in_memory if at_hand and not sparse else _lazily
    return xr.Variable((*sizes, *model.dims), lay_out(name, having, shape, inner, missing), largest.attrs_of(name))


def _scalars(name: str, having: Mapping[tuple[int, ...], Part], shape: tuple[int, ...], missing: Any) -> NDArray[Any]:
    scalars = [part.scalar(name) for part in having.values()]
    for scalar in scalars:
        _check_plain(name, scalar)
    # Which type has room for all of them, and for what is missing, numpy knows best.
    values = np.array(scalars if len(scalars) == math.prod(shape) else [*scalars, missing])
    laid_out = np.full(shape, values[-1], dtype=values.dtype)
    laid_out[_index(having)] = values[: len(scalars)] if shape else values[0]
    return laid_out


def _index(having: Mapping[tuple[int, ...], Part]) -> tuple[NDArray[np.intp], ...]:
    """Return where the cells are, for each dimension."""
    return tuple(np.array(list(having), dtype=np.intp).reshape(len(having), -1).T)


def _in_memory(
    name: str, having: Mapping[tuple[int, ...], Part], shape: tuple[int, ...], inner: tuple[int, ...], missing: Any
) -> NDArray[Any]:
    laid_out: NDArray[Any] = np.full((*shape, *inner), missing, dtype=_type_of(missing))
    for place, part in having.items():
        values = part.give(name)
        index: tuple[int | slice, ...] = (*place, *map(slice, values.shape))
        laid_out[index] = values
    return laid_out


def _lazily(
    name: str, having: Mapping[tuple[int, ...], Part], shape: tuple[int, ...], inner: tuple[int, ...], missing: Any
) -> da.Array:
    # dask looks through all arguments for its own collections, but not into a function.
    blocks: da.Array = da.map_blocks(  # type: ignore[no-untyped-call]
        partial(_block, variable=name, having=having, inner=inner, missing=missing),
        name=f"{name}-{uuid.uuid4().hex}",
        chunks=(*((1,) * length for length in shape), *((length,) for length in inner)),
        meta=np.empty((0,) * (len(shape) + len(inner)), dtype=_type_of(missing)),
    )
    return blocks


def _block(
    variable: str,
    having: Mapping[tuple[int, ...], Part],
    inner: tuple[int, ...],
    missing: Any,
    block_id: tuple[int, ...] = (),
) -> NDArray[Any]:
    """Return the values of the cell of that place, padded to `inner`."""
    padded: NDArray[Any] = np.full(inner, missing, dtype=_type_of(missing))
    place = block_id[: len(block_id) - len(inner)]
    part = having.get(place)
    if part is not None:
        values = part.array(variable)
        padded[tuple(map(slice, values.shape))] = values
    return padded.reshape((1,) * len(place) + inner)


def _type_of(missing: Any) -> type:
    return object if isinstance(missing, str) else np.float64


def _common_attributes(parts: Sequence[Part]) -> dict[str, Any]:
    """Return the attributes that all cells share: those of one kind compare theirs, then one of each kind."""
    shared = {name: value for name, value in parts[0].attrs().items() if _equal(value, value)}
    for kind in dict.fromkeys(map(type, parts)):
        alike = [part for part in parts if type(part) is kind]
        whole = alike[0].attrs()
        theirs = [part.attributes for part in alike]
        same = {name for name, value in theirs[0].items() if all(_equal(said.get(name), value) for said in theirs)}
        shared = {n: value for n, value in shared.items() if n in same and _equal(whole.get(n), value)}
    return shared


def _equal(one: Any, other: Any) -> bool:
    """Return whether two attributes are equal, also if they are arrays; NaN is not."""
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else bool(one == other)
