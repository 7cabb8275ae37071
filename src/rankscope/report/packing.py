"""Arrays in a page: as few numbers as the eye can tell apart, in single precision, as text."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pack(values: ArrayLike) -> dict[str, Any]:
    """Return an array of any shape as {"shape": ..., "data": base64 of little-endian float32}; NaN stays NaN."""
    with np.errstate(over="ignore"):
        array = np.asarray(values, dtype="<f4")
    return {"shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}


def unpack(packed: dict[str, Any]) -> NDArray[np.float32]:
    """Return the array that `pack` was given, in single precision."""
    flat = np.frombuffer(base64.b64decode(packed["data"]), dtype="<f4")
    array: NDArray[np.float32] = flat.reshape(packed["shape"]).astype(np.float32)
    return array


def packed_bytes(part: Any) -> int:
    """Return how many characters the packed arrays within nested lists and dictionaries take."""
    if isinstance(part, dict):
        return len(part["data"]) if "data" in part else sum(packed_bytes(value) for value in part.values())
    return sum(packed_bytes(value) for value in part) if isinstance(part, list) else 0


def thinned(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` of the indices 0 to count - 1, first and last among them, denser where they are small.

    Learning happens early: half of the indices are spaced geometrically, half evenly.
    """
    if count <= most:
        return np.arange(count)
    early = np.geomspace(1, count, most // 2) - 1
    even = np.linspace(0, count - 1, most - most // 2)
    kept: NDArray[np.int64] = np.unique(np.concatenate([early, even]).round().astype(np.int64))
    return kept


def finite_or_none(value: Any) -> float | None:
    """Return a number as JSON can hold it: None for what is not finite."""
    number = float(value)
    return number if np.isfinite(number) else None
