"""The anatomy of the change of one matrix as a Dataset: each function describes one aspect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankscope.lowrank.anatomy.intruders import LEADING, intruders
from rankscope.lowrank.anatomy.partners import Sides, given
from rankscope.lowrank.anatomy.scaling import scaling
from rankscope.lowrank.anatomy.shares import Components, shares
from rankscope.lowrank.anatomy.subspaces import null, overlaps
from rankscope.lowrank.anatomy.visibility import visibility
from rankscope.lowrank.change import Change

Array = NDArray[np.float64]
Variable = tuple[tuple[str, ...], Any, dict[str, str]]

STAGES = ("before", "after")
SIDES = ("left", "right")
COMPONENTS = 10
"""Principal components of activity and of adjoints that are partners; a quarter of all in a smaller network."""

MATRICES = ("initial", "change", "trained")


def variable(dims: Sequence[str], values: Any, long_name: str) -> Variable:
    """Return a variable of a Dataset; values are in double precision."""
    return tuple(dims), np.asarray(values, dtype=np.float64), {"long_name": long_name}


class Directions:
    """The leading directions of a change; NaN below its rounding, and everywhere if there is no change.

    Attributes
    ----------
    U, s, V
        (n, k), (k,) and (m, k).
    """

    def __init__(self, change: Change, count: int) -> None:
        self.change, self.count = change, count
        self.empty = change.norm == 0
        known = 0 if self.empty else min(count, change.numerical_rank)
        n, m = change.shape
        self.U, self.s, self.V = np.full((n, count), np.nan), np.full(count, np.nan), np.full((m, count), np.nan)
        if known:
            U, s, Vt = change.svd
            self.U[:, :known], self.s[:known], self.V[:, :known] = U[:, :known], s[:known], Vt[:known].T
        self.known = known

    @property
    def sides(self) -> tuple[Array, Array]:
        """U and V."""
        return self.U, self.V


def strengths(one: Directions) -> dict[str, Variable]:
    """Return the singular values, shares of |dW|^2 and self-overlaps of the directions."""
    n, m = one.change.shape
    own = one.s * (one.U * one.V).sum(0) if n == m else np.full(one.count, np.nan)
    square = one.change.norm**2 or np.nan
    text = "eigenvalue that the direction alone would add to an independent W0, s v.u, where that exceeds the gain"
    return {
        "change_is_zero": variable((), one.empty, "1 where dW = 0, so that there is nothing to describe"),
        "direction_strength": variable(("direction",), one.s, "singular value of the change"),
        "direction_share": variable(("direction",), one.s**2 / square, "share of |dW|^2 in the direction"),
        "direction_eigenvalue": variable(("direction",), own, text),
    }


def partner_overlaps(
    one: Directions, of_stages: Sequence[Mapping[str, Sides]], names: Iterable[str]
) -> dict[str, Variable]:
    """Return the overlaps of directions with partners, and their nulls.

    Parameters
    ----------
    of_stages
        The partners before and after learning.
    names
        Names of partners; one that is not there is NaN.
    """
    names = list(names)
    shape = (len(STAGES), len(names), len(SIDES))
    dimension, mean, std = (np.full(shape, np.nan) for _ in range(3))
    values = np.full((*shape, one.count), np.nan)
    for stage, partners in enumerate(of_stages):
        for index, name in enumerate(names):
            if name not in partners:
                continue
            for side, (vectors, basis) in enumerate(zip(one.sides, partners[name], strict=True)):
                at = stage, index, side
                d = basis.shape[1]
                if not d:
                    continue
                values[at] = overlaps(vectors, basis)
                dimension[at] = d
                mean[at], std[at] = null(len(basis), d)
    dims = ("stage", "partner", "side")
    text = "overlap of a random direction with the partner, {}"
    return {
        "overlap": variable((*dims, "direction"), values, "|P u|^2 or |P v|^2 with the span P of the partner"),
        "partner_dimension": variable(dims, dimension, "dimension of the partner"),
        "overlap_null": variable(dims, mean, text.format("mean")),
        "overlap_null_std": variable(dims, std, text.format("standard deviation")),
    }


class Found(NamedTuple):
    """The principal components of activity and of adjoints."""

    activity: Components | None = None
    adjoints: Components | None = None

    def partners(self, shape: tuple[int, int]) -> dict[str, Sides]:
        """Return the leading components as partners of a change of this shape."""
        count = max(1, min(COMPONENTS, min(shape) // 4))
        leading = {name: one.vectors[:, :count] for name, one in self._asdict().items() if one is not None}
        return {name: given(vectors, shape) for name, vectors in leading.items()}


def product_shares(one: Directions, of_stages: Sequence[Found]) -> dict[str, Variable]:
    """Return the shares of the change in activity and adjoints, before and after learning."""
    variables: dict[str, Variable] = {}
    dW = one.change.matrix
    for name, text, matrix, index in (("activity", "activity", dW, 0), ("adjoint", "adjoints", dW.T, 1)):
        size = matrix.shape[1]
        found = np.full((2, len(STAGES), size), np.nan)
        for stage, of_stage in enumerate(of_stages):
            known = of_stage[index]
            if known is not None and not one.empty:
                found[:, stage] = shares(matrix, known.vectors), known.spectrum
        dim = f"{name}_component"
        variables |= {
            f"{name}_share": variable(
                ("stage", dim), found[0], f"share of |dW|^2 in the leading principal components of {text}"
            ),
            f"{name}_spectrum": variable(("stage", dim), found[1], f"share of the squares of {text} in the component"),
            f"{name}_share_null": variable(
                (dim,), np.arange(1, size + 1) / size, f"share of a random change in the components of {text}"
            ),
        }
    return variables


def in_trained_weights(one: Directions) -> dict[str, Variable]:
    """Return what is visible in W of each direction: predicted for independent noise, and found; and the intruders."""
    change = one.change
    n, m = change.shape
    size = min(n, m)
    assert change.initial_norm is not None
    U0, s0, _ = np.linalg.svd(change.before, full_matrices=False)
    U, s, Vt = (U0, s0, np.empty((size, m))) if one.empty else np.linalg.svd(change.after, full_matrices=False)
    predicted = visibility(np.nan_to_num(one.s), change.shape, change.initial_norm)
    found = np.full((3, one.count), np.nan)
    if one.known:
        left, right = np.abs(U.T @ one.U[:, : one.known]), np.abs(Vt @ one.V[:, : one.known])
        at = (left * right).argmax(0)
        picked = at, np.arange(one.known)
        found[:, : one.known] = s[at], left[picked] ** 2, right[picked] ** 2
    count, share = (np.nan, np.nan) if one.empty else intruders(U0[:, s0 > 1e-12 * (s0[0] or 1)], U, s)
    theirs = np.stack([s0, np.zeros(size) if one.empty else change.singular_values, s])
    unknown = np.isnan(one.s)
    noise = "if W0 were independent noise"
    direction = ("direction",)
    return {
        "visible": variable(
            direction, np.where(unknown, np.nan, predicted.visible), f"1 where the direction is visible in W, {noise}"
        ),
        "visible_edge": variable((), predicted.edge, f"largest singular value of W0, {noise}"),
        "predicted_singular_value": variable(
            direction,
            np.where(unknown, np.nan, predicted.singular_value),
            f"singular value of W where the direction is, {noise}",
        ),
        "predicted_overlap": variable(
            ("side", "direction"),
            np.where(unknown, np.nan, [predicted.left, predicted.right]),
            f"squared cosine of the direction and a singular vector of W, {noise}",
        ),
        "found_singular_value": variable(direction, found[0], "singular value of W that is closest to the direction"),
        "found_overlap": variable(
            ("side", "direction"), found[1:], "squared cosine of the direction and the closest singular vector of W"
        ),
        "intruders": variable((), count, f"leading {LEADING} left singular vectors of W that none of W0 resembles"),
        "intruder_share": variable((), share, "share of |W|^2 of these vectors"),
        "anatomy_spectrum": variable(("matrix", "spectrum_index"), theirs, "singular value"),
    }


def along_initial(one: Directions) -> dict[str, Variable]:
    """Return the part of the change along W0 and the ranks of the rest."""
    found = None if one.empty else scaling(one.change)
    values = {
        "scaling_least_squares": ("least_squares", "least-squares c of dW = c W0 + rest"),
        "scaling": ("c", "c of dW = c W0 + rest, outside the directions of the rest"),
        "rest_rank": ("numerical_rank", "singular values of the rest above rounding"),
        "rest_rank_95": ("rank_95", "directions with 95 % of the square of the rest"),
    }
    return {name: variable((), getattr(found, key, np.nan), text) for name, (key, text) in values.items()}
