"""Leading singular triplets: never too large, within their own error bound, and real singular vectors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.linalg import leading_triplets


def with_spectrum(rng, m, n, values):
    k = len(values)
    U, V = (np.linalg.qr(rng.standard_normal((size, k)))[0] for size in (m, n))
    return torch.as_tensor(U * values @ V.T)


@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(2, 90),
    n=st.integers(2, 90),
    count=st.integers(1, 8),
    decay=st.floats(0.0, 1.0),
    seed=st.integers(0, 9),
)
def test_values_are_below_the_true_ones_and_within_their_error_of_one(m, n, count, decay, seed):
    rng = np.random.default_rng(seed)
    matrix = with_spectrum(rng, m, n, np.exp(-decay * np.arange(min(m, n))))
    true = torch.linalg.svdvals(matrix)
    found = leading_triplets(matrix, count)
    k = min(count, m, n)
    assert found.s.shape == (k,)
    assert (found.s <= true[:k] * (1 + 1e-9)).all()
    nearest = (found.s[:, None] - true[None, :]).abs().min(dim=1).values
    assert (nearest <= found.error).all()


def test_vectors_are_orthonormal_and_give_the_best_approximation():
    rng = np.random.default_rng(0)
    values = np.array([5.0, 3.0, 1.0, *(0.01 * np.ones(77))])
    matrix = with_spectrum(rng, 120, 80, values)
    U, s, Vt, error = leading_triplets(matrix, 3)
    torch.testing.assert_close(U.t() @ U, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(Vt @ Vt.t(), torch.eye(3, dtype=torch.float64))
    assert torch.linalg.matrix_norm(matrix - U * s @ Vt, 2).item() == pytest.approx(0.01, rel=1e-3)
    assert error.max() < 1e-3


def test_single_precision_answers_in_single_precision_with_its_rounding_in_the_error():
    rng = np.random.default_rng(0)
    matrix = with_spectrum(rng, 60, 50, [2.0, 1.0]).float()
    found = leading_triplets(matrix, 2)
    assert found.s.dtype == torch.float32
    assert (found.error >= torch.finfo(torch.float32).eps * 2.0).all()
    torch.testing.assert_close(found.s, torch.tensor([2.0, 1.0]), rtol=1e-5, atol=0)
