"""Compiled kernels: every tile that this processor can run, and every way in which tiles can fail to fit."""

import functools

import numpy as np
import pytest
import torch

from rankscope.networks import gated_layer
from rankscope.networks.cells import CELLS, STACKED
from rankscope.networks.gates import GATES
from rankscope.networks.kernels import build
from rankscope.networks.kernels.gated_loop import arrays_of
from rankscope.networks.kernels.tile import COMPILED
from rankscope.networks.nonlinearities import NONLINEARITIES

if build.compiled() is None:
    pytest.skip("the kernels cannot be compiled here", allow_module_level=True)

TILES = [
    build.compiled().tile,
    # Narrower vectors run on every processor, so that the tiles of AVX2 and NEON are tested on a larger one.
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


def guarded(matrix):
    """The same matrix with a margin around it in memory, and a function that tells whether the margin is unchanged."""
    memory = torch.full((matrix.numel() + 128,), 7.0)
    memory[64:-64] = matrix.flatten()
    return memory[64:-64].view(matrix.shape), lambda: bool((memory[:64] == 7).all() and (memory[-64:] == 7).all())


@pytest.mark.parametrize("panels", [1, 3])
@pytest.mark.parametrize("depth", [1, 37])
def test_affine_with_any_number_of_rows(tile, panels, depth):
    weight = randn(panels * tile.columns, depth)
    step = build.AffineKernel(weight, 0.5)
    for rows in range(1, 2 * tile.rows + 2):
        x, addend, state = randn(rows, depth, seed=1), randn(rows, len(weight), seed=2), randn(rows, len(weight))
        product = 0.5 * x.double() @ weight.double().t()
        out, unchanged = guarded(torch.full_like(addend, float("nan")))
        step(x, addend, state, -0.25, out=out)
        torch.testing.assert_close(out.double(), addend - 0.25 * state.double() + product, rtol=0, atol=2e-5)
        step(x, addend, out=out)
        torch.testing.assert_close(out.double(), addend + product, rtol=0, atol=2e-5)
        assert unchanged()


@pytest.mark.parametrize("count", [1, 11])
@pytest.mark.parametrize("depth", [1, 47, 48, 49, 100])  # around the rows of a slice
def test_accumulate(tile, count, depth):
    N = 2 * max(tile.columns, tile.rows)
    sides = [randn(depth, N, seed=1), randn(depth, N, seed=2)]
    channels = [randn(depth, count, seed=4), randn(depth, 1, seed=5)]
    starts = [randn(N, N, seed=3), *(randn(u.shape[1], N, seed=6) for u in channels)]
    (total, whole), *extra = [guarded(x) for x in starts]
    build.accumulate(total, *sides, *(build.Extra(u, into) for u, (into, _) in zip(channels, extra, strict=True)))
    factors = [(sides[0], sides[1]), *zip(channels, sides, strict=True)]
    for got, start, (left, right) in zip((total, extra[0][0], extra[1][0]), starts, factors, strict=True):
        torch.testing.assert_close(got.double(), start + left.double().t() @ right.double(), rtol=0, atol=5e-5)
    assert all(unchanged() for unchanged in (whole, extra[0][1], extra[1][1]))


def test_weights_are_packed_at_once(tile):
    weight = randn(tile.columns, 5)
    step, x, addend = build.AffineKernel(weight), randn(2, 5, seed=1), torch.zeros(2, tile.columns)
    before = step(x, addend.clone())
    weight.zero_()
    assert torch.equal(step(x, addend.clone()), before)


def test_a_trial_does_not_depend_on_the_others(tile):
    # In a tile of any height the sum of a row has the same order.
    step, x = build.AffineKernel(randn(tile.columns, 50)), randn(2 * tile.rows, 50, seed=1)
    together = step(x, torch.zeros(len(x), tile.columns))
    alone = torch.cat([step(row[None].clone(), torch.zeros(1, tile.columns)) for row in x])
    assert torch.equal(together, alone)


def test_only_whole_tiles_are_supported(tile):
    assert build.supports(tile.columns)
    assert build.supports(8 * tile.columns)
    assert not build.supports(tile.columns + 1)
    assert not build.supports(tile.columns // 2)


def test_there_are_no_kernels_without_a_compiler_or_wide_registers(monkeypatch):
    assert build.tile_for({"avx2": True}) is None  # without fused multiply-add they do not pay
    monkeypatch.setattr(build, "tile_for", lambda features: None)
    assert build.compiled.__wrapped__() is None
    monkeypatch.setattr(build, "llvm", None)
    assert build.compiled.__wrapped__() is None
    monkeypatch.setattr(build, "compiled", lambda: None)
    assert not build.supports(64)


@pytest.mark.parametrize("phi", COMPILED)
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize(("rows", "channels"), [(1, 1), (11, 3)])
def test_the_adjoint_loop_step_by_step(tile, phi, steps, rows, channels):
    N = 2 * tile.columns
    W, V = randn(N, N) / N, randn(N, channels, seed=4)
    delta, rates = randn(steps, rows, N, seed=1), torch.tanh(randn(steps, rows, N, seed=2))
    u = randn(steps, rows, channels, seed=3)
    expected = delta.double()
    for t in range(steps - 2, -1, -1):
        later = expected[t + 1]
        sloped = torch.empty_like(later)
        incoming = u[t].double() @ V.double().t() + later @ W.double().t()
        NONLINEARITIES[phi].backward_into(incoming, rates[t].double(), sloped)
        expected[t] = sloped + 0.3 * later
    got, unchanged = guarded(delta)
    build.TimeLoopKernel(W, V).adjoint(phi, got, u, rates, 0.3)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=5e-6)
    assert unchanged()


@pytest.mark.parametrize("phi", COMPILED)
@pytest.mark.parametrize(("rows", "channels"), [(3, 1), (11, 4)])
@pytest.mark.parametrize("kept", [True, False])
def test_the_forward_loop_step_by_step(tile, phi, rows, channels, kept):
    steps, N = 5, 2 * tile.columns
    W, V, R = randn(N, N) / N**0.5, randn(N, channels, seed=4), randn(channels + 1, N, seed=5)
    u, initial, x0 = randn(steps, rows, channels, seed=2), randn(rows, N, seed=3), randn(rows, N, seed=1)
    h, x, outputs, states = initial.double(), x0.double(), [], []
    for t in range(steps):
        h = 0.5 * h + u[t].double() @ V.double().t() * 0.3 + x @ W.double().t() * 0.2
        x = NONLINEARITIES[phi](h)
        states.append(h)
        outputs.append(x @ R.double().t())
    got, states_unchanged = guarded(torch.full((steps if kept else 1, rows, N), float("nan")))
    rates, rates_unchanged = guarded(torch.full((steps + 1 if kept else 2, rows, N), float("nan")))
    rates[0] = x0
    out, out_unchanged = guarded(torch.full((rows, 2 + steps, channels + 1), 7.0))
    build.TimeLoopKernel(W, V, 0.2, 0.3).forward(phi, u, initial, got, rates, 0.5, R, out[:, 2:])
    torch.testing.assert_close(got.double(), torch.stack(states)[-len(got) :], rtol=0, atol=2e-5)
    torch.testing.assert_close(rates[steps if kept else steps % 2].double(), x, rtol=0, atol=2e-5)
    torch.testing.assert_close(out[:, 2:].double(), torch.stack(outputs, 1), rtol=2e-6, atol=2e-4)
    assert bool((out[:, :2] == 7).all())
    assert states_unchanged()
    assert rates_unchanged()
    assert out_unchanged()


def compiled_rates(phi, x):
    """phi by the forward loop: h = 0 leak + x I."""
    N = build.compiled().tile.columns
    x = torch.from_numpy(np.resize(x, (-(-len(x) // N), N)).astype(np.float32))
    rates = torch.zeros(2, *x.shape)
    kernel = build.TimeLoopKernel(torch.zeros(N, N), torch.eye(N))
    # One channel per unit.
    kernel.forward(phi, x[None].contiguous(), torch.zeros_like(x), torch.empty(1, *x.shape), rates, 0.0,
                   torch.zeros(1, N), torch.empty(len(x), 1, 1))  # fmt: skip
    return rates[1].flatten().numpy()


@pytest.mark.parametrize("cell", list(CELLS))
def test_gated_loops_step_by_step(tile, cell):
    kind, _, direction = cell.partition("_")
    sizes, units = [5, 5, 3, 1], 3 * tile.columns
    gates = len(GATES[kind])
    arrays = {}
    for number, name in enumerate(arrays_of(cell)):
        rows = sizes[0] if name.startswith("initial") or name == "carried" else sum(sizes)
        drawn = randn(rows, (gates if name in STACKED else 1) * units, seed=number)
        arrays[name] = drawn.sigmoid() if direction == "backward" else drawn  # the range of gates
    weight = 0.1 * randn(gates * units, units)
    weight = weight if direction == "forward" else weight.t()
    expected = {name: array.double() for name, array in arrays.items()}
    kept = {name: guarded(array) for name, array in arrays.items()}
    gated_layer.run_steps(cell, sizes, weight.double(), expected)
    build.GatedLoopKernel(cell, weight).run(torch.tensor(sizes), {name: array for name, (array, _) in kept.items()})
    for name, (array, unchanged) in kept.items():
        torch.testing.assert_close(array.double(), expected[name], rtol=1e-5, atol=1e-5)
        assert unchanged()


def test_tanh_is_accurate_to_a_few_units_in_the_last_place(tile):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-12, 12, 200_000), rng.normal(size=200_000), 10 ** rng.uniform(-37, 38, 100_000)])
    x = x.astype(np.float32)[: len(x) // tile.columns * tile.columns]
    exact = np.tanh(x.astype(np.float64))
    got = compiled_rates("tanh", x)
    units = np.abs(got - exact) / np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    assert units.max() < 6
    assert units.mean() < 0.7
    assert np.abs(got).max() <= 1
    assert np.array_equal(compiled_rates("tanh", -x), -got)


@pytest.mark.parametrize("phi", COMPILED)
def test_nonlinearities_at_special_values(tile, phi):
    x = np.array([0, np.inf, -np.inf, np.nan, 1e-45, -1e-38, 3e38, -3e38, 10, -10], np.float32)
    for value in x:  # one at a time: in the sum over channels 0 * inf would be NaN
        kernel, N = (
            build.TimeLoopKernel(torch.zeros(tile.columns, tile.columns), torch.zeros(tile.columns, 1)),
            tile.columns,
        )
        rates, initial = torch.zeros(2, 1, N), torch.full((1, N), float(value))
        kernel.forward(phi, torch.zeros(1, 1, 1), initial, torch.empty(1, 1, N), rates, 1.0, torch.zeros(1, N),
                       torch.empty(1, 1, 1))  # fmt: skip
        expected = NONLINEARITIES[phi](torch.tensor(value))
        torch.testing.assert_close(rates[1, 0, 0], expected, rtol=0, atol=0, equal_nan=True)
