"""Overlaps of the leading directions of the change with their partners, for the page of one network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.report.packing import pack

ACTIVE = ("activity", "adjoints")


def anatomy_of(values: Mapping[str, NDArray[Any]]) -> dict[str, Any] | None:
    """Return the overlaps of the first measured matrix: of the weights before learning, of activity after it.

    Returns
    -------
    dict or None
        `block`, and for "left" and "right" the `names` of partners, the mean overlap of a random direction with each,
        `nulls`, and `values`, (partners, directions), packed. None if the overlaps were not measured.
    """
    if "overlap" not in values:
        return None
    overlap, nulls = (np.asarray(values[name], dtype=np.float64)[0] for name in ("overlap", "overlap_null"))
    stages, partners, sides = (list(map(str, values[name])) for name in ("stage", "partner", "side"))
    found: dict[str, Any] = {}
    for side in sides:
        names, rows, means = [], [], []
        for index, name in enumerate(partners):
            at = stages.index("after" if name in ACTIVE else "before"), index, sides.index(side)
            if np.isfinite(overlap[at]).any():
                names.append(f"{name} after learning" if name in ACTIVE else name)
                rows.append(overlap[at])
                means.append(float(nulls[at]))
        if rows:
            known = np.isfinite(rows).any(axis=0)
            found[side] = {"names": names, "nulls": means, "values": pack(np.array(rows)[:, known])}
    return {"block": str(np.atleast_1d(values["block"])[0]), **found} if found else None
