"""A look at the results of many cells: their labels, scalars and shapes now, their arrays when they are asked for.

xarray makes an object of everything in a file, which takes tens of milliseconds. The files of a sweep are alike: they
differ in the values of their scalars and in how long their arrays are. So xarray opens one file of each *make*, and the
others are read with HDF5's own functions, after it was seen that everything else in them is the same to the bit. A
file in which something has to be decoded, say a date, is opened with xarray like the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import xarray as xr
from h5py import h5a, h5d, h5o, h5s, h5t
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.sweep.netcdf import NOT_LARGE, UNLOCKED, check_heaps, check_sizes

# What HDF5 files say of dimensions, some of it with addresses or lengths that differ from file to file. Which
# dimensions a variable has is said by two others as well, `_Netcdf4Dimid` and `_Netcdf4Coordinates`.
INTERNAL = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid", "_Netcdf4Coordinates"}
SAME_BUT_FOR_ADDRESSES = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"}
PREFIX = "_nc4_non_coord_"
WORDS = h5t.py_create(h5py.string_dtype())


class Part(Protocol):
    """A cell as one of many: what is needed to lay it beside others."""

    @property
    def variables(self) -> Mapping[str, Outline]:
        """Its variables in order, coordinates among them."""

    @property
    def labels(self) -> Mapping[str, Any]:
        """Its scalar coordinates."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Its attributes in a form that can be compared with those of its like; `attrs` has their values."""

    def attrs(self) -> dict[str, Any]:
        """Return its attributes."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a variable."""

    def scalar(self, name: str) -> Any:
        """Return the value of a variable without dimensions."""

    def array(self, name: str) -> NDArray[Any]:
        """Return the values of a variable."""

    def whole(self, name: str) -> xr.Variable:
        """Return a variable, in memory, with all that belongs to it."""


@dataclass(frozen=True)
class Outline:
    """What xarray says of a variable besides its shape and its values."""

    dims: tuple[str, ...]
    dtype: np.dtype[Any]
    attrs: Mapping[str, Any]


@dataclass(frozen=True)
class InMemory:
    """A Dataset as a part."""

    dataset: xr.Dataset

    @cached_property
    def variables(self) -> Mapping[str, Outline]:
        """Its variables in order."""
        return {str(n): Outline(_names(v.dims), v.dtype, v.attrs) for n, v in self.dataset.variables.items()}

    @cached_property
    def labels(self) -> Mapping[str, Any]:
        """Its scalar coordinates."""
        return {str(name): value.item() for name, value in self.dataset.coords.items() if value.ndim == 0}

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Its attributes."""
        return self.attrs()

    def attrs(self) -> dict[str, Any]:
        """Return its attributes."""
        return dict(self.dataset.attrs)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a variable."""
        return self.dataset.variables[name].shape

    def scalar(self, name: str) -> Any:
        """Return the value of a variable without dimensions."""
        return self.dataset.variables[name].values.item()

    def array(self, name: str) -> NDArray[Any]:
        """Return the values of a variable."""
        return self.dataset.variables[name].values

    def whole(self, name: str) -> xr.Variable:
        """Return a variable, in memory."""
        return self.dataset.variables[name].load()


@dataclass(frozen=True)
class Make:
    """What files have in common that are the same but for shapes, values of scalars and arrays."""

    variables: Mapping[str, Outline]
    labels: tuple[str, ...]
    booleans: frozenset[str]


@dataclass(frozen=True)
class InFile:
    """A result file as a part, of which the scalars were read."""

    path: Path
    make: Make
    attributes: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    scalars: Mapping[str, Any]

    @property
    def variables(self) -> Mapping[str, Outline]:
        """Its variables in order."""
        return self.make.variables

    @property
    def labels(self) -> Mapping[str, Any]:
        """Its scalar coordinates."""
        return {name: self.scalars[name] for name in self.make.labels}

    def attrs(self) -> dict[str, Any]:
        """Return its attributes."""
        with _opened(self.path) as dataset:
            return dict(dataset.attrs)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a variable."""
        return self.shapes[name]

    def scalar(self, name: str) -> Any:
        """Return the value of a variable without dimensions."""
        return self.scalars[name]

    def array(self, name: str) -> NDArray[Any]:
        """Return the values of a variable."""
        with h5py.File(self.path, "r", **UNLOCKED) as file:
            stored = file[name]
            return np.asarray(stored.asstr()[()] if stored.dtype.kind == "O" else stored[()])

    def whole(self, name: str) -> xr.Variable:
        """Return a variable, in memory."""
        with _opened(self.path) as dataset:
            return dataset.variables[name].load()


def glance(paths: Sequence[Path]) -> Iterator[Part]:
    """Yield the cells in these files; those that are gone by now are left out.

    Raises
    ------
    InputError
        If a file is not a whole netCDF file.
    """
    makes: dict[tuple[Any, ...], Make | None] = {}
    for path in paths:
        try:
            raw = _read_raw(path)
            if raw.make not in makes:
                makes[raw.make] = _make_of(path, raw)
            make = makes[raw.make]
            yield _in_memory(path) if make is None else _in_file(path, make, raw)
        except FileNotFoundError:
            continue
        except MemoryError:
            raise
        except Exception as error:
            # What the libraries raise for a damaged file is not documented, and is of many kinds.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{path} must be a whole netCDF file: {reason}; running the sweep again replaces it"
            ) from error


@dataclass(frozen=True)
class _Raw:
    """A file as HDF5 has it: what makes its make, its attributes, and the shapes and scalars of its variables."""

    make: tuple[Any, ...]
    attributes: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    scalars: Mapping[str, Any]
    variable_attributes: Mapping[str, Mapping[str, Any]]


def _read_raw(path: Path) -> _Raw:
    check_heaps(path)
    with h5py.File(path, "r", **UNLOCKED) as file:
        attributes = _attributes_of(file.id)
        # xarray keeps here the names of coordinates that belong to no variable.
        make: list[Any] = [attributes.get("coordinates")]
        shapes, scalars, theirs = {}, {}, {}
        promised = 0
        for stored_name in file.id:
            variable = h5o.open(file.id, stored_name)
            if not isinstance(variable, h5d.DatasetID):
                continue
            name = stored_name.decode()
            kind = variable.get_type()
            shapes[name] = variable.shape
            promised += math.prod(variable.shape) * kind.get_size()
            theirs[name] = said = _attributes_of(variable)
            make.append((name, len(shapes[name]), kind.encode(), *said.items()))
            if not shapes[name]:
                scalars[name] = _scalar_of(variable, kind)
            elif "_Netcdf4Coordinates" not in said and "_Netcdf4Dimid" not in said:
                make.append(path)  # Its dimensions are told by addresses alone: a make of its own.
        if promised > NOT_LARGE:
            check_sizes(file)
    return _Raw(tuple(make), attributes, shapes, scalars, theirs)


def _attributes_of(owner: Any) -> dict[str, Any]:
    """Return the attributes of a file or a variable: words as words, all else as bytes."""
    found: dict[str, Any] = {}
    for index in range(h5a.get_num_attrs(owner)):
        attribute = h5a.open(owner, index=index)
        name = attribute.name.decode()
        if name in SAME_BUT_FOR_ADDRESSES:
            found[name] = None
            continue
        kind = attribute.get_type()
        if isinstance(kind, h5t.TypeStringID) and kind.is_variable_str():
            words = np.empty(attribute.shape, dtype=object)
            attribute.read(words, WORDS)
            found[name] = tuple(words.ravel().tolist())
        elif kind.detect_class(h5t.VLEN) or kind.detect_class(h5t.REFERENCE):
            found[name] = object()  # it is stored elsewhere; like no other, so that xarray reads this file
        else:
            # By its own account: a damaged file may say less of the room it needs.
            size = math.prod(attribute.shape) * kind.get_size()
            if size > NOT_LARGE:
                raise ValueError(f"its attribute {name[:40]!r} is to have {size} bytes")
            content = np.empty(size, dtype=np.uint8)
            attribute.read(content, kind)
            found[name] = (kind.encode(), attribute.shape, content.tobytes())
    return found


def _scalar_of(variable: h5d.DatasetID, kind: h5t.TypeID) -> Any:
    """Return the value of a variable without dimensions; None if it is neither a number nor a word."""
    if isinstance(kind, h5t.TypeFloatID | h5t.TypeIntegerID):
        value = np.empty((), dtype=kind.dtype)
        variable.read(h5s.ALL, h5s.ALL, value)
        return value.item()
    if isinstance(kind, h5t.TypeStringID) and kind.is_variable_str():
        value = np.empty((), dtype=object)
        variable.read(h5s.ALL, h5s.ALL, value, WORDS)
        word = value.item()
        return word.decode() if isinstance(word, bytes) else word
    return None


def _make_of(path: Path, raw: _Raw) -> Make | None:
    """Return the make of a file, or None if something in it has to be decoded."""
    with _opened(path) as dataset:
        variables = dataset.variables
        booleans = {name for name, variable in variables.items() if variable.dtype == bool}
        if not all(_is_plain(str(name), variable, raw) for name, variable in variables.items()):
            return None
        return Make(
            {str(name): Outline(_names(v.dims), v.dtype, dict(v.attrs)) for name, v in variables.items()},
            tuple(str(name) for name, coordinate in dataset.coords.items() if coordinate.ndim == 0),
            frozenset(map(str, booleans)),
        )


def _is_plain(name: str, variable: xr.Variable, raw: _Raw) -> bool:
    """Return whether xarray only reads the variable: of its attributes it uses none but NaN for what is missing."""
    if name not in raw.shapes or f"{PREFIX}{name}" in raw.shapes or raw.shapes[name] != variable.shape:
        return False
    if not variable.shape and raw.scalars[name] is None:
        return False
    stored = raw.variable_attributes[name]
    used = set(stored) - INTERNAL - set(map(str, variable.attrs)) - {"coordinates"}
    if variable.dtype == bool:
        return used == {"dtype"}
    if "_FillValue" in used:
        fill = variable.encoding.get("_FillValue")
        used.discard("_FillValue")
        if not (variable.dtype.kind == "f" and isinstance(fill, float | np.floating) and np.isnan(fill)):
            return False
    as_stored = variable.dtype.kind in "OU" or variable.dtype == variable.encoding.get("dtype")
    return not used and as_stored


def _in_file(path: Path, make: Make, raw: _Raw) -> InFile:
    scalars = {name: bool(value) if name in make.booleans else value for name, value in raw.scalars.items()}
    return InFile(path, make, raw.attributes, raw.shapes, scalars)


def _in_memory(path: Path) -> InMemory:
    """Return a cell that xarray has opened: its scalars in memory, its arrays in its file."""
    cell = _opened(path, chunks={})
    for variable in cell.variables.values():
        if variable.ndim == 0:
            variable.load()
    return InMemory(cell)


def _opened(path: Path, **options: Any) -> xr.Dataset:
    return xr.open_dataset(path, engine="h5netcdf", driver_kwds=UNLOCKED, **options)


def _names(dims: Sequence[Any]) -> tuple[str, ...]:
    return tuple(map(str, dims))
