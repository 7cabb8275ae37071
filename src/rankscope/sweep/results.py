"""All cells of a run as one labelled Dataset, whose arrays are read from their files when they are needed.

Every cell carries scalar labels (task, gain, sample, hidden_size, ...). A label that takes several values in the run
becomes a dimension; the others stay scalars. Cells that a run does not have are NaN, and so is what is shorter in one
cell than in another (the epochs of a task that trains for fewer).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from rankscope.errors import InputError
from rankscope.sweep.netcdf import UNLOCKED
from rankscope.sweep.store import RunFolder

FIRST_LABELS = ("task", "gain", "hidden_size", "sample")
NOT_LABELS = ("seed",)


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
        (dask).

    Raises
    ------
    InputError
        If the folder does not exist or holds no finished cell.
    """
    run = RunFolder(folder)
    paths = [run.path_of(digest) for digest in run.done()]
    if not paths:
        raise InputError(f"folder must hold finished cells, got {str(folder)!r}, which has none yet")
    return assemble([_opened(path) for path in paths])


def _opened(path: Path) -> xr.Dataset:
    """Return one cell: its scalars in memory, its arrays in its file.

    Scalars are read while the file is open. xarray keeps some hundred files open, and for more cells than that would
    open each anew for every scalar.
    """
    cell = xr.open_dataset(path, engine="h5netcdf", chunks={}, driver_kwds=UNLOCKED)
    for variable in cell.variables.values():
        if variable.ndim == 0:
            variable.load()
    return cell


def assemble(cells: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return cells with scalar labels as one Dataset over the labels that vary.

    Raises
    ------
    InputError
        If two cells have the same labels.
    """
    names = _labels_of(cells)
    labels = {name: _in_order({cell[name].item() for cell in cells}) for name in names}
    varying = [name for name in names if len(labels[name]) > 1]
    places: dict[tuple[Any, ...], xr.Dataset] = {}
    for cell in cells:
        place = tuple(cell[name].item() for name in varying)
        if place in places:
            raise InputError(
                f"cells must differ in {', '.join(names)}, got two with {dict(zip(varying, place, strict=True))}"
            )
        places[place] = cell
    grid = list(itertools.product(*(labels[name] for name in varying)))
    shape = tuple(len(labels[name]) for name in varying)
    together = xr.Dataset(
        coords={name: (_of_one_type(labels[name]) if name in varying else labels[name][0]) for name in names},
        attrs=_common_attributes(cells),
    )
    for name in dict.fromkeys(name for cell in cells for name in cell.variables if name not in names):
        together[str(name)] = _spread(str(name), [places.get(place) for place in grid], varying, shape)
    return together.set_coords([name for name in ("seed", "time", "recorded_epoch") if name in together])


def _in_order(labels: set[Any]) -> list[Any]:
    """Return labels in order, numbers before words: a learning rate may be 0.01 or "default"."""
    return sorted(labels, key=lambda label: (isinstance(label, str), label))


def _of_one_type(labels: list[Any]) -> list[Any]:
    """Return labels as words if some are."""
    return [str(label) for label in labels] if any(isinstance(label, str) for label in labels) else labels


def _labels_of(cells: Sequence[xr.Dataset]) -> list[str]:
    """Return the names of the scalar coordinates that all cells have, the usual ones first."""
    shared = set.intersection(*({str(n) for n, c in cell.coords.items() if c.ndim == 0} for cell in cells))
    usual = [name for name in FIRST_LABELS if name in shared]
    return usual + sorted(shared - set(usual) - set(NOT_LABELS))


def _spread(name: str, cells: list[xr.Dataset | None], varying: list[str], shape: tuple[int, ...]) -> xr.Variable:
    """Return one variable over the grid, padded to its longest."""
    present = [cell.variables[name] for cell in cells if cell is not None and name in cell.variables]
    model = max(present, key=lambda variable: variable.size)
    if model.dims == (name,):
        return model  # the coordinate of a dimension: the longest one serves all
    inner = tuple(max(variable.shape[axis] for variable in present) for axis in range(model.ndim))
    there = [None if cell is None else cell.variables.get(name) for cell in cells]
    text = model.dtype.kind in "OU"
    missing: Any = "" if text else np.nan
    if not inner:
        scalars = [missing if variable is None else variable.values.item() for variable in there]
        return xr.Variable(varying, np.array(scalars).reshape(shape), model.attrs)
    kind = object if text else np.float64
    # One block serves all holes: making it costs dask more than reading it.
    hole = da.full(inner, missing, dtype=kind, chunks=inner)  # type: ignore[no-untyped-call]
    blocks = [hole if variable is None else _padded(variable, inner, kind, missing) for variable in there]
    stacked = da.stack(blocks).reshape(*shape, *inner)  # type: ignore[no-untyped-call]
    return xr.Variable((*varying, *model.dims), stacked, model.attrs)


def _padded(variable: xr.Variable, inner: tuple[int, ...], kind: type, missing: Any) -> Any:
    data = da.asarray(variable.data).astype(kind)  # type: ignore[no-untyped-call]
    width = [(0, size - have) for size, have in zip(inner, variable.shape, strict=True)]
    return da.pad(data, width, constant_values=missing) if any(after for _, after in width) else data


def _common_attributes(cells: Sequence[xr.Dataset]) -> dict[str, Any]:
    first = cells[0].attrs
    return {name: value for name, value in first.items() if all(cell.attrs.get(name) == value for cell in cells)}
