"""Our compiled kernels: every tile that this processor can run, every way in which tiles can fail to fit."""

import functools

import pytest
import torch

from rankscope.networks import native
from rankscope.networks.nonlinearities import NONLINEARITIES

if native.compiled() is None:
    pytest.skip("our kernels cannot be compiled here", allow_module_level=True)

TILES = [
    native.compiled().tile,
    # narrower vectors than the processor has are no obstacle, and how AVX2 and NEON are tested on a larger one
    *(tile for tile in (native.Tile(4, 2, 8), native.Tile(8, 2, 4)) if tile.lanes <= native.compiled().tile.lanes),
]
compiled = functools.cache(native.compile_kernels)


@pytest.fixture(params=TILES, ids=lambda tile: f"{tile.rows}x{tile.columns}")
def tile(request, monkeypatch):
    kernels = compiled(request.param)
    monkeypatch.setattr(native, "compiled", lambda: kernels)
    return request.param


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inside(matrix):
    """The same matrix with a margin around it in memory, and a function that says whether the margin is whole."""
    memory = torch.full((matrix.numel() + 128,), 7.0)
    memory[64:-64] = matrix.flatten()
    return memory[64:-64].view(matrix.shape), lambda: bool((memory[:64] == 7).all() and (memory[-64:] == 7).all())


@pytest.mark.parametrize("panels", [1, 3])
@pytest.mark.parametrize("depth", [1, 2, 37])
def test_affine_with_any_number_of_rows(tile, panels, depth):
    weight = randn(panels * tile.columns, depth)
    step = native.AffineKernel(weight)
    for rows in range(1, 2 * tile.rows + 2):
        x, addend, state = (
            randn(rows, depth, seed=1),
            randn(rows, len(weight), seed=2),
            randn(rows, len(weight), seed=3),
        )
        product = x.double() @ weight.double().t()
        out, untouched_around = inside(torch.full_like(addend, float("nan")))
        step(x, addend, state, -0.25, out=out)
        torch.testing.assert_close(out.double(), addend - 0.25 * state.double() + product, rtol=0, atol=2e-5)
        step(x, addend, out=out)
        torch.testing.assert_close(out.double(), addend + product, rtol=0, atol=2e-5)
        assert untouched_around()


@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
@pytest.mark.parametrize("depth", [1, 31, 32, 33, 100])  # around the number of rows taken at once
def test_accumulate(tile, size, depth):
    left, right = randn(depth, size[0] * tile.rows, seed=1), randn(depth, size[1] * tile.columns, seed=2)
    before = randn(left.shape[1], right.shape[1], seed=3)
    total, untouched_around = inside(before)
    native.accumulate(total, left, right)
    torch.testing.assert_close(total.double(), before + left.double().t() @ right.double(), rtol=0, atol=5e-5)
    assert untouched_around()


def test_the_weights_are_packed_at_once(tile):
    weight = randn(tile.columns, 5)
    step, x, addend = native.AffineKernel(weight), randn(2, 5, seed=1), torch.zeros(2, tile.columns)
    before = step(x, addend.clone())
    weight.zero_()
    assert torch.equal(step(x, addend.clone()), before)


def test_a_trial_does_not_depend_on_the_others(tile):
    # whichever tile height a row falls into, its sum runs in the same order
    step, x = native.AffineKernel(randn(tile.columns, 50)), randn(2 * tile.rows, 50, seed=1)
    together = step(x, torch.zeros(len(x), tile.columns))
    alone = torch.cat([step(row[None].clone(), torch.zeros(1, tile.columns)) for row in x])
    assert torch.equal(together, alone)


def test_only_whole_tiles_are_supported(tile):
    assert native.supports(tile.columns)
    assert native.supports(8 * tile.columns)
    assert not native.supports(tile.columns + 1)
    assert not native.supports(tile.columns // 2)


def test_a_processor_gets_the_tile_of_its_registers():
    assert native.tile_for({"avx512f": True, "avx2": True, "fma": True}).lanes == 16
    assert native.tile_for({"avx512f": False, "avx2": True, "fma": True}).lanes == 8
    assert native.tile_for({"neon": True}).lanes == 4
    assert native.tile_for({"avx2": True}) is None  # without fused multiply-add it does not pay
    assert native.tile_for({}) is None


def test_without_a_compiler_or_wide_registers_there_are_no_kernels(monkeypatch):
    monkeypatch.setattr(native, "tile_for", lambda features: None)
    assert native.compiled.__wrapped__() is None
    monkeypatch.setattr(native, "llvm", None)
    assert native.compiled.__wrapped__() is None
    monkeypatch.setattr(native, "compiled", lambda: None)
    assert not native.supports(64)


@pytest.mark.parametrize("slope", native.SLOPES)
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("rows", [1, 11])
def test_walk_back_is_the_adjoint_step_by_step(tile, slope, steps, rows):
    N = 2 * tile.columns
    weight, phi = randn(N, N) / N, NONLINEARITIES[slope]
    delta, rates = randn(steps, rows, N, seed=1), torch.tanh(randn(steps, rows, N, seed=2))
    expected = delta.double()
    for t in range(steps - 2, -1, -1):
        later = expected[t + 1]
        sloped = torch.empty_like(later)
        phi.backward_into(expected[t] + later @ weight.double().t(), rates[t].double(), sloped)
        expected[t] = sloped + 0.3 * later
    got, untouched_around = inside(delta)
    native.AffineKernel(weight).walk_back(slope, got, rates, 0.3)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-6)
    assert untouched_around()


def test_walk_forward_goes_through_the_steps_in_order(tile):
    steps, rows, N, K = 4, 3, tile.columns, 5
    weight, x = randn(N, K), torch.zeros(steps, rows, K)
    x[0] = randn(rows, K, seed=1)
    addend, state = randn(steps, rows, N, seed=2), randn(rows, N, seed=3)
    expected, h = addend.double(), state.double()
    seen = []

    def after(t):
        seen.append(t)
        if t + 1 < steps:
            x[t + 1] = got[t, :, :K]  # what a step finds may depend on the one before

    got, untouched_around = inside(addend)
    native.AffineKernel(weight).walk_forward(x, got, state, 0.5, after)
    r = x[0].double()
    for t in range(steps):
        h = expected[t] + 0.5 * h + r @ weight.double().t()
        expected[t], r = h, h[:, :K]
    assert seen == list(range(steps))
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-5)
    assert untouched_around()
