"""xarray Datasets in safetensors files with checksums.

Arrays of numbers are the tensors of the file. Everything else is JSON in its metadata: the structure (dimensions,
types, shapes and attributes of the variables, and whole-numbered coordinates of dimensions), and the values of all
scalars and all text. So the header alone, some kilobytes, holds every scalar of a result. Results of one kind have the
same structure, which is parsed once.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.io.tensor_file import DTYPES, TensorFile, read_file, read_header, write_tensors

STRUCTURE, VALUES = "structure", "values"
"""Names of the metadata entries with the JSON."""

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
    coordinate
        The values, if they are the whole-numbered coordinate of a dimension.
    """

    dims: tuple[str, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    attrs: Mapping[str, Any]
    coordinate: NDArray[Any] | None = None

    @property
    def is_tensor(self) -> bool:
        """Whether the values are a tensor of the file, and not in its header."""
        return bool(self.dims) and self.dtype.kind != "O" and self.coordinate is None


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
        As in xarray. Datasets with the same structure share `variables`.
    values
        Name -> value of scalars, and array of text.
    """

    path: Path
    metadata: Mapping[str, str]
    attrs: Mapping[str, Any]
    variables: Mapping[str, StoredVariable]
    coordinates: frozenset[str]
    values: Mapping[str, Any]

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
            if self.variables[name].is_tensor:
                file = file or read_file(self.path)
                found[name] = file.array(name)
            elif (coordinate := self.variables[name].coordinate) is not None:
                found[name] = coordinate
            else:
                found[name] = np.asarray(self.values[name], dtype=self.variables[name].dtype)
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
    tensors: dict[str, NDArray[Any]] = {}
    variables: dict[str, dict[str, Any]] = {}
    plain: dict[str, Any] = {}
    for label, variable in dataset.variables.items():
        name, values = str(label), np.asarray(variable.values)
        dtype = TEXT if values.dtype.kind in "OU" else str(values.dtype)
        if dtype == TEXT:
            words = values.ravel().tolist()
            if not all(isinstance(word, str) for word in words):
                raise InputError(f"{name} must hold numbers or text, got {values!r:.100}")
            plain[name] = words if values.ndim else words[0]
        elif values.ndim == 0:
            if dtype not in SCALARS:
                raise InputError(f"{name} must be of one of the types {', '.join(SCALARS)}, got {dtype}")
            plain[name] = _encode(values.item())
        attrs = _plain(variable.attrs, f"attrs of {name}")
        variables[name] = {"dims": list(variable.dims), "dtype": dtype, "shape": list(values.shape), "attrs": attrs}
        if variable.dims == (name,) and values.dtype.kind == "i":
            variables[name]["runs"] = _runs(values)
        elif variable.dims and dtype != TEXT:
            tensors[name] = values
    structure = {"coordinates": sorted(map(str, dataset.coords)), "variables": variables}
    content = {"attrs": _plain(dataset.attrs, "attrs"), "values": plain}
    texts = {STRUCTURE: _json(structure), VALUES: _json(content)}
    write_tensors(path, tensors, {**metadata, **texts})


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
        variables, coordinates = _structure(file.metadata[STRUCTURE])
        content = json.loads(file.metadata[VALUES])
        attrs, values = content["attrs"], content["values"]
        if not isinstance(attrs, dict):
            raise ValueError("its attributes are damaged")
        decoded = {}
        for name, variable in variables.items():
            if variable.is_tensor:
                _check_tensor(name, variable, file)
            elif variable.coordinate is None:
                decoded[name] = _decode(name, values[name], variable)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} must hold a stored Dataset, got something else ({error!r:.200})") from error
    metadata = {name: text for name, text in file.metadata.items() if name not in (STRUCTURE, VALUES)}
    return StoredDataset(file.path, metadata, attrs, variables, coordinates, decoded)


@lru_cache(maxsize=64)
def _structure(text: str) -> tuple[Mapping[str, StoredVariable], frozenset[str]]:
    """Return the variables and the names of the coordinates, given their JSON.

    Raises
    ------
    ValueError, TypeError, KeyError, AttributeError, RecursionError
        If it is something else.
    """
    content = json.loads(text)
    variables = {}
    for name, described in content["variables"].items():
        dims, shape, attrs = tuple(described["dims"]), tuple(described["shape"]), described["attrs"]
        if not isinstance(attrs, dict) or len(set(dims)) != len(dims) or not all(type(dim) is str for dim in dims):
            raise ValueError(f"{name!s:.40} has damaged dimensions or attributes")
        if len(dims) != len(shape) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{name!s:.40} has the dimensions {dims} and the shape {shape!r:.100}")
        dtype = np.dtype(object) if described["dtype"] == TEXT else SCALARS[described["dtype"]]
        coordinate = _from_runs(described["runs"]).astype(dtype) if "runs" in described else None
        if coordinate is not None and (coordinate.shape != shape or dims != (name,) or dtype.kind != "i"):
            raise ValueError(f"{name!s:.40} is not a coordinate")
        variables[name] = StoredVariable(dims, dtype, shape, attrs, coordinate)
    coordinates = frozenset(content["coordinates"])
    if not coordinates <= variables.keys():
        raise ValueError("a coordinate is not among the variables")
    return variables, coordinates


def _check_tensor(name: str, variable: StoredVariable, file: TensorFile) -> None:
    entry = file.entries[name]
    if entry.shape != variable.shape or NUMBERS[entry.dtype] != variable.dtype:
        raise ValueError(f"{name!s:.40} has another type or shape than its tensor")


def _decode(name: str, value: Any, variable: StoredVariable) -> Any:
    """Return a scalar or an array of text, given its JSON."""
    kind = variable.dtype.kind
    if variable.dims:
        if len(value) != math.prod(variable.shape) or not all(type(word) is str for word in value):
            raise ValueError(f"{name!s:.40} is not text of its shape")
        return np.array(value, dtype=object).reshape(variable.shape)
    if kind == "f":
        return float(value)
    expected: type = {"b": bool, "O": str}.get(kind, int)
    if type(value) is not expected:
        raise ValueError(f"{name!s:.40}, a scalar of type {variable.dtype}, is {value!r:.40}")
    return value


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


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
