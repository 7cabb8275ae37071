"""Truncation of a change by a rule: a fixed rank, a share of the squared norm, or the directions that stand out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.linalg import leading_triplets
from rankscope.lowrank.change import Change, FactoredChange
from rankscope.lowrank.noise_edges import measure
from rankscope.validation import integer

WHOLE_UP_TO = 2048
"""Smaller side up to which all singular vectors are computed; above, the leading ones only."""

FIRST_COUNT = 64
"""Leading directions that are computed first of a large matrix, to reach a share of its squared norm."""

AUTO, ENERGY = "auto", "energy:"


@dataclass(frozen=True)
class RankRule:
    """Rank of each matrix: `fixed`, or the smallest one with the share `energy` of |dW|^2; automatic for neither."""

    fixed: int | None = None
    energy: float | None = None

    @classmethod
    def parse(cls, rank: int | str) -> RankRule:
        """Return the rule for a whole number, "auto" or "energy:0.99".

        Raises
        ------
        InputError
            If `rank` is none of these, the number is below 1, or the share not in (0, 1].
        """
        if rank == AUTO:
            return cls()
        if not isinstance(rank, str):
            return cls(fixed=integer("rank", rank, minimum=1))
        try:
            share = float(rank.removeprefix(ENERGY)) if rank.startswith(ENERGY) else 0.0
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise InputError(
                f"rank must be a whole number >= 1, 'auto', or 'energy:F' with a share 0 < F <= 1, got {rank!r}"
            )
        return cls(energy=share)

    def triplets(self, change: Change) -> tuple[Tensor, Tensor, Tensor]:
        """Return U (rows, r), s (r,) and Vt (r, columns) of a change that is not zero.

        By the automatic rule r may be 0. Directions that are zero to the rounding of the decomposition do not count.
        """
        if self.energy is not None:
            U, s, Vt = _with_energy(change, self.energy)
        else:
            rank = automatic_rank(change) if self.fixed is None else self.fixed
            U, s, Vt = leading(change, rank) if rank else leading(change, 1)
            U, s, Vt = U[:, :rank], s[:rank], Vt[:rank]
        level = float(np.finfo(np.float64).eps) * max(change.shape) * change.norm
        count = int((s > level).sum())
        return U[:, :count], s[:count], Vt[:count]


def automatic_rank(change: Change) -> int:
    """Return the number of directions that stand out; of a change without a flat bulk the rank for 99 % of |dW|^2."""
    measures = measure(change)
    if measures.method == "randomized" and (measures.standing_out is None or measures.rank_99 is None):
        measures = measure(change, exact=True)
    if measures.standing_out is not None:
        return measures.standing_out
    return measures.rank_99 if measures.rank_99 is not None else measures.rank_99_bounds[1]


def leading(change: Change, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, s and Vt of a change, of large matrices the `count` leading ones only."""
    if min(change.shape) > max(WHOLE_UP_TO, 4 * count) and not isinstance(change, FactoredChange):
        return leading_triplets(torch.from_numpy(change.matrix), count)[:3]
    U, s, Vt = (torch.from_numpy(factor) for factor in change.svd)
    return U, s, Vt


def _with_energy(change: Change, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the fewest leading directions with this share of |dW|^2."""
    count = FIRST_COUNT
    while True:
        U, s, Vt = leading(change, count)
        # A sum in another order may end a few roundings short.
        reached = torch.nonzero(s.double().square().cumsum(0) >= share * change.norm**2 * (1 - 1e-12))
        if len(reached):
            rank = int(reached[0]) + 1
            return U[:, :rank], s[:rank], Vt[:rank]
        if len(s) > count or len(s) == min(change.shape) or isinstance(change, FactoredChange):
            return U, s, Vt
        count *= 4
