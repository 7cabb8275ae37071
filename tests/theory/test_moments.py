"""What is measured of a reduced network, on matrices that are small enough to see through."""

import numpy as np
import pytest
from linear_cases import largest_real_eigenvalue

from rankscope.theory.moments import describe
from rankscope.theory.reduced import ReducedNetwork


def described(D, scaled_overlap=None, edge=0.0):
    """What is measured after a change D of a network without random weights, or with these overlaps."""
    n = len(D)
    one = np.eye(n)
    network = ReducedNetwork(
        resolvent=one,
        inputs=one[:, :1],
        outputs=one[:, 1:2],
        overlap=one,
        scaled_overlap=scaled_overlap or (lambda eigenvalue: one),
        bulk_edge=edge,
        open_ends=(np.empty((0, n)), np.empty((0, n))),
        accuracy=1e-8,
    )
    changed = np.linalg.inv(one - D) - one
    return describe(network, np.array([[1.0]]), changed[None], singular_values=n).isel(tau=0)


def turning(real, imaginary):
    return [[real, -imaginary], [imaginary, real]]


def block(*parts):
    sizes = [len(np.atleast_2d(part)) for part in parts]
    D, at = np.zeros((sum(sizes),) * 2), 0
    for part, size in zip(parts, sizes, strict=True):
        D[at : at + size, at : at + size] = part
        at += size
    mixing = np.random.default_rng(0).standard_normal(D.shape)
    return mixing @ D @ np.linalg.inv(mixing)


@pytest.mark.parametrize(
    ("parts", "largest"),
    [
        ((0.3, 0.2), 0.3),
        ((0.7, 0.7), 0.7),
        ((-0.3, -0.2), np.nan),
        ((turning(0.5, 0.3), 0.2), 0.2),
        ((turning(0.5, 1e-3), 0.2), 0.2),
        ((turning(0.5, 0.3),), np.nan),
        ((0.9, 0.8, turning(0.1, 0.6), -3.0), 0.9),
    ],
)
def test_the_outlier_is_the_largest_real_eigenvalue(parts, largest):
    D = block(*parts)
    at = described(D)
    assert float(at["outlier"]) == pytest.approx(largest, abs=1e-7, nan_ok=True)
    np.testing.assert_allclose(at["singular_value"], np.linalg.svd(D)[1], rtol=1e-9)
    assert float(at["readout"]) == pytest.approx(np.linalg.inv(np.eye(len(D)) - D)[1, 0], abs=1e-9)


def test_the_overlaps_with_the_random_weights_move_it():
    # W0 as a matrix, which the overlaps stand for.
    W0 = block(0.4, turning(0.1, 0.3), -0.2)
    D = 0.5 * np.outer([1.0, 1.0, 0.0, 0.5], [0.6, 0.2, 0.1, 0.3])
    one = np.eye(4)
    at = described(D, lambda eigenvalue: np.linalg.inv(one - W0 / eigenvalue), edge=0.45)
    assert float(at["outlier"]) == pytest.approx(largest_real_eigenvalue(W0 + D, 0.45), abs=1e-7)
    assert at["outlier"] > 0.5
