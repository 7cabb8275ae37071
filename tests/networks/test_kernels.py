"""Our compiled kernels: every tile that this processor can run, every way in which tiles can fail to fit."""

import functools

import pytest
import torch

from rankscope.networks.kernels import build
from rankscope.networks.nonlinearities import NONLINEARITIES

if build.compiled() is None:
    pytest.skip("our kernels cannot be compiled here", allow_module_level=True)

TILES = [
    build.compiled().tile,
    # narrower vectors than the processor has are no obstacle, and how AVX2 and NEON are tested on a larger one
    *(tile for tile in (build.Tile(4, 2, 8), build.Tile(8, 2, 4)) if tile.lanes <= build.compiled().tile.lanes),
]
compiled = functools.cache(build.compile_kernels)


@pytest.fixture(params=TILES, ids=lambda tile: f"{tile.rows}x{tile.columns}")
def tile(request, monkeypatch):
    kernels = compiled(request.param)
    monkeypatch.setattr(build, "compiled", lambda: kernels)
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
    step = build.AffineKernel(weight)
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
@pytest.mark.parametrize("depth", [1, 47, 48, 49, 100])  # around the number of rows taken at once
def test_accumulate(tile, size, depth):
    left, right = randn(depth, size[0] * tile.rows, seed=1), randn(depth, size[1] * tile.columns, seed=2)
    before = randn(left.shape[1], right.shape[1], seed=3)
    total, untouched_around = inside(before)
    build.accumulate(total, left, right)
    torch.testing.assert_close(total.double(), before + left.double().t() @ right.double(), rtol=0, atol=5e-5)
    assert untouched_around()


@pytest.mark.parametrize("count", [1, 2, 7, 11])
@pytest.mark.parametrize("depth", [1, 47, 48, 100])
def test_accumulate_what_is_beside(tile, count, depth):
    N = 2 * max(tile.columns, tile.rows)
    sides = [randn(depth, N, seed=1), randn(depth, N, seed=2)]
    channels = [randn(depth, count, seed=4), randn(depth, 1, seed=5)]
    before = [randn(N, N, seed=3), *(randn(few.shape[1], N, seed=6) for few in channels)]
    (total, whole), *few = [inside(x) for x in before]
    beside = [build.Beside(u, into) for u, (into, _) in zip(channels, few, strict=True)]
    build.accumulate(total, *sides, *beside)
    wanted = [(sides[0], sides[1]), *zip(channels, sides, strict=True)]
    for got, start, (left, right) in zip((total, few[0][0], few[1][0]), before, wanted, strict=True):
        torch.testing.assert_close(got.double(), start + left.double().t() @ right.double(), rtol=0, atol=5e-5)
    assert all(untouched_around() for untouched_around in (whole, few[0][1], few[1][1]))


def test_the_weights_are_packed_at_once(tile):
    weight = randn(tile.columns, 5)
    step, x, addend = build.AffineKernel(weight), randn(2, 5, seed=1), torch.zeros(2, tile.columns)
    before = step(x, addend.clone())
    weight.zero_()
    assert torch.equal(step(x, addend.clone()), before)


def test_a_trial_does_not_depend_on_the_others(tile):
    # whichever tile height a row falls into, its sum runs in the same order
    step, x = build.AffineKernel(randn(tile.columns, 50)), randn(2 * tile.rows, 50, seed=1)
    together = step(x, torch.zeros(len(x), tile.columns))
    alone = torch.cat([step(row[None].clone(), torch.zeros(1, tile.columns)) for row in x])
    assert torch.equal(together, alone)


def test_only_whole_tiles_are_supported(tile):
    assert build.supports(tile.columns)
    assert build.supports(8 * tile.columns)
    assert not build.supports(tile.columns + 1)
    assert not build.supports(tile.columns // 2)


def test_a_processor_gets_the_tile_of_its_registers():
    assert build.tile_for({"avx512f": True, "avx2": True, "fma": True}).lanes == 16
    assert build.tile_for({"avx512f": False, "avx2": True, "fma": True}).lanes == 8
    assert build.tile_for({"neon": True}).lanes == 4
    assert build.tile_for({"avx2": True}) is None  # without fused multiply-add it does not pay
    assert build.tile_for({}) is None


def test_without_a_compiler_or_wide_registers_there_are_no_kernels(monkeypatch):
    monkeypatch.setattr(build, "tile_for", lambda features: None)
    assert build.compiled.__wrapped__() is None
    monkeypatch.setattr(build, "llvm", None)
    assert build.compiled.__wrapped__() is None
    monkeypatch.setattr(build, "compiled", lambda: None)
    assert not build.supports(64)


@pytest.mark.parametrize("slope", build.SLOPES)
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize(("rows", "channels"), [(1, 1), (11, 3)])
def test_walk_back_is_the_adjoint_step_by_step(tile, slope, steps, rows, channels):
    N = 2 * tile.columns
    weight, hearing, phi = randn(N, N) / N, randn(N, channels, seed=4), NONLINEARITIES[slope]
    delta, rates = randn(steps, rows, N, seed=1), torch.tanh(randn(steps, rows, N, seed=2))
    u = randn(steps, rows, channels, seed=3)
    expected = delta.double()
    for t in range(steps - 2, -1, -1):
        later = expected[t + 1]
        incoming = u[t].double() @ hearing.double().t() + later @ weight.double().t()
        sloped = torch.empty_like(later)
        phi.backward_into(incoming, rates[t].double(), sloped)
        expected[t] = sloped + 0.3 * later
    got, untouched_around = inside(delta)
    build.DrivenKernel(weight, hearing).walk_back(slope, got, u, rates, 0.3)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=5e-6)
    assert untouched_around()


@pytest.mark.parametrize(("rows", "channels"), [(3, 1), (11, 4)])
def test_walk_forward_goes_through_the_steps_in_order_and_reads_out(tile, rows, channels):
    steps, N = 4, 2 * tile.columns
    weight, hearing, readout = randn(N, N) / N, randn(N, channels, seed=4), randn(channels + 1, N, seed=5)
    x, u = torch.full((steps + 1, rows, N), float("nan")), randn(steps, rows, channels, seed=2)
    x[0] = randn(rows, N, seed=1)
    state = randn(rows, N, seed=3)
    seen = []

    def after(t):
        seen.append(t)
        x[t + 1] = 2 * got[t]  # what a step finds depends on the one before

    got, untouched_around = inside(torch.full((steps, rows, N), float("nan")))
    # steps before the first one are there, and are left alone
    said, untouched_around_said = inside(torch.full((rows, 2 + steps, channels + 1), 7.0))
    build.DrivenKernel(weight, hearing).walk_forward(x, u, got, state, 0.5, after, readout, said[:, 2:])
    h, r = state.double(), x[0].double()
    expected = []
    for t in range(steps):
        h = 0.5 * h + u[t].double() @ hearing.double().t() + r @ weight.double().t()
        expected.append(h)
        r = 2 * h
    assert seen == list(range(steps))
    states = torch.stack(expected)
    torch.testing.assert_close(got.double(), states, rtol=0, atol=2e-5)
    wanted = (2 * states @ readout.double().t()).transpose(0, 1)
    torch.testing.assert_close(said[:, 2:].double(), wanted, rtol=2e-6, atol=2e-4)
    assert bool((said[:, :2] == 7).all())
    assert untouched_around()
    assert untouched_around_said()
