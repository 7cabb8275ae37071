"""Several matrices truncated together: rank by rank the same as each decomposed and truncated anew."""

import numpy as np
import pytest
from rankscope.lowrank.joint_truncation import truncated_together

from rankscope.errors import InputError
from rankscope.lowrank import change

SHAPES = ((12, 5), (7, 7), (3, 9))


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    return [rng.normal(size=s) for s in SHAPES], [rng.normal(size=s) for s in SHAPES]


def truncated(before, after, rank):
    return [b + change(b, a).truncated(min(rank, *b.shape)) for b, a in zip(before, after, strict=True)]


@pytest.mark.parametrize("ranks", [range(8), (0, 2, 2, 5, 100), (4,)])
def test_each_rank_is_that_of_a_decomposition_of_its_own(pairs, ranks):
    before, after = pairs
    kept = [matrix.copy() for matrix in before]
    count = 0
    for rank, matrices in zip(ranks, truncated_together(before, after, ranks), strict=True):
        for ours, theirs in zip(matrices, truncated(before, after, rank), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)
        count += 1
    assert count == len(ranks)
    for matrix, copy in zip(before, kept, strict=True):
        np.testing.assert_array_equal(matrix, copy)


def test_the_ends_are_the_matrices_themselves(pairs):
    before, after = pairs
    first, last = ([m.copy() for m in matrices] for matrices in truncated_together(before, after, (0, 9)))
    for b, a, at_first, at_last in zip(before, after, first, last, strict=True):
        np.testing.assert_array_equal(at_first, b)
        np.testing.assert_allclose(at_last, a, atol=1e-12)


def test_what_cannot_be(pairs):
    before, after = pairs
    with pytest.raises(InputError, match="shapes of before"):
        list(truncated_together(before, after[::-1], (0,)))
    with pytest.raises(InputError, match="ranks must be a whole number >= 3, got 1"):
        list(truncated_together(before, after, (3, 1)))
