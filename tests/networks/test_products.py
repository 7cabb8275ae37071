"""All means give the product that matmul gives, and the choice among them depends on known facts only."""

import pytest
import torch

from rankscope.networks import native, products

have_onednn = hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def randn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_close(ours, exact):
    atol = 3e-4 if ours.dtype == torch.float32 else 1e-11
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=atol)


@dtypes
@pytest.mark.parametrize(("rows", "units_in", "units_out"), [(1, 1, 1), (3, 7, 5), (5, 10, 64), (32, 256, 256)])
def test_affine(means, dtype, rows, units_in, units_out):
    weight = randn(units_out, units_in, dtype=dtype)
    step = products.affine(weight, rows)
    for seed in range(1, 4):  # the same weight serves many calls
        x, addend, state = (randn(rows, n, dtype=dtype, seed=seed) for n in (units_in, units_out, units_out))
        kept, product = [x.clone(), addend.clone(), state.clone()], x.double() @ weight.double().t()
        without_leak, with_leak = addend + product, addend + 0.3 * state.double() + product

        out = torch.full_like(addend, float("nan"))
        assert step(x, addend, state, 0.3, out=out).data_ptr() == out.data_ptr()
        assert_close(out, with_leak)
        assert step(x, addend, out=out).data_ptr() == out.data_ptr()
        assert_close(out, without_leak)
        assert all(torch.equal(*pair) for pair in zip(kept, (x, addend, state), strict=True))

        into_state, into_addend = state.clone(), addend.clone()
        assert step(x, addend, into_state, 0.3, out=into_state) is into_state
        assert_close(into_state, with_leak)
        assert step(x, into_addend, state, 0.3).data_ptr() == into_addend.data_ptr()
        assert_close(into_addend, with_leak)
        into_addend = addend.clone()
        assert step(x, into_addend).data_ptr() == into_addend.data_ptr()
        assert_close(into_addend, without_leak)
        assert all(torch.equal(*pair) for pair in zip(kept, (x, addend, state), strict=True))


def test_affine_by_a_transposed_matrix(means):
    weight = randn(64, 128).t()
    x, addend = randn(3, 64, seed=1), randn(3, 128, seed=2)
    wanted = addend + x.double() @ weight.double().t()
    assert_close(products.affine(weight, 3)(x, addend), wanted)


def test_affine_takes_other_numbers_of_rows_than_announced(means):
    weight = randn(64, 64)
    step = products.affine(weight, 256)
    for rows in (1, 44, 300):
        x, addend = randn(rows, 64, seed=1), randn(rows, 64, seed=2)
        wanted = addend + x.double() @ weight.double().t()
        assert_close(step(x, addend), wanted)


@dtypes
@pytest.mark.parametrize(("rows", "a", "b"), [(1, 1, 1), (50, 3, 8), (100, 64, 64), (64, 64, 96), (640, 256, 256)])
@pytest.mark.parametrize("channels", [(1, 2), (15, 8)])
def test_grams(means, dtype, rows, a, b, channels):
    left, right = randn(rows, a, dtype=dtype, seed=1), randn(rows, b, dtype=dtype, seed=2)
    few = [randn(rows, count, dtype=dtype, seed=3) for count in channels]
    given = (left, right, *few)
    kept = [x.clone() for x in given]
    into = torch.full((a, b), float("nan"), dtype=dtype)
    for got in (products.grams(*given), products.grams(*given, into)):
        assert got.between.dtype == dtype
        assert_close(got.between, left.double().t() @ right.double())
        assert_close(got.beside_left, few[0].double().t() @ left.double())
        assert_close(got.beside_right, few[1].double().t() @ right.double())
    assert got.between.data_ptr() == into.data_ptr()
    assert all(torch.equal(x, before) for x, before in zip(given, kept, strict=True))


def test_our_kernels_are_chosen_by_type_place_size_and_threads(monkeypatch):
    fits = products._native_fits
    monkeypatch.setattr(native, "supports", lambda columns: columns % 32 == 0)
    assert fits(randn(2, 2), 64)
    assert not fits(randn(2, 2), 65)
    assert not fits(randn(2, 2, dtype=torch.float64), 64)
    assert not fits(torch.empty(2, 2, device="meta"), 64)
    largest = products.LARGEST_NATIVE_WITH_THREADS
    assert fits(randn(2, 2), 2 * largest)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not fits(randn(2, 2), 2 * largest)
    assert fits(randn(2, 2), largest)


def test_our_kernels_are_used_where_they_fit():
    if native.compiled() is None:
        pytest.skip("our kernels cannot be compiled here")
    assert isinstance(products.affine(randn(64, 64), 5), native.AffineKernel)
    assert not isinstance(products.affine(randn(64, 64, dtype=torch.float64), 5), native.AffineKernel)


@pytest.mark.parametrize(("size", "times"), [(64, 1), (products.LARGEST_NATIVE_GRAM * 2, 0)])
def test_a_large_gradient_is_left_to_the_libraries(size, times, monkeypatch):
    if native.compiled() is None:
        pytest.skip("our kernels cannot be compiled here")
    calls, accumulate = [], native.accumulate
    monkeypatch.setattr(native, "accumulate", lambda *arguments: calls.append(accumulate(*arguments)))
    products.grams(randn(3, size), randn(3, size), randn(3, 1), randn(3, 2))
    assert len(calls) == times


def test_onednn_is_chosen_by_size_type_and_processor(monkeypatch):
    chosen, small = products._onednn_is_faster, products.SMALLEST_ONEDNN_PRODUCT
    monkeypatch.setattr(products, "_onednn_beats_mkl", lambda: True)
    assert chosen(randn(2, 2), small)
    assert not chosen(randn(2, 2), small - 1)
    assert not chosen(randn(2, 2, dtype=torch.float64), small)
    assert not chosen(torch.empty(2, 2, device="meta"), small)
    monkeypatch.setattr(products, "_onednn_beats_mkl", lambda: False)
    assert not chosen(randn(2, 2), small)


@pytest.mark.parametrize(
    ("vendor", "capability", "faster"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        ("", "AVX512", False),  # nothing known: stay with what torch does by itself
    ],
)
def test_the_processor_decides(vendor, capability, faster, monkeypatch):
    if not have_onednn:
        pytest.skip("this torch has no oneDNN operators")
    monkeypatch.setattr(products, "_cpu_vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert products._onednn_beats_mkl.__wrapped__() is faster


def test_a_machine_that_does_not_say_its_vendor(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(products.Path, "read_text", missing)
    assert products._cpu_vendor() == ""
    monkeypatch.setattr(products.Path, "read_text", lambda path: "processor : 0\nvendor_id\t: AuthenticAMD\n")
    assert products._cpu_vendor() == "AuthenticAMD"
    monkeypatch.setattr(products.Path, "read_text", lambda path: "processor : 0\n")
    assert products._cpu_vendor() == ""
