"""Rows of measures as a CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rankscope.io.atomic import replacing

LISTED = {
    "singular_values": ("s", 10),
    "strengths": ("strength_", 8),
    "cosines": ("cosine_", 8),
    "places": ("place_", 8),
}
"""Columns that hold several values: the beginning of the headings they are written to, and how many."""


def write_rows(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write one row each; bounds are two columns, and leading singular values are s1, s2, ...

    Raises
    ------
    InputError
        If the folder cannot be written to.
    """
    flat = [_flat(row) for row in rows]
    headings = list(dict.fromkeys(key for row in flat for key in row)) or ["name"]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, headings)
        writer.writeheader()
        writer.writerows(flat)
    return Path(path)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with one value in each column."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("_bounds"):
            flat |= {key.replace("_bounds", "_least"): value[0], key.replace("_bounds", "_most"): value[1]}
        elif key in LISTED:
            heading, count = LISTED[key]
            flat |= {f"{heading}{i + 1}": value[i] if i < len(value) else None for i in range(count)}
        else:
            flat[key] = "x".join(map(str, value)) if key == "shape" else value
    return flat
