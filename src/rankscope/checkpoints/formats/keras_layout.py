"""Names and axes of the variables in weight files of Keras.

Keras 3 stores variables by number, `layers/dense/vars/0`. Those of usual layers get the names that they have in Keras:
kernel, recurrent_kernel, bias, embeddings. A kernel has its inputs first, (in, out), and that of a convolution
(height, width, in, out); kernels with more than two axes are arranged as torch arranges them, outputs first, because
the matrix of a kernel is (out, the rest). Singular values do not depend on the order of
two axes, but on which are rows.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

CELL = re.compile(r"(?:\w+_)?cell(?:_\d+)?")
INPUTS_FIRST = re.compile(r"(?:query|key|value)(?:_dense)?(?:_\d+)?")
OUTPUTS_LAST = re.compile(r"(?:attention_)?output(?:_dense)?(?:_\d+)?|\w*conv\w*")
OPTIMIZER = re.compile(r"optimizer(?:_weights)?/")
NAMES = ("kernel", "recurrent_kernel", "bias")


class Axes(enum.Enum):
    """How the axes of a stored array become those of a tensor (out, ...)."""

    AS_STORED = enum.auto()
    LAST_FIRST = enum.auto()  # (height, width, in, out) -> (out, height, width, in)
    DEPTHWISE = enum.auto()  # (height, width, in, multiplier) -> (in x multiplier, 1, height, width)

    def arranged(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return an array with its axes arranged."""
        if self is Axes.LAST_FIRST:
            return np.moveaxis(array, -1, 0)
        if self is Axes.DEPTHWISE:
            moved = np.moveaxis(array, (-2, -1), (0, 1))
            return moved.reshape(moved.shape[0] * moved.shape[1], 1, *moved.shape[2:])
        return array

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape after `arranged`."""
        if self is Axes.LAST_FIRST:
            return (stored[-1], *stored[:-1])
        if self is Axes.DEPTHWISE:
            return (stored[-2] * stored[-1], 1, *stored[:-2])
        return stored


class Variable(NamedTuple):
    """A dataset: its path in the file, its name, its axes, and the reason why it is not measured."""

    path: str
    name: str
    axes: Axes
    reason: str | None = None


def is_keras(root: Any) -> bool:
    """Return whether an HDF5 file was written by Keras."""
    known = {"keras_version", "layer_names"} & set(root.attrs) or ("layers" in root and "vars" in root)
    return bool(known) or "_layer_checkpoint_dependencies" in root


def variables(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Variable]:
    """Return the variables of a file of Keras by path."""
    return {path: _variable(path, shapes) for path in shapes}


def _variable(path: str, shapes: Mapping[str, tuple[int, ...]]) -> Variable:
    if OPTIMIZER.match(path):
        return Variable(path, path.replace("/", "."), Axes.AS_STORED, "of the optimizer")
    folder, _, last = path.rpartition("/")
    layer = folder.removesuffix("/vars")
    last = last.removesuffix(":0")
    if folder != layer and last.isdecimal():
        last = _numbered(int(last[:9]), folder, layer.rsplit("/", 1)[-1], shapes) or f"vars/{last}"
    shape = shapes[path]
    axes, reason = (Axes.AS_STORED, None) if len(shape) < 3 else _axes(layer, last, len(shape))
    return Variable(path, f"{layer}/{last}".lstrip("/").replace("/", "."), axes, reason)


def _numbered(number: int, folder: str, layer: str, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the name of a variable that Keras 3 stores by its number; None for layers that we do not know."""
    first, second = shapes.get(f"{folder}/0", ()), shapes.get(f"{folder}/1")
    beyond = f"{folder}/2" in shapes
    if CELL.fullmatch(layer):
        return NAMES[number] if number < 3 else None
    if "embedding" in layer and not number:
        return "embeddings"
    if beyond or len(first) < 2 or number > 1:
        return None
    usual = re.search("dense|conv", layer) is not None
    bias = second is not None and len(second) < len(first) and first[-len(second) :] == second
    if number:
        return "bias" if bias or (usual and second is not None and len(second) == 1) else None
    return "kernel" if bias or usual else None


def _axes(layer: str, name: str, count: int) -> tuple[Axes, str | None]:
    """Return how the axes of a variable with three or more are arranged, or the reason why that is not known."""
    components = layer.split("/")
    separable = any("separable" in component for component in components[-2:])
    if "depthwise" in name or "depthwise" in components[-1] or (separable and name == "vars/0"):
        return Axes.DEPTHWISE, None
    if INPUTS_FIRST.fullmatch(components[-1]):
        return Axes.AS_STORED, None
    if "einsum" not in layer and (count > 3 or any(map(OUTPUTS_LAST.fullmatch, components[-2:]))):
        return Axes.LAST_FIRST, None
    return Axes.AS_STORED, "of a layer of Keras whose inputs and outputs among its axes are not known"
