"""What a cell is to whoever lays many of them side by side, and a Dataset in memory as such a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray


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

    def said(self, name: str) -> Any:
        """Return one of its attributes, a word or a number; None if there is none of that name and kind."""

    def at_hand(self, name: str) -> bool:
        """Return whether the values of a variable are in memory."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a variable."""

    def scalar(self, name: str) -> Any:
        """Return the value of a variable without dimensions."""

    def array(self, name: str) -> NDArray[Any]:
        """Return the values of a variable."""

    def give(self, name: str) -> NDArray[Any]:
        """Return the values of a variable that is at hand, which need not be so afterwards."""

    def attrs_of(self, name: str) -> dict[str, Any]:
        """Return the attributes of a variable."""

    def whole(self, name: str) -> xr.Variable:
        """Return a variable that is its own dimension, in memory, with all that belongs to it."""


@dataclass(frozen=True)
class Outline:
    """What all cells of a make have in common of a variable."""

    dims: tuple[str, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class InMemory:
    """A Dataset as a part.

    Raises
    ------
    ValueError
        If a variable has more or fewer dimensions than their names: xarray opens such a damaged file.
    """

    dataset: xr.Dataset

    def __post_init__(self) -> None:
        for name, variable in self.dataset.variables.items():
            if len(variable.dims) != len(variable.shape):
                raise ValueError(f"{name!s:.40} is of shape {variable.shape}, its dimensions are {variable.dims}")

    @cached_property
    def variables(self) -> Mapping[str, Outline]:
        """Its variables in order."""
        return {str(n): Outline(names_of(v.dims), v.dtype) for n, v in self.dataset.variables.items()}

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

    def said(self, name: str) -> Any:
        """Return one of its attributes."""
        value = self.dataset.attrs.get(name)
        return value.item() if isinstance(value, np.generic) else value

    def at_hand(self, name: str) -> bool:
        """Return whether the values of a variable are in memory."""
        return isinstance(self.dataset.variables[name].data, np.ndarray)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a variable."""
        return self.dataset.variables[name].shape

    def scalar(self, name: str) -> Any:
        """Return the value of a variable without dimensions."""
        return self.dataset.variables[name].values.item()

    def array(self, name: str) -> NDArray[Any]:
        """Return the values of a variable."""
        return self.dataset.variables[name].values

    def give(self, name: str) -> NDArray[Any]:
        """Return the values of a variable, and keep them: the Dataset is somebody's."""
        return self.array(name)

    def attrs_of(self, name: str) -> dict[str, Any]:
        """Return the attributes of a variable."""
        return dict(self.dataset.variables[name].attrs)

    def whole(self, name: str) -> xr.Variable:
        """Return a variable, in memory."""
        return self.dataset.variables[name].load()


def names_of(dims: Sequence[Any]) -> tuple[str, ...]:
    """Return dimensions as words."""
    return tuple(map(str, dims))
