"""Compact encoding of arrays in a page: few points, single precision, base64."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pack(values: ArrayLike) -> dict[str, Any]:
    """Return an array as {"shape": ..., "data": base64 of little-endian float32}; NaN stays NaN."""
    with np.errstate(over="ignore"):
        array = np.asarray(values, dtype="<f4")
    return {"shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}


def unpack(packed: dict[str, Any]) -> NDArray[np.float32]:
    """Return the array that `pack` encoded, in single precision."""
    flat = np.frombuffer(base64.b64decode(packed["data"]), dtype="<f4")
    array: NDArray[np.float32] = flat.reshape(packed["shape"]).astype(np.float32)
    return array


def packed_bytes(value: Any) -> int:
    """Return the number of characters of all packed arrays within nested lists and dictionaries."""
    if isinstance(value, dict):
        return len(value["data"]) if "data" in value else sum(packed_bytes(one) for one in value.values())
    return sum(packed_bytes(one) for one in value) if isinstance(value, list) else 0


def thinned(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` of the indices 0 to count - 1, including first and last.

    Half of them are spaced geometrically and half evenly, as most learning happens early.
    """
    if count <= most:
        return np.arange(count)
    early = np.geomspace(1, count, most // 2) - 1
    even = np.linspace(0, count - 1, most - most // 2)
    kept: NDArray[np.int64] = np.unique(np.concatenate([early, even]).round().astype(np.int64))
    return kept


def finite_or_none(value: Any) -> float | None:
    """Return a number for JSON, or None if it is not finite."""
    number = float(value)
    return number if np.isfinite(number) else None
