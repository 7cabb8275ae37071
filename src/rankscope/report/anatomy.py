"""Whose directions the change of each matrix consists of, for the page of one network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.report.packing import finite_or_none, pack, thinned

ACTIVE = ("activity", "adjoints")
COMPONENTS = 60
"""Points of the curves over principal components."""

#: Arrays of all matrices and gates: the first dimension of each is "block".
OF_BLOCKS = (
    "overlap",
    "overlap_null",
    "direction_strength",
    "visible",
    "visible_edge",
    "intruders",
    "growth_strength",
    "activity_share",
    "activity_share_null",
    "adjoint_share",
)
#: Arrays that are read.
ANATOMY = (*OF_BLOCKS, "growth_epoch")

Values = Mapping[str, NDArray[Any]]


def anatomy_of(values: Values) -> list[dict[str, Any]]:
    """Return what was measured of the directions of each matrix or gate that changed.

    Parameters
    ----------
    values
        Variables and coordinates of one network.

    Returns
    -------
    list
        Of dictionaries: `block`, its name; `left` and `right`, overlaps of u and v with their partners (of the weights
        before learning, of activity after it): the `names` of partners, the mean overlap of a random direction with
        each, `nulls`, and `values`, (partners, directions), packed; `visible`, the number of directions that would
        leave the bulk of W0 if they were independent of it, of `directions`, and `edge`, that of the bulk; `intruders`,
        of the ten leading vectors of W. If measured, `growth`: `epochs` and `strength` (epochs, directions); and
        `shares` of the change in principal components: `names`, `components` and `values` (curves, components).
    """
    if "overlap" not in values:
        return []
    names = np.atleast_1d(values["block"])
    blocks = [
        _block(str(name), {key: _at(values, key, index) for key in OF_BLOCKS}, values)
        for index, name in enumerate(names)
    ]
    return [block for block in blocks if "left" in block or "right" in block]


def _at(values: Values, name: str, index: int) -> NDArray[np.float64] | None:
    """Return a variable of one block, None if it was not measured."""
    found = np.asarray(values[name], dtype=np.float64)[index] if name in values else None
    return found if found is not None and np.isfinite(found).any() else None


def _block(name: str, one: dict[str, NDArray[np.float64] | None], values: Values) -> dict[str, Any]:
    overlap, nulls = one["overlap"], one["overlap_null"]
    found: dict[str, Any] = {"block": name}
    if overlap is None or nulls is None:
        return found
    stages, partners, sides = (list(map(str, values[key])) for key in ("stage", "partner", "side"))
    for side in sides:
        names, rows, means = [], [], []
        for index, partner in enumerate(partners):
            at = stages.index("after" if partner in ACTIVE else "before"), index, sides.index(side)
            if np.isfinite(overlap[at]).any():
                names.append(f"{partner} after learning" if partner in ACTIVE else partner)
                rows.append(overlap[at])
                means.append(float(nulls[at]))
        if rows:
            known = np.isfinite(rows).any(axis=0)
            found[side] = {"names": names, "nulls": means, "values": pack(np.array(rows)[:, known])}
    if one["visible"] is not None and one["visible_edge"] is not None:
        known = np.isfinite(one["visible"])
        edge = finite_or_none(one["visible_edge"])
        found |= {"visible": int(one["visible"][known].sum()), "directions": int(known.sum()), "edge": edge}
    if one["intruders"] is not None:
        found["intruders"] = int(one["intruders"])
    if one["growth_strength"] is not None:
        known = np.isfinite(one["growth_strength"]).any(axis=1)
        strength = one["growth_strength"][known]
        strength = strength[:, np.isfinite(strength).any(axis=0)]
        epochs = np.asarray(values["growth_epoch"], dtype=np.float64)[known]
        # Before learning there is no change.
        strength, epochs = np.vstack([np.zeros_like(strength[:1]), strength]), np.concatenate([[0], epochs])
        found["growth"] = {"epochs": pack(epochs), "strength": pack(strength)}
    return found | _shares(one, stages)


def _shares(one: dict[str, NDArray[np.float64] | None], stages: list[str]) -> dict[str, Any]:
    """Return the shares of |dW|^2 in the leading principal components of activity and adjoints, and their null."""
    curves: dict[str, NDArray[np.float64]] = {}
    for key, text in (("activity", "activity"), ("adjoint", "adjoints")):
        shares = one[f"{key}_share"]
        if shares is not None:
            curves |= {
                f"{text} {stage} learning": shares[at]
                for at, stage in enumerate(stages)
                if np.isfinite(shares[at]).any()
            }
    if not curves or one["activity_share_null"] is None:
        return {}
    curves["random change"] = one["activity_share_null"]
    kept = thinned(min(map(len, curves.values())), COMPONENTS)
    shares = np.array([curve[kept] for curve in curves.values()])
    return {"shares": {"names": list(curves), "components": pack(kept + 1), "values": pack(shares)}}
