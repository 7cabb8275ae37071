"""Truncation curves, and the functional rank: the smallest rank that is enough, by a criterion.

| criterion | smallest rank R with | tolerance |
|---|---|---|
| loss | score(R) < tolerance score(0) (Schuessler et al. 2020, Fig. 2) | 0.05 |
| recovered | score(R) at least 1 - tolerance of the way from score(0) to the full score | 0.05 |
| accuracy | no score worse than the full score by more than tolerance, from R on | 0.01 |

"loss" supposes that learning ends near a loss of zero. "recovered" is the same rule for scores that end elsewhere, such
as the loss of a language model or an explained variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.validation import choice, integer, number

Array = NDArray[np.float64]
Criterion = Literal["loss", "recovered", "accuracy"]
TOLERANCES = {"loss": 0.05, "recovered": 0.05, "accuracy": 0.01}


@dataclass(frozen=True, eq=False)
class TruncationCurve:
    """Scores of a network truncated to increasing ranks.

    Attributes
    ----------
    ranks, scores
        Increasing ranks, and one score for each.
    full
        Score with nothing truncated.
    higher_is_better
        False for a loss, True for an accuracy.
    matrices
        What was truncated, all to the same rank.

    Raises
    ------
    InputError
        If there is not one score a rank, or ranks do not increase.
    """

    ranks: Sequence[int]
    scores: Array
    full: float
    higher_is_better: bool = False
    matrices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ranks = tuple(integer("ranks", rank, minimum=0) for rank in self.ranks)
        scores = np.asarray(self.scores, dtype=np.float64)
        if not ranks or scores.shape != (len(ranks),) or list(ranks) != sorted(set(ranks)):
            raise InputError(
                f"scores must be one number for each of increasing ranks, got {scores.shape}, ranks {list(ranks)}"
            )
        object.__setattr__(self, "ranks", ranks)  # the dataclass is frozen
        object.__setattr__(self, "scores", scores)

    def _repr_html_(self) -> str:
        from rankscope.plot import truncation as plot_truncation
        from rankscope.plot.html import card

        rows = {
            "truncated": ", ".join(self.matrices),
            "ranks": f"{self.ranks[0]} to {self.ranks[-1]}",
            "score of the full network": f"{self.full:.4g}",
            "functional rank": functional_rank(self, "accuracy" if self.higher_is_better else "loss"),
        }
        return card("Truncation curve", rows, [lambda ax: plot_truncation(self, ax)])


def functional_rank(
    curve: TruncationCurve,
    criterion: Criterion = "loss",
    tolerance: float | None = None,
    baseline: float | None = None,
) -> int | None:
    """Return the smallest rank of a truncation curve that is enough, or None if none is.

    Parameters
    ----------
    curve
        For "loss" and "recovered", one that begins at rank 0.
    criterion
        "loss": the loss is below 5 % of that of rank 0, the paper's criterion. "recovered": 95 % of the way from the
        score of rank 0 to the full score; 0 where the full score is no better. "accuracy": within 0.01 of the full
        score, from this rank on.
    tolerance
        Another number than these 5 %, 5 % and 0.01.
    baseline
        Score to measure "recovered" from in place of that of rank 0, such as the chance level.

    Raises
    ------
    InputError
        If the criterion is unknown, the tolerance not above 0, or the curve does not begin at rank 0.
    """
    choice("criterion", criterion, TOLERANCES)
    if not isinstance(curve, TruncationCurve):
        raise InputError(
            f"curve must be a TruncationCurve, got {type(curve).__name__}; rankscope.truncation_curve returns one"
        )
    if criterion != "accuracy" and baseline is None and curve.ranks[0] != 0:
        raise InputError(f"curve must begin at rank 0 for criterion={criterion!r}, got ranks {list(curve.ranks)}")
    allowed = number("tolerance", TOLERANCES[criterion] if tolerance is None else tolerance, above=0)
    start = float(curve.scores[0]) if baseline is None else number("baseline", baseline)
    sign = 1 if curve.higher_is_better else -1
    # A score of NaN is never enough.
    if criterion == "loss":
        enough = curve.scores < allowed * start
    elif criterion == "recovered":
        enough = sign * curve.scores >= sign * (curve.full - allowed * (curve.full - start))
    else:
        within = sign * curve.scores >= sign * curve.full - allowed - 1e-9  # 0.91 is within 0.01 of 0.92
        enough = np.logical_and.accumulate(within[::-1])[::-1]  # all later ranks must be enough too
    return next((rank for rank, one in zip(curve.ranks, enough, strict=True) if one), None)
