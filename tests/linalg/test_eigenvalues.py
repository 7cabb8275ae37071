"""Leading eigenvalues: those with the largest real part, in order, of any matrix that training may leave."""

import numpy as np
import pytest
import torch

from rankscope.errors import InputError
from rankscope.linalg import leading_eigenvalues

# Blocks [[a, b], [-b, a]] have the eigenvalues a ± bi.
KNOWN = [2, 1 + 3j, 1 - 3j, 0.5 + 0.1j, 0.5 - 0.1j, 0.2, -4]


def with_known_eigenvalues(dtype=torch.float64):
    blocks = [torch.tensor([[z]]) for z in (-4.0, 2.0, 0.2)]
    blocks += [torch.tensor([[a, b], [-b, a]]) for a, b in ((0.5, 0.1), (1.0, 3.0))]
    basis = torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3 * torch.eye(7)
    return (basis @ torch.block_diag(*blocks).double() @ torch.linalg.inv(basis)).to(dtype)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("count", [1, 2, 5, 7, 40])
def test_the_largest_real_parts_first_and_of_a_pair_the_upper_one(dtype, within, count):
    values = leading_eigenvalues(with_known_eigenvalues(dtype), count)
    assert values.dtype == torch.complex128
    np.testing.assert_allclose(values, KNOWN[:count], atol=within)


def test_a_random_matrix_and_its_outlier():
    N, g = 200, 0.5
    generator = torch.Generator().manual_seed(0)
    noise, u = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((N, N), (N,)))
    W = g * noise / N**0.5 + 0.9 * torch.outer(u, u) / (u @ u)
    first, second = leading_eigenvalues(W, 2)
    assert abs(first.real - 0.9) < 0.1
    assert first.imag == 0
    assert second.real < 1.2 * g


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_has_none(bad):
    matrix = torch.eye(4)
    matrix[1, 2] = bad
    values = leading_eigenvalues(matrix, 3)
    assert values.shape == (3,)
    assert values.dtype == torch.complex128
    assert values.isnan().all()


def test_huge_weights_are_no_error():
    assert leading_eigenvalues(torch.full((3, 3), 1e38), 1).real.item() == pytest.approx(3e38, rel=1e-6)


@pytest.mark.parametrize(
    ("matrix", "count", "message"),
    [
        (torch.ones(3), 1, r"matrix must be square, got shape \(3,\)"),
        (torch.ones(2, 3), 1, r"matrix must be square, got shape \(2, 3\)"),
        (torch.ones(3, 3), 0, "count must be a whole number >= 1, got 0"),
    ],
)
def test_refused(matrix, count, message):
    with pytest.raises(InputError, match=message):
        leading_eigenvalues(matrix, count)
