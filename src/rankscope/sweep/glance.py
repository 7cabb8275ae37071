"""A look at the results of many cells: their labels, scalars and shapes now, their arrays when they are asked for.

xarray makes an object of everything in a file, which takes tens of milliseconds. The files of a sweep are alike: they
differ in the values of their scalars and in how long their arrays are. So xarray opens one file of each *make*, and the
others are read with HDF5's own functions, after it was seen that everything else in them is the same. A file in which
something has to be decoded, say a date, is opened with xarray like the first.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from h5py import h5a, h5d, h5o, h5s, h5t
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.sweep.netcdf import NOT_LARGE, UNLOCKED, check_content, check_sizes
from rankscope.sweep.parts import InMemory, Outline, Part, names_of

INTERNAL = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid", "_Netcdf4Coordinates"}
"""What HDF5 files say of dimensions."""

NOT_COMPARED = {b"CLASS", b"NAME", b"DIMENSION_LIST", b"REFERENCE_LIST", b"long_name"}
"""Attributes of variables whose values are not looked at, which takes most of the time of a glance.

Those of dimensions hold addresses or lengths that differ from file to file, and which dimensions a variable has is said
by `_Netcdf4Dimid` and `_Netcdf4Coordinates` as well. The long name changes nothing of what is read; whoever wants it
asks the cell itself. Of the lists of coordinates, which are in every variable, the first is looked at: it names all
that are scalars.
"""

PREFIX = "_nc4_non_coord_"
NUMBERS = (h5t.TypeFloatID, h5t.TypeIntegerID)
WORDS = h5t.py_create(h5py.string_dtype())


@dataclass(frozen=True)
class Make:
    """What files have in common that are the same but for shapes, values of scalars and arrays."""

    variables: Mapping[str, Outline]
    labels: tuple[str, ...]
    booleans: frozenset[str]


@dataclass(frozen=True)
class InFile:
    """A result file as a part, of which the scalars were read, and perhaps the arrays."""

    path: Path
    make: Make
    attributes: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    scalars: Mapping[str, Any]
    arrays: dict[str, NDArray[Any]]

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
        return dict(self._decoded.attrs)

    def said(self, name: str) -> Any:
        """Return one of its attributes, a word or a number."""
        return _plain_attribute(self.attributes.get(name))

    def at_hand(self, name: str) -> bool:
        """Return whether the values of a variable are in memory."""
        return name in self.arrays

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a variable."""
        return self.shapes[name]

    def scalar(self, name: str) -> Any:
        """Return the value of a variable without dimensions."""
        return self.scalars[name]

    def array(self, name: str) -> NDArray[Any]:
        """Return the values of a variable."""
        if name in self.arrays:
            return self.arrays[name]
        with h5py.File(self.path, "r", **UNLOCKED) as file:
            stored = file[name]
            return np.asarray(stored.asstr()[()] if stored.dtype.kind == "O" else stored[()])

    def give(self, name: str) -> NDArray[Any]:
        """Return the values of a variable that is at hand, and let go of them."""
        return self.arrays.pop(name)

    def attrs_of(self, name: str) -> dict[str, Any]:
        """Return the attributes of a variable."""
        return dict(self._decoded.variables[name].attrs)

    def whole(self, name: str) -> xr.Variable:
        """Return a variable that is its own dimension, in memory."""
        return self._decoded.variables[name]

    @cached_property
    def _decoded(self) -> xr.Dataset:
        """What xarray reads, but for values that are not those of a dimension. Only a few cells are asked for it."""
        with _opened(self.path) as dataset:
            variables = {
                name: variable.load() if variable.dims == (name,) else xr.Variable((), 0, variable.attrs)
                for name, variable in dataset.variables.items()
            }
            return xr.Dataset(variables, attrs=dataset.attrs)


def glance(paths: Sequence[Path]) -> Iterator[Part]:
    """Yield the cells in these files; those that are gone by now are left out.

    Raises
    ------
    InputError
        If a file is not a whole netCDF file.
    """
    reader = Reader()
    for path in paths:
        try:
            yield reader.part(path) or _in_memory(path)
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


@dataclass
class Reader:
    """Reads one file after the other, and knows the makes of those it has seen.

    Attributes
    ----------
    with_arrays
        Whether arrays are read, too, while the file is open.
    without
        Variables that are left out.
    """

    with_arrays: bool = False
    without: Collection[str] = ()
    _makes: dict[tuple[Any, ...], Make | None] = field(default_factory=dict, init=False)
    _kinds: _Kinds = field(default_factory=dict, init=False)

    def part(self, path: Path) -> InFile | None:
        """Return the cell in a file, or None if something in it has to be decoded.

        Raises
        ------
        Exception
            Of any kind, if the file is damaged.
        """
        check_content(path)
        with h5py.File(path, "r", **UNLOCKED) as file:
            try:
                raw = _read_raw(path, file, self._kinds)
            except OSError:
                raw = _read_raw(path, file, {})  # an attribute is of another type here
            if raw.make not in self._makes:
                self._makes[raw.make] = _make_of(path, raw, self.without)
            make = self._makes[raw.make]
            if make is None or not _is_filled(make, raw):
                return None
            scalars = {name: bool(value) if name in make.booleans else value for name, value in raw.scalars.items()}
            arrays = _arrays_of(make, raw) if self.with_arrays else {}
            attributes = {name.decode(): value for name, value in raw.attributes.items()}
        return InFile(path, make, attributes, raw.shapes, scalars, arrays)


@dataclass(frozen=True)
class _Kind:
    """Of an attribute: its type, also as bytes, its size, and whether it is words or stored elsewhere."""

    type: h5t.TypeID
    encoded: bytes
    bytes_stored: int
    bytes_each: int
    words: bool
    elsewhere: bool


_Kinds = dict[tuple[str, bytes], _Kind]
"""Of the files so far, by the names of variable and attribute."""


@dataclass(frozen=True)
class _Raw:
    """A file as HDF5 has it: what makes its make, its attributes, and the shapes and scalars of its variables."""

    make: tuple[Any, ...]
    attributes: Mapping[bytes, Any]
    shapes: Mapping[str, tuple[int, ...]]
    scalars: Mapping[str, Any]
    variable_attributes: Mapping[str, Mapping[bytes, Any]]
    stored: Mapping[str, tuple[h5d.DatasetID, h5t.TypeID]]


def _read_raw(path: Path, file: h5py.File, kinds: _Kinds) -> _Raw:
    attributes = _attributes_of(file.id, "", kinds, ())
    skipped = set(NOT_COMPARED)
    # xarray keeps here the names of coordinates that belong to no variable.
    make: list[Any] = [attributes.get(b"coordinates")]
    shapes, scalars, theirs, all_stored = {}, {}, {}, {}
    promised = 0
    for stored_name in file.id:
        variable = h5o.open(file.id, stored_name)
        if not isinstance(variable, h5d.DatasetID):
            continue
        name = stored_name.decode()
        kind = variable.get_type()
        shapes[name] = shape = variable.shape
        promised += math.prod(shape) * kind.get_size()
        theirs[name] = said = _attributes_of(variable, name, kinds, skipped)
        if b"coordinates" in said:
            skipped.add(b"coordinates")
        make.append((name, len(shape), kind.encode(), *said.items()))
        if not shape:
            scalars[name] = _scalar_of(variable, kind)
            continue
        all_stored[name] = variable, kind
        if b"_Netcdf4Coordinates" not in said and b"_Netcdf4Dimid" not in said:
            make.append(path)  # Its dimensions are told by addresses alone: a make of its own.
    if promised > NOT_LARGE:
        check_sizes(file)
    return _Raw(tuple(make), attributes, shapes, scalars, theirs, all_stored)


def _attributes_of(owner: Any, owner_name: str, kinds: _Kinds, skipped: Collection[bytes]) -> dict[bytes, Any]:
    """Return the attributes of a file (no name) or a variable: words, or bytes, or None if they are not looked at."""
    names: list[bytes] = []
    h5a.iterate(owner, names.append)
    found = dict.fromkeys(names)
    for name in names:
        # Of a variable that is not a dimension itself, the second is the first number of the other.
        redundant = name == b"_Netcdf4Dimid" and b"_Netcdf4Coordinates" in found and b"CLASS" not in found
        if name not in skipped and not redundant:
            found[name] = _attribute(owner, owner_name, name, kinds)
    return found


def _attribute(owner: Any, owner_name: str, name: bytes, kinds: _Kinds) -> Any:
    attribute = h5a.open(owner, name)
    # To ask for its type takes as long as to read it. What converts to the type it had before, and is of the same size
    # and value then, makes no difference.
    kind = kinds.get((owner_name, name))
    if kind is None or kind.bytes_stored != attribute.get_storage_size():
        kind = kinds[owner_name, name] = _kind_of(attribute)
    if kind.elsewhere:
        return object()  # like no other, so that xarray reads this file
    # By its own account of how many there are: a damaged file may say less of the room it needs.
    count = attribute.get_space().get_simple_extent_npoints()
    if count * kind.bytes_each > NOT_LARGE:
        raise ValueError(f"its attribute {name[:40]!r} is to have {count * kind.bytes_each} bytes")
    if kind.words:
        words = np.empty(count, dtype=object)
        attribute.read(words, WORDS)
        return tuple(words.tolist())
    content = np.empty(count * kind.bytes_each, dtype=np.uint8)
    attribute.read(content, kind.type)
    return kind.encoded, count, content.tobytes()


def _kind_of(attribute: h5a.AttrID) -> _Kind:
    kind = attribute.get_type()
    words = isinstance(kind, h5t.TypeStringID) and kind.is_variable_str()
    elsewhere = not words and (kind.detect_class(h5t.VLEN) or kind.detect_class(h5t.REFERENCE))
    return _Kind(kind, kind.encode(), attribute.get_storage_size(), kind.get_size(), words, elsewhere)


def _plain_attribute(raw: Any) -> Any:
    """Return an attribute as `_attribute` returns it as a word or a number; None if it is neither."""
    match raw:
        case (str() | bytes() as word,):
            return word.decode() if isinstance(word, bytes) else word
        case (bytes() as encoded, 1, bytes() as content):
            kind = h5t.decode(encoded)
            if isinstance(kind, NUMBERS):
                return np.frombuffer(content, kind.dtype).item()
    return None


def _is_filled(make: Make, raw: _Raw) -> bool:
    """Return whether variables are as long as their dimensions; xarray fills up what is shorter."""
    shapes = raw.shapes
    return all(
        shapes[name] == tuple(shapes[dim][0] if shapes.get(dim) else None for dim in outline.dims)
        for name, outline in make.variables.items()
    )


def _arrays_of(make: Make, raw: _Raw) -> dict[str, NDArray[Any]]:
    """Return the values of all variables with dimensions, but of those whose type has to be looked at closer."""
    arrays = {}
    for name, (variable, kind) in raw.stored.items():
        if name not in make.variables:
            continue
        if isinstance(kind, NUMBERS):
            values = np.empty(variable.shape, kind.dtype)
            variable.read(h5s.ALL, h5s.ALL, values, kind)
            arrays[name] = values
        elif isinstance(kind, h5t.TypeStringID) and kind.is_variable_str():
            words = np.empty(variable.shape, dtype=object)
            variable.read(h5s.ALL, h5s.ALL, words, WORDS)
            for place, word in np.ndenumerate(words):
                words[place] = word.decode() if isinstance(word, bytes) else word
            arrays[name] = words
    return arrays


def _scalar_of(variable: h5d.DatasetID, kind: h5t.TypeID) -> Any:
    """Return the value of a variable without dimensions; None if it is neither a number nor a word."""
    if isinstance(kind, NUMBERS):
        value = np.empty((), dtype=kind.dtype)
        variable.read(h5s.ALL, h5s.ALL, value, kind)
        return value.item()
    if isinstance(kind, h5t.TypeStringID) and kind.is_variable_str():
        value = np.empty((), dtype=object)
        variable.read(h5s.ALL, h5s.ALL, value, WORDS)
        word = value.item()
        return word.decode() if isinstance(word, bytes) else word
    return None


def _make_of(path: Path, raw: _Raw, without: Collection[str]) -> Make | None:
    """Return the make of a file, or None if something in it has to be decoded."""
    with _opened(path) as dataset:
        variables = dataset.variables
        if not all(_is_plain(str(name), variable, raw) for name, variable in variables.items()):
            return None
        kept = {str(name): variable for name, variable in variables.items() if name not in without}
        return Make(
            {name: Outline(names_of(v.dims), v.dtype) for name, v in kept.items()},
            tuple(str(name) for name, coordinate in dataset.coords.items() if coordinate.ndim == 0),
            frozenset(name for name, variable in kept.items() if variable.dtype == bool),
        )


def _is_plain(name: str, variable: xr.Variable, raw: _Raw) -> bool:
    """Return whether xarray only reads the variable: of its attributes it uses none but NaN for what is missing."""
    if name not in raw.shapes or f"{PREFIX}{name}" in raw.shapes or raw.shapes[name] != variable.shape:
        return False
    if not variable.shape and raw.scalars[name] is None:
        return False
    stored = raw.variable_attributes[name]
    used = {attribute.decode() for attribute in stored} - INTERNAL - set(map(str, variable.attrs)) - {"coordinates"}
    if variable.dtype == bool:
        return used == {"dtype"}
    if "_FillValue" in used:
        fill = variable.encoding.get("_FillValue")
        used.discard("_FillValue")
        if not (variable.dtype.kind == "f" and isinstance(fill, float | np.floating) and np.isnan(fill)):
            return False
    as_stored = variable.dtype.kind in "OU" or variable.dtype == variable.encoding.get("dtype")
    return not used and as_stored


def _in_memory(path: Path) -> InMemory:
    """Return a cell that xarray has opened: its scalars in memory, its arrays in its file."""
    cell = _opened(path, chunks={})
    for variable in cell.variables.values():
        if variable.ndim == 0:
            variable.load()
    return InMemory(cell)


def _opened(path: Path, **options: Any) -> xr.Dataset:
    return xr.open_dataset(path, engine="h5netcdf", driver_kwds=UNLOCKED, **options)
