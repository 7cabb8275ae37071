"""Functional ranks of known curves, by each criterion."""

import numpy as np
import pytest

from rankscope.errors import InputError
from rankscope.lowrank import TruncationCurve, functional_rank


@pytest.mark.parametrize(
    ("scores", "options", "expected"),
    [
        ([1, 0.5, 0.049, 0.001], {}, 2),
        ([1, 0.5, 0.05, 0.001], {}, 3),  # below, not at
        ([1, 0.5, 0.06], {}, None),
        ([1, 0.01, 0.5, 0.5], {}, 1),  # the first one
        ([1, 0.5, 0.3], {"tolerance": 0.4}, 2),
        ([1, 0.5, 0.01], {"ranks": [0, 4, 16]}, 16),
        ([1, np.nan, 0.01], {}, 2),
        ([np.nan, 0.01], {}, None),
        ([0, 0, 0], {}, None),
    ],
)
def test_loss(scores, options, expected):
    ranks = options.pop("ranks", range(len(scores)))
    assert functional_rank(TruncationCurve(ranks, scores, full=0), **options) == expected


@pytest.mark.parametrize(
    ("scores", "full", "higher", "options", "expected"),
    [
        ([4, 3, 2.11, 2.04], 2, False, {}, 3),
        ([0.5, 0.8, 0.876, 0.9], 0.9, True, {}, 3),
        ([0.5, 0.8, 0.882, 0.9], 0.9, True, {}, 2),
        ([0.5, 0.8, 0.9], 0.9, True, {"tolerance": 0.3}, 1),
        ([0.5, 0.83, 0.9], 0.9, True, {"baseline": 0.2}, 2),  # 0.865 of the score is 95 % of what is above 0.2
        ([0.5, 0.87, 0.9], 0.9, True, {"baseline": 0.2}, 1),
        ([2, 3, 4], 4, False, {}, 0),  # no better with the change
        ([4, 3], 2, False, {}, None),
        ([4, np.nan, 2], 2, False, {}, 2),
    ],
)
def test_recovered(scores, full, higher, options, expected):
    curve = TruncationCurve(range(len(scores)), scores, full, higher)
    assert functional_rank(curve, "recovered", **options) == expected


def test_where_the_loss_ends_at_zero_both_criteria_agree():
    scores = np.random.default_rng(0).uniform(0, 0.2, 30)
    scores[0] = 1
    curve = TruncationCurve(range(30), scores, full=0)
    assert functional_rank(curve, "loss") == functional_rank(curve, "recovered")


@pytest.mark.parametrize(
    ("scores", "full", "options", "expected"),
    [
        ([0.5, 0.91, 0.8, 0.91, 0.92], 0.92, {}, 3),  # from there on
        ([0.5, 0.9, 0.8], 0.92, {}, None),
        ([0.5, 0.9, 0.88], 0.92, {"tolerance": 0.05}, 1),
        ([0.92, 0.95], 0.92, {}, 0),
        ([0.92, np.nan, 0.92], 0.92, {}, 2),
    ],
)
def test_accuracy(scores, full, options, expected):
    curve = TruncationCurve(range(len(scores)), scores, full, higher_is_better=True)
    assert functional_rank(curve, "accuracy", **options) == expected


def test_refused():
    curve = TruncationCurve([1, 2], [1, 0], 0)
    for refused, message in (
        (lambda: functional_rank(curve), r"curve must begin at rank 0 for criterion='loss', got ranks \[1, 2\]"),
        (lambda: functional_rank([1, 0]), "curve must be a TruncationCurve, got list"),
        (lambda: functional_rank(curve, "los"), "did you mean 'loss'"),
        (lambda: functional_rank(TruncationCurve([0], [1], 0), tolerance=0), "tolerance must be a finite number > 0"),
        (lambda: TruncationCurve([0, 1], [1], 0), "scores must be one number for each of increasing ranks"),
        (lambda: TruncationCurve([1, 0], [1, 0], 0), "scores must be one number for each of increasing ranks"),
        (lambda: TruncationCurve([], [], 0), "scores must be one number for each of increasing ranks"),
    ):
        with pytest.raises(InputError, match=message):
            refused()
