"""The first epoch below a fraction of the first loss, or none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankscope import convergence_epoch
from rankscope.errors import InputError


@pytest.mark.parametrize(
    ("losses", "options", "expected"),
    [
        ([1, 0.5, 0.04, 0.5, 0.01], {}, 2),
        ([1, 0.5, 0.05], {}, None),  # below, not at
        ([2, 0.2, 0.099], {}, 2),
        ([1, 0.3, 0.2], {"fraction": 0.25}, 2),
        ([1, 0.3], {"fraction": 2}, 0),
        ([1], {}, None),
        ([1, np.nan, 0.01], {}, 2),
        ([1, np.nan], {}, None),
        ([np.nan, 0.01], {}, None),
        ([np.inf, 0.01], {}, None),
        ([1, -np.inf, 0.01], {}, 2),
        ([0, 0], {}, None),
    ],
)
def test_known_curves(losses, options, expected):
    epoch = convergence_epoch(losses, **options)
    assert epoch == expected
    assert type(epoch) is type(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0.01, 1))
def test_it_is_the_first(losses, fraction):
    epoch = convergence_epoch(losses, fraction)
    below = [loss < fraction * losses[0] for loss in losses]
    assert epoch == (below.index(True) if any(below) else None)


@pytest.mark.parametrize(
    ("losses", "fraction", "message"),
    [
        ([], 0.05, r"losses must be a non-empty one-dimensional array, got shape \(0,\)"),
        ([[1, 0]], 0.05, r"got shape \(1, 2\)"),
        (1.0, 0.05, r"got shape \(\)"),
        ([1, 0], 0, "fraction must be a finite number > 0, got 0"),
        ([1, 0], np.nan, "fraction must be a finite number > 0, got nan"),
    ],
)
def test_refused(losses, fraction, message):
    with pytest.raises(InputError, match=message):
        convergence_epoch(losses, fraction)
