"""The spectral law of 1 - W0: exact averages, the cubic that it came from, and matrices drawn at random."""

import functools

import numpy as np
import pytest
import torch
from linear_cases import random_network

from rankscope.theory.ginibre import edges, spectral_measure

GAINS = (1e-4, 0.1, 0.6, 0.9, 0.99)


@functools.cache
def singular_vectors(gain, N=500, matrices=3):
    """Singular values of 1 - W0, and right . X left for X = 1 and (1 - W0)^-1, of a few matrices, (matrices, N)."""
    found = []
    for seed in range(matrices):
        W0 = torch.as_tensor(random_network(N, gain, seed)[0])
        one = torch.eye(N, dtype=torch.float64)
        left, s, right = torch.linalg.svd(one - W0)
        pulled = torch.linalg.solve(one - W0 / 0.9, left)
        found.append([s.numpy(), (right * left.T).sum(1).numpy(), (right * pulled.T).sum(1).numpy()])
    return np.moveaxis(np.array(found), 1, 0)


@pytest.mark.parametrize("g", GAINS)
def test_averages_that_are_known(g):
    measure = spectral_measure(g)
    s, rho, c = measure.singular_values, measure.weights, measure.overlap()
    assert rho.min() > 0
    assert rho.sum() == pytest.approx(1, abs=1e-9)
    # With A = 1 - W0: traces of A A^T and (A A^T)^2, by hand.
    assert rho @ s**2 == pytest.approx(1 + g**2, rel=1e-9)
    assert rho @ s**4 == pytest.approx(1 + 4 * g**2 + 2 * g**4, rel=1e-9)
    # Traces of R R^T, A and R.
    assert rho @ s**-2.0 == pytest.approx(1 / (1 - g**2), rel=1e-9)
    assert rho @ (c * s) == pytest.approx(1, rel=1e-9)
    assert rho @ (c / s) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("g", GAINS)
def test_averages_with_a_resolvent_in_between(g):
    measure = spectral_measure(g)
    s, rho = measure.singular_values, measure.weights
    for x in (1.01 * g, (g + 1) / 2, 1.0, 3.0):
        c = measure.overlap(x)
        # Traces of X A and X R^T, where X = (x - W0)^-1 is a series whose terms have known averages.
        assert rho @ (c * s) == pytest.approx(1 / x, rel=1e-8)
        assert rho @ (c / s) == pytest.approx(1 / (x - g**2), rel=1e-8)


@pytest.mark.parametrize("g", GAINS[1:])
def test_edges_are_where_the_cubic_becomes_complex(g):
    def complex_roots(s):
        # The sign of the discriminant of y^3 - s y^2 + (g^2 - 1) y + s.
        b, c, d = -s, g**2 - 1, s
        return 18 * b * c * d - 4 * b**3 * d + b**2 * c**2 - 4 * c**3 - 27 * d**2 < 0

    lower, upper = edges(g)
    nudge = 1e-7
    assert complex_roots(lower * (1 + nudge))
    assert not complex_roots(lower * (1 - nudge))
    assert complex_roots(upper * (1 - nudge))
    assert not complex_roots(upper * (1 + nudge))
    s = spectral_measure(g).singular_values
    assert lower < s.min() < s.max() < upper


@pytest.mark.parametrize("g", [0.3, 0.9])
def test_singular_values_of_random_matrices(g):
    measure = spectral_measure(g)
    order = np.argsort(measure.singular_values)
    s, rho = measure.singular_values[order], measure.weights[order]
    for drawn in singular_vectors(g)[0]:
        drawn = np.sort(drawn)
        # Singular values repel each other: the shares differ by a few in N, not in sqrt(N).
        share = np.interp(drawn, s, np.cumsum(rho) - rho / 2)
        assert np.abs(share - (np.arange(len(drawn)) + 0.5) / len(drawn)).max() < 4 / len(drawn)
        # At the edges they fluctuate by some N^(-2/3).
        assert np.abs(drawn[[0, -1]] - edges(g)).max() < 4 * g * len(drawn) ** (-2 / 3)


@pytest.mark.parametrize(("g", "eigenvalue"), [(0.3, None), (0.9, None), (0.3, 0.9)])
def test_overlaps_of_random_matrices(g, eigenvalue):
    measure = spectral_measure(g)
    s, plain, pulled = singular_vectors(g)
    drawn = plain if eigenvalue is None else pulled / eigenvalue
    order = np.argsort(measure.singular_values)
    expected = np.interp(s, measure.singular_values[order], measure.overlap(eigenvalue)[order])
    # In tenths of the singular values: what single vectors scatter averages out, but for what a matrix has in common.
    off = (drawn - expected).reshape(-1, 10, s.shape[1] // 10)
    error = off.std(axis=(0, 2)) / (off.shape[0] * off.shape[2]) ** 0.5
    assert (np.abs(off.mean(axis=(0, 2))) < 3 * error + np.ptp(expected) / s.shape[1]).all()
    # This tells the mean overlaps from each other.
    assert error.max() < 0.05 * np.ptp(expected)


def test_a_weak_gain_is_a_semicircle():
    # 1 - W0 is 1 - (W0 + W0^T) / 2 to first order, a symmetric matrix whose eigenvalues fill a semicircle.
    for g in (1e-8, 1e-6, 1e-4, 1e-3):
        lower, upper = edges(g)
        assert (upper - 1) / g == pytest.approx(2**0.5, abs=2 * g + 1e-7)
        assert (lower - 1) / g == pytest.approx(-(2**0.5), abs=2 * g + 1e-7)
    g = 1e-4
    measure = spectral_measure(g)
    x = (measure.singular_values - 1) / g
    assert measure.weights @ x**2 == pytest.approx(1 / 2, rel=3 * g)
    assert measure.weights @ x**4 == pytest.approx(1 / 2, rel=3 * g)
    np.testing.assert_allclose(measure.overlap(), 1, atol=3 * g)
