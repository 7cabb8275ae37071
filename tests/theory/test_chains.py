"""Krylov chains: what they span, what they keep of the matrix, and when they close."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_cases import random_network, resolvent

from rankscope.theory.chains import chains_from, golub_kahan


def chain(R, start, steps):
    return golub_kahan(lambda x: R @ x, lambda x: R.T @ x, start, steps)


@settings(deadline=None, max_examples=10)
@given(
    N=st.integers(2, 40),
    steps=st.integers(1, 45),
    gain=st.floats(0.01, 0.9),
    seed=st.integers(0, 99),
    size=st.floats(1e-6, 1e6),
)
def test_chain_is_a_bidiagonal_picture_of_the_matrix(N, steps, gain, seed, size):
    W0, m, _ = random_network(N, gain, seed)
    # A few small matrices are nearly singular: these are scaled away from it.
    R = resolvent(W0 / max(1.0, 2 * np.linalg.norm(W0, 2)))
    V, U, B = chain(R, size * m[:, 0], steps)
    K = min(steps, N)
    assert V.shape == U.shape == (N, K)
    np.testing.assert_allclose(V.T @ V, np.eye(K), atol=1e-12)
    np.testing.assert_allclose(U.T @ U, np.eye(K), atol=1e-12)
    np.testing.assert_allclose(V[:, 0], m[:, 0], atol=1e-14)
    np.testing.assert_allclose(R @ V, U @ B, atol=1e-12)
    np.testing.assert_array_equal(B, np.triu(B) - np.triu(B, 2))
    assert (np.diag(B) > 0).all()
    assert (np.diag(B, 1) > 0).all()
    if K == N:
        np.testing.assert_allclose(U @ B @ V.T, R, atol=1e-12)


def test_long_chains_stay_orthogonal():
    # Without reorthogonalization, directions that have converged come back after some twenty steps.
    s = np.geomspace(1, 1e-3, 200)
    V, U, _ = chain(np.diag(s), np.ones(200), 60)
    assert np.abs(V.T @ V - np.eye(60)).max() < 1e-13
    assert np.abs(U.T @ U - np.eye(60)).max() < 1e-13


def test_chain_closes_where_nothing_new_comes():
    directions = 5
    # R^T R has as many eigenvectors in the start.
    s = np.repeat(np.arange(1, directions + 1), 4).astype(float)
    V, _, B = chain(np.diag(s), np.ones(len(s)), 12)
    assert V.shape[1] == directions
    np.testing.assert_allclose(np.sort(np.linalg.svd(B)[1]), np.unique(s), rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 4])
def test_spaces_hold_all_that_so_many_products_reach(steps):
    W0, m, w = random_network(100, 0.8, seed=1)
    R = resolvent(W0)
    spaces = chains_from(lambda x: R @ x, lambda x: R.T @ x, m[:, 0], w[:, 0], steps)
    assert spaces.rows.shape == spaces.columns.shape == (100, 2 * steps)
    np.testing.assert_allclose(spaces.rows.T @ spaces.rows, np.eye(2 * steps), atol=1e-12)
    np.testing.assert_allclose(spaces.columns.T @ spaces.columns, np.eye(2 * steps), atol=1e-12)

    def outside(basis, x):
        return np.linalg.norm(x - basis @ (basis.T @ x)) / np.linalg.norm(x)

    in_rows, in_columns = [R @ m[:, 0], w[:, 0]], [m[:, 0], R.T @ w[:, 0]]
    for _ in range(steps):
        assert max(outside(spaces.rows, x) for x in in_rows) < 1e-9
        assert max(outside(spaces.columns, x) for x in in_columns) < 1e-9
        in_rows, in_columns = [R @ (R.T @ x) for x in in_rows], [R.T @ (R @ x) for x in in_columns]
    assert min(outside(spaces.rows, x) for x in in_rows) > 1e-6
    assert min(outside(spaces.columns, x) for x in in_columns) > 1e-6


def test_open_ends_are_the_last_directions():
    steps = 8
    W0, m, w = random_network(100, 0.6, seed=2)
    R = resolvent(W0)
    spaces = chains_from(lambda x: R @ x, lambda x: R.T @ x, m[:, 0], w[:, 0], steps)
    from_m, from_w = chain(R, m[:, 0], steps), chain(R.T, w[:, 0], steps)
    mixed = np.random.default_rng(0).standard_normal(2 * steps)
    for basis, ends, both in (
        (spaces.rows, spaces.row_ends, (from_m.U, from_w.V)),
        (spaces.columns, spaces.column_ends, (from_m.V, from_w.U)),
    ):
        np.testing.assert_allclose(ends @ (basis.T @ np.hstack(both) @ mixed), mixed[[steps - 1, -1]], rtol=1e-9)


@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-7])
def test_two_chains_may_be_the_same(apart):
    m, w = np.eye(50)[:2]
    spaces = chains_from(lambda x: 2 * x, lambda x: 2 * x, m, m + apart * w, 8)
    assert spaces.rows.shape == spaces.columns.shape == (50, 2 if apart > 1e-10 else 1)
    np.testing.assert_allclose(spaces.rows.T @ spaces.rows, np.eye(spaces.rows.shape[1]), atol=1e-12)
