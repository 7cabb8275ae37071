"""Leading singular values: exact where that is cheap, within a percent and never above the truth elsewhere.

A percent, or the rounding noise of the largest: what lies below that was never in the matrix.
"""

import pytest
import torch

from rankscope.errors import InputError
from rankscope.linalg import leading_singular_values
from rankscope.linalg.singular_values import EXACT_UP_TO


def gaussian(m, n, seed=0, dtype=torch.float64):
    return torch.randn(m, n, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def orthogonal(N, seed):
    return torch.linalg.qr(gaussian(N, N, seed)).Q


def with_values(values):
    """A dense matrix with these singular values, and no other structure."""
    N = len(values)
    return (orthogonal(N, 1) * values) @ orthogonal(N, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (64, 64), (256, 256), (EXACT_UP_TO, EXACT_UP_TO), (20, 3000), (900, 40)])
def test_exact_where_it_is_small(m, n, dtype):
    matrix = gaussian(m, n, dtype=dtype)
    values = leading_singular_values(matrix, 40)
    exact = torch.linalg.svdvals(matrix.double())[:40]
    assert values.dtype == dtype
    torch.testing.assert_close(values, exact.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_small_ones_beside_a_large_one():
    # where a singular value decomposition in single precision has an error of 1e-7 of the largest
    values = 10.0 ** -torch.linspace(0, 6, 256, dtype=torch.float64)
    matrix = with_values(values).float()
    exact = torch.linalg.svdvals(matrix.double())[:40]
    found = leading_singular_values(matrix, 40)
    torch.testing.assert_close(found, exact.float(), rtol=2e-7, atol=0)
    assert (leading_singular_values(matrix, 256) >= 0).all()


def test_exact_where_many_are_wanted():
    matrix = gaussian(600, 600)
    torch.testing.assert_close(
        leading_singular_values(matrix, 300), torch.linalg.svdvals(matrix)[:300], rtol=1e-12, atol=0
    )


def test_count():
    assert leading_singular_values(gaussian(5, 9), 3).shape == (3,)
    assert leading_singular_values(gaussian(5, 9), 40).shape == (5,)
    assert leading_singular_values(gaussian(600, 600), 7).shape == (7,)


def check(matrix, count, within, rounding):
    values, exact = leading_singular_values(matrix, count), torch.linalg.svdvals(matrix.double())[:count]
    assert values.dtype == matrix.dtype
    relative = values.double() / exact - 1
    assert float(relative.max()) < rounding
    assert float(relative.min()) > -within
    assert (values.diff() <= 0).all()
    return relative


KINDS = {
    "random": lambda N: gaussian(N, N),
    "low rank and noise": lambda N: gaussian(N, 5, 1) @ gaussian(5, N, 2) / N + 0.2 * gaussian(N, N) / N**0.5,
    "slowly falling": lambda N: with_values(torch.linspace(1, 0.5, N, dtype=torch.float64)),
    "all equal": lambda N: orthogonal(N, 0),
    "plateau": lambda N: with_values(torch.where(torch.arange(N) < 40, 1.0, 0.1).double()),
}


@pytest.mark.parametrize("N", [600, 1024])
@pytest.mark.parametrize("kind", KINDS)
def test_within_a_percent_even_if_flat(kind, N):
    matrix = KINDS[kind](N)
    for count in (1, 5, 40) if N == 600 else (40,):
        check(matrix, count, within=0.01, rounding=1e-12)


@pytest.mark.parametrize("shape", [(1024, 600), (600, 1024), (530, 2000)])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_rectangular_and_in_both_precisions(shape, dtype, rounding):
    check(gaussian(*shape, dtype=dtype), 20, within=0.01, rounding=rounding)


@pytest.mark.parametrize("N", [600, 1024])
@pytest.mark.parametrize(("ratio", "within"), [(0.5, 1e-6), (0.9, 1e-3), (0.97, 3e-3)])
def test_values_that_fall_geometrically(N, ratio, within):
    values = ratio ** torch.arange(N, dtype=torch.float64)
    # Half of what is asked for lies below the noise at ratio 1/2, and counts there by its distance from the largest.
    found = leading_singular_values(with_values(values), 32)
    assert float((found - values[:32]).abs().sub(1e-14).div(values[:32]).max()) < within


def after_learning(N, noise=3e-7):
    """What the linear task leaves: three directions, and the rounding of single precision in every entry."""
    return (gaussian(N, 3, 1) * torch.tensor([0.4, 0.03, 3e-4])) @ gaussian(3, N, 2) / N + noise * gaussian(
        N, N
    ) / N**0.5


@pytest.mark.parametrize("N", [600, 1024])
def test_what_learning_leaves_is_found_beyond_rounding(N):
    matrix = after_learning(N).float()
    values, exact = leading_singular_values(matrix, 32), torch.linalg.svdvals(matrix.double())[:32]
    torch.testing.assert_close(values[:3].double(), exact[:3], rtol=1e-5, atol=0)
    assert float((values - exact).abs().max()) < torch.finfo(torch.float32).eps * N**0.5 * float(exact[0])


@pytest.mark.parametrize("N", [64, 600])
def test_zero(N):
    assert torch.equal(leading_singular_values(torch.zeros(N, N), 9), torch.zeros(9))


def test_equal_matrices_give_equal_answers():
    matrix = gaussian(600, 600, dtype=torch.float32)
    torch.manual_seed(1)
    first = leading_singular_values(matrix, 10)
    torch.manual_seed(2)
    assert torch.equal(first, leading_singular_values(matrix.clone(), 10))


@pytest.mark.parametrize(
    ("matrix", "count", "message"),
    [
        (torch.ones(3), 1, r"matrix must have two dimensions, got shape \(3,\)"),
        (torch.ones(2, 3, 3), 1, r"matrix must have two dimensions, got shape \(2, 3, 3\)"),
        (torch.ones(3, 3), 0, "count must be a whole number >= 1, got 0"),
        (torch.ones(3, 3), 1.5, "count must be a whole number >= 1, got 1.5"),
    ],
)
def test_refused(matrix, count, message):
    with pytest.raises(InputError, match=message):
        leading_singular_values(matrix, count)
