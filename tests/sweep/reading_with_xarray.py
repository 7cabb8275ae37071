"""What `open_run` has to give, by the plain way: xarray opens every file and dask stacks the variables.

It takes tens of milliseconds for each cell, which is why `rankscope.sweep.results` reads files otherwise.
"""

import itertools

import dask.array as da
import numpy as np
import xarray as xr

from rankscope.sweep.results import FIRST_LABELS, NOT_LABELS
from rankscope.sweep.store import RunFolder


def open_run_plainly(folder):
    run = RunFolder(folder)
    options = {"engine": "h5netcdf", "chunks": {}, "driver_kwds": {"locking": False}}
    return assemble_plainly([xr.open_dataset(run.path_of(digest), **options) for digest in run.done()])


def assemble_plainly(cells):
    shared = set.intersection(*({str(n) for n, c in cell.coords.items() if c.ndim == 0} for cell in cells))
    usual = [name for name in FIRST_LABELS if name in shared]
    names = usual + sorted(shared - set(usual) - set(NOT_LABELS))
    labels = {name: in_order({cell[name].item() for cell in cells}) for name in names}
    varying = [name for name in names if len(labels[name]) > 1]
    places = {tuple(cell[name].item() for name in varying): cell for cell in cells}
    grid = list(itertools.product(*(labels[name] for name in varying)))
    shape = tuple(len(labels[name]) for name in varying)
    together = xr.Dataset(
        coords={name: (of_one_type(labels[name]) if name in varying else labels[name][0]) for name in names},
        attrs={n: v for n, v in cells[0].attrs.items() if all(cell.attrs.get(n) == v for cell in cells)},
    )
    for name in dict.fromkeys(name for cell in cells for name in cell.variables if name not in names):
        together[name] = spread(name, [places.get(place) for place in grid], varying, shape)
    return together.set_coords([name for name in ("seed", "time", "recorded_epoch") if name in together])


def in_order(labels):
    return sorted(labels, key=lambda label: (isinstance(label, str), label))


def of_one_type(labels):
    return [str(label) for label in labels] if any(isinstance(label, str) for label in labels) else labels


def spread(name, cells, varying, shape):
    present = [cell.variables[name] for cell in cells if cell is not None and name in cell.variables]
    model = max(present, key=lambda variable: variable.size)
    if model.dims == (name,):
        return model
    inner = tuple(max(variable.shape[axis] for variable in present) for axis in range(model.ndim))
    there = [None if cell is None else cell.variables.get(name) for cell in cells]
    text = model.dtype.kind in "OU"
    missing = "" if text else np.nan
    if not inner:
        scalars = [missing if variable is None else variable.values.item() for variable in there]
        return xr.Variable(varying, np.array(scalars).reshape(shape), model.attrs)
    kind = object if text else np.float64
    hole = da.full(inner, missing, dtype=kind, chunks=inner)
    blocks = [hole if variable is None else padded(variable, inner, kind, missing) for variable in there]
    return xr.Variable((*varying, *model.dims), da.stack(blocks).reshape(*shape, *inner), model.attrs)


def padded(variable, inner, kind, missing):
    data = da.asarray(variable.data).astype(kind)
    width = [(0, size - have) for size, have in zip(inner, variable.shape, strict=True)]
    return da.pad(data, width, constant_values=missing) if any(after for _, after in width) else data
