"""All implementations give the product that matmul gives, and the choice among them depends on fixed facts only."""

import pytest
import torch

from rankscope.networks.kernels import build, dispatch

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def randn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_close(ours, exact):
    atol = 3e-4 if ours.dtype == torch.float32 else 1e-11
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=atol)


@dtypes
@pytest.mark.parametrize(("rows", "units_in", "units_out"), [(1, 1, 1), (5, 10, 64), (32, 256, 256)])
def test_affine(implementation, dtype, rows, units_in, units_out):
    weight = randn(units_out, units_in, dtype=dtype)
    step = dispatch.affine(weight, 7, 0.5)  # called with another number of rows than announced
    x, addend, state = (randn(rows, n, dtype=dtype, seed=n) for n in (units_in, units_out, units_out))
    kept, product = [x.clone(), addend.clone(), state.clone()], 0.5 * x.double() @ weight.double().t()
    out = torch.full_like(addend, float("nan"))
    assert step(x, addend, state, 0.3, out=out).data_ptr() == out.data_ptr()
    assert_close(out, addend + 0.3 * state.double() + product)
    assert_close(step(x, addend, out=out), addend + product)
    assert all(torch.equal(*pair) for pair in zip(kept, (x, addend, state), strict=True))
    assert step(x, addend, state.clone(), 0.3).data_ptr() == addend.data_ptr()
    assert_close(addend, kept[1] + 0.3 * state.double() + product)
    assert step(x, kept[1], state, 0.3, out=state) is state
    assert_close(state, addend.double())


def test_affine_by_a_transposed_matrix(implementation):
    weight = randn(64, 128).t()
    x, addend = randn(3, 64, seed=1), randn(3, 128, seed=2)
    expected = addend + x.double() @ weight.double().t()
    assert_close(dispatch.affine(weight, 3)(x, addend), expected)


@dtypes
@pytest.mark.parametrize(("rows", "a", "b"), [(1, 1, 1), (50, 3, 8), (64, 64, 96), (640, 256, 256)])
@pytest.mark.parametrize("channels", [(1, 2), (15, 8)])
def test_grams(implementation, dtype, rows, a, b, channels):
    left, right = randn(rows, a, dtype=dtype, seed=1), randn(rows, b, dtype=dtype, seed=2)
    extra = [randn(rows, count, dtype=dtype, seed=3) for count in channels]
    into = torch.full((a, b), float("nan"), dtype=dtype)
    for got in (dispatch.grams(left, right, *extra), dispatch.grams(left, right, *extra, into)):
        assert_close(got.product, left.double().t() @ right.double())
        assert_close(got.extra_left, extra[0].double().t() @ left.double())
        assert_close(got.extra_right, extra[1].double().t() @ right.double())
    assert got.product.data_ptr() == into.data_ptr()


def test_the_choice_depends_on_dtype_device_size_and_threads(monkeypatch):
    monkeypatch.setattr(build, "supports", lambda columns: columns % 32 == 0)
    monkeypatch.setattr(dispatch, "onednn_beats_mkl", lambda: True)
    small, largest = dispatch.SMALLEST_ONEDNN_PRODUCT, dispatch.LARGEST_NATIVE_WITH_THREADS
    assert dispatch.native_fits(randn(2, 2), 64)
    assert not dispatch.native_fits(randn(2, 2), 65)
    assert dispatch.onednn_is_faster(randn(2, 2), small)
    assert not dispatch.onednn_is_faster(randn(2, 2), small - 1)
    for other in (randn(2, 2, dtype=torch.float64), torch.empty(2, 2, device="meta")):
        assert not dispatch.native_fits(other, 64)
        assert not dispatch.onednn_is_faster(other, small)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert dispatch.native_fits(randn(2, 2), 2 * largest)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not dispatch.native_fits(randn(2, 2), 2 * largest)
    assert dispatch.native_fits(randn(2, 2), largest)
