"""xarray Datasets in safetensors files with checksums.

Arrays of numbers are the tensors of the file. Everything else is JSON in its metadata: dimensions, attributes, all
scalars, all text, and the coordinates of dimensions. So the header alone, some kilobytes, holds every scalar of a
result, and shows whether two results have the same coordinates.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.io.tensor_file import DTYPES, TensorFile, read_file, read_header, write_tensors

KEY = "dataset"
"""Name of the metadata entry with the JSON."""

NUMBERS = {name: np.dtype(str(dtype).removeprefix("torch.")) for name, dtype in DTYPES.items() if name != "BF16"}
SCALARS = {str(dtype): dtype for dtype in (*NUMBERS.values(), np.dtype("uint16"), np.dtype("uint32"))}
TEXT = "str"
LONGEST_COORDINATE = 10_000_000


@dataclass(frozen=True)
class StoredVariable:
    """A variable of a stored Dataset.

    Attributes
    ----------
    dims, dtype, shape, attrs
        As in xarray; `dtype` of text is that of Python objects.
    values
        A scalar, text, or the coordinate of a dimension; None for any other array, which is read from the file.
    """

    dims: tuple[str, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    attrs: Mapping[str, Any]
    values: Any


@dataclass(frozen=True)
class StoredDataset:
    """A Dataset in a file, of which the header was read.

    Attributes
    ----------
    path
        The file.
    metadata
        Its further metadata.
    attrs, variables, coordinates
        As in xarray.
    """

    path: Path
    metadata: Mapping[str, str]
    attrs: Mapping[str, Any]
    variables: Mapping[str, StoredVariable]
    coordinates: frozenset[str]

    def array(self, name: str) -> NDArray[Any]:
        """Return the values of one variable; the checksum of the whole file is verified.

        Raises
        ------
        InputError
            If the file has disappeared or changed.
        """
        return self.arrays([name])[name]

    def arrays(self, names: list[str]) -> dict[str, NDArray[Any]]:
        """Return the values of some variables, reading the file once."""
        file = None
        found = {}
        for name in names:
            variable = self.variables[name]
            if variable.values is None:
                file = file or read_file(self.path)
                found[name] = file.array(name)
            else:
                found[name] = np.asarray(variable.values, dtype=variable.dtype)
        return found

    def load(self) -> xr.Dataset:
        """Return the Dataset in memory.

        Raises
        ------
        InputError
            If the file has disappeared or changed, or its variables do not fit together.
        """
        arrays = self.arrays(list(self.variables))
        variables = {name: (v.dims, arrays[name], dict(v.attrs)) for name, v in self.variables.items()}
        try:
            return xr.Dataset(variables, attrs=dict(self.attrs)).set_coords(sorted(self.coordinates))
        except ValueError as error:
            raise InputError(f"{self.path} holds variables that do not fit together: {error!s:.300}") from error


def write_dataset(path: str | os.PathLike[str], dataset: xr.Dataset, metadata: Mapping[str, str]) -> None:
    """Write a Dataset to `path`, atomically and with checksums.

    Parameters
    ----------
    metadata
        Further text by name.

    Raises
    ------
    InputError
        If a variable or an attribute is of a kind that cannot be stored, or the folder cannot be written to.
    OSError
        If the disk is full.
    """
    arrays, variables = {}, {}
    for name, variable in dataset.variables.items():
        values = np.asarray(variable.values)
        described: dict[str, Any] = {"dims": list(variable.dims), "attrs": _plain(variable.attrs, f"attrs of {name}")}
        if values.dtype.kind in "OU":
            words = values.ravel().tolist()
            if not all(isinstance(word, str) for word in words):
                raise InputError(f"{name} must hold numbers or text, got {values!r:.100}")
            described |= {"dtype": TEXT, "shape": list(values.shape), "values": words}
        elif values.ndim == 0:
            if str(values.dtype) not in SCALARS:
                raise InputError(f"{name} must be of one of the types {', '.join(SCALARS)}, got {values.dtype}")
            described |= {"dtype": str(values.dtype), "values": _encode(values.item())}
        elif variable.dims == (name,) and values.dtype.kind == "i":
            described |= {"dtype": str(values.dtype), "values": _runs(values)}
        else:
            arrays[str(name)] = values
        variables[str(name)] = described
    content = {
        "attrs": _plain(dataset.attrs, "attrs"),
        "coordinates": sorted(map(str, dataset.coords)),
        "variables": variables,
    }
    write_tensors(path, arrays, {**metadata, KEY: json.dumps(content, allow_nan=False, separators=(",", ":"))})


def open_dataset(path: str | os.PathLike[str], verify: bool = False) -> StoredDataset:
    """Return a Dataset of which only the header is read.

    Parameters
    ----------
    verify
        Read the whole file once and compare its checksum.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds something else.
    """
    file = read_file(path) if verify else read_header(path)
    try:
        content = json.loads(file.metadata[KEY])
        variables = {name: _variable(name, described, file) for name, described in content["variables"].items()}
        coordinates = frozenset(content["coordinates"])
        attrs = content["attrs"]
        if not isinstance(attrs, dict) or not coordinates <= variables.keys():
            raise ValueError("its attributes or coordinates are damaged")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} must hold a stored Dataset, got something else ({error!r:.200})") from error
    metadata = {name: text for name, text in file.metadata.items() if name != KEY}
    return StoredDataset(file.path, metadata, attrs, variables, coordinates)


def _variable(name: str, described: Any, file: TensorFile) -> StoredVariable:
    """Return a variable, given its JSON.

    Raises
    ------
    ValueError, TypeError, KeyError, AttributeError
        If the JSON is something else, or does not fit the tensors of the file.
    """
    dims, attrs = tuple(described["dims"]), described["attrs"]
    if not isinstance(attrs, dict) or len(set(dims)) != len(dims) or not all(type(dim) is str for dim in dims):
        raise ValueError(f"{name!s:.40} has damaged dimensions or attributes")
    if "values" not in described:
        entry = file.entries[name]
        dtype, shape, values = NUMBERS[entry.dtype], entry.shape, None
    elif described["dtype"] == TEXT:
        dtype, shape, words = np.dtype(object), tuple(described["shape"]), described["values"]
        if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != len(words):
            raise ValueError(f"{name!s:.40} has {len(words)} words and the shape {shape!r:.100}")
        if not all(type(word) is str for word in words):
            raise ValueError(f"{name!s:.40} is not text")
        values = np.array(words, dtype=object).reshape(shape) if shape else words[0]
    elif type(described["values"]) is list:
        dtype, values = SCALARS[described["dtype"]], _from_runs(described["values"])
        shape = values.shape
    else:
        dtype, shape = SCALARS[described["dtype"]], ()
        values = _decode(described["values"], dtype)
    if len(dims) != len(shape):
        raise ValueError(f"{name!s:.40} has the dimensions {dims} and the shape {shape}")
    return StoredVariable(dims, dtype, shape, attrs, values)


def _runs(values: NDArray[Any]) -> list[list[int]]:
    """Return whole numbers as runs of evenly spaced ones, [first, step, count] each."""
    runs: list[list[int]] = []
    for value in values.tolist():
        if runs and (runs[-1][2] == 1 or value == runs[-1][0] + runs[-1][1] * runs[-1][2]):
            first, step, count = runs[-1]
            runs[-1] = [first, value - first if count == 1 else step, count + 1]
        else:
            runs.append([value, 0, 1])
    return runs


def _from_runs(runs: list[list[int]]) -> NDArray[np.int64]:
    """Return the numbers that `_runs` described.

    Raises
    ------
    ValueError
        If they are not runs of whole numbers, or unreasonably many.
    """
    if not all(len(run) == 3 and all(type(n) is int and abs(n) < 2**62 for n in run) and run[2] > 0 for run in runs):
        raise ValueError(f"a coordinate is given by {runs!r:.100}")
    if sum(count for _, _, count in runs) > LONGEST_COORDINATE:
        raise ValueError("a coordinate is too long")
    numbers = [np.arange(count, dtype=np.int64) * step + first for first, step, count in runs]
    return np.concatenate(numbers) if numbers else np.empty(0, dtype=np.int64)


def _encode(value: Any) -> Any:
    """Return a scalar as JSON can hold it: NaN and infinity as text."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _decode(value: Any, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return float(value)
    expected = bool if dtype.kind == "b" else int
    if type(value) is not expected:
        raise ValueError(f"a scalar of type {dtype} is {value!r:.40}")
    return value


def _plain(attrs: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return attributes as JSON values."""
    plain: dict[str, Any] = {}
    for name, value in attrs.items():
        plain[str(name)] = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    try:
        json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{where} must be text, finite numbers or lists of them, got {plain!r:.200}: {error}"
        ) from error
    return plain
