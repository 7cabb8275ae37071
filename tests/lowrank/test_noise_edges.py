"""Ranks and noise levels of a change: by their definitions, of random matrices, and with bounds that hold."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.lowrank import change, noise_edges
from rankscope.lowrank.noise_edges import Spectrum, measure, measures_of

spectra = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30).map(lambda s: np.sort(s)[::-1])


def low_rank(rows, columns, rank, scale=1.0):
    """Return a matrix of that rank whose singular values are all `scale`."""
    generator = torch.Generator().manual_seed(0)
    U, V = (
        torch.linalg.qr(torch.randn(size, rank, generator=generator, dtype=torch.float64)).Q for size in (rows, columns)
    )
    return scale * U @ V.t()


def measured(W0, W):
    return measure(change(W0, W))


def alone(dW, exact=False):
    """Measure a change from zero."""
    return measure(change(torch.zeros_like(dW), dW), exact)


def complete(s, shape):
    return Spectrum(shape, s, True, float(np.sum(s**2)), 0.0, "exact")


@settings(max_examples=60, deadline=None)
@given(s=spectra, more=st.integers(0, 9))
def test_ranks_are_what_their_definitions_say(s, more):
    shape = (len(s), len(s) + more)
    found = measures_of(complete(s, shape), rounding=0.0)
    s2 = s**2
    for percent in (90, 95, 99):
        rank = getattr(found, f"rank_{percent}")
        assert s2[:rank].sum() >= percent / 100 * s2.sum() * (1 - 1e-9)
        assert s2[: rank - 1].sum() < percent / 100 * s2.sum()
    assert found.stable_rank == pytest.approx(s2.sum() / s2[0])
    assert found.norm == pytest.approx(math.sqrt(s2.sum()))
    assert found.numerical_rank == len(s)
    edge = found.norm / math.sqrt(shape[0]) + found.norm / math.sqrt(shape[1])
    assert found.random_edge == pytest.approx(edge)
    assert found.above_random_edge == np.sum(s > edge)


@settings(max_examples=80, deadline=None)
@given(s=spectra.filter(lambda s: len(s) > 1), share=st.floats(0, 1), more=st.integers(0, 9))
def test_what_the_leading_values_leave_open_lies_within_the_bounds(s, share, more):
    seen = 1 + int(share * (len(s) - 2))
    shape = (len(s), len(s) + more)
    whole = measures_of(complete(s, shape), rounding=1e-2)
    part = measures_of(Spectrum(shape, s[:seen], False, float(np.sum(s**2)), 0.0, "randomized"), rounding=1e-2)
    for percent in (90, 95, 99):
        least, most = getattr(part, f"rank_{percent}_bounds")
        assert least <= getattr(whole, f"rank_{percent}") <= most
        assert getattr(part, f"rank_{percent}") == (least if least == most else None)
    least, most = part.numerical_rank_bounds
    assert least <= whole.numerical_rank <= most


@pytest.mark.parametrize("shape", [(200, 200), (300, 60), (40, 400)])
def test_of_a_random_change_nothing_stands_out_and_the_edge_is_where_its_values_end(shape):
    counts, ratios = [], []
    for seed in range(40):
        dW = torch.randn(*shape, generator=torch.manual_seed(seed), dtype=torch.float64)
        found = alone(dW)
        counts.append(found.standing_out)
        ratios.append(found.singular_values[0] / found.random_edge)
    assert np.mean(np.array(counts) > 0) <= 0.1  # 1 % is meant
    assert np.mean(ratios) == pytest.approx(0.99, abs=0.015)


@pytest.mark.parametrize("rank", [1, 3, 10])
def test_directions_in_noise_are_counted_however_strong(rank):
    noise = torch.randn(150, 100, generator=torch.manual_seed(rank), dtype=torch.float64)
    for strength in (60.0, 1e4):  # the edge of the noise is at 22
        dW = noise + low_rank(150, 100, rank, scale=strength)
        found = alone(dW)
        assert found.standing_out == rank
        # Orthogonal to the directions the noise has fewer rows and columns.
        assert found.noise_edge == pytest.approx(math.sqrt(150 - rank) + math.sqrt(100 - rank), rel=0.02)
    # With its own strength in the edge the weakest of ten directions would be lost.
    assert found.random_edge > 10 * found.noise_edge


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 3, 10])
@pytest.mark.parametrize("shape", [(64, 64), (30, 200), (11, 12)])
def test_the_numerical_rank_sees_through_the_rounding_of_the_file(dtype, rank, shape):
    W0 = torch.randn(*shape, generator=torch.manual_seed(rank)).to(dtype)
    # Far above the rounding noise of the type, whatever that is.
    dW = low_rank(*shape, rank, scale=200 * torch.finfo(dtype).eps * max(shape) ** 0.5)
    found = measured(W0, (W0.double() + dW).to(dtype))
    assert found.numerical_rank == rank
    if rank < min(shape) / 4:  # more directions of equal strength are as many as a random matrix has
        assert found.standing_out == rank
    assert found.singular_values[0] > found.rounding_noise


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_what_rounding_alone_changes_has_numerical_rank_zero(dtype, spread):
    for seed in range(5):
        generator = torch.manual_seed(seed)
        W0 = torch.randn(80, 120, generator=generator, dtype=torch.float64)
        # Also where some units have much larger weights than others.
        W0 = W0 * torch.exp(spread * torch.randn(80, 1, generator=generator, dtype=torch.float64))
        W0 = W0.clamp(-400, 400)  # which eight bits can still hold
        assert measured(W0, W0.to(dtype)).numerical_rank == 0


def test_rounding_is_coarser_than_relative_where_numbers_are_tiny():
    W0 = 1e-6 * torch.randn(60, 60, generator=torch.manual_seed(0), dtype=torch.float64)
    assert measured(W0, W0.half()).numerical_rank == 0


@pytest.mark.parametrize(("units", "rank"), [(0.49, 0), (0.51, 1), (1, 1)])
def test_one_number_is_off_by_no_more_than_half_a_unit(units, rank):
    W0 = torch.ones(1, 1, dtype=torch.float64) - units * torch.finfo(torch.float32).eps
    assert measured(W0, torch.ones(1, 1)).numerical_rank == rank


def test_numbers_of_a_narrower_type_are_recognized():
    W0 = (0.02 * torch.randn(256, 256, generator=torch.manual_seed(0))).bfloat16()
    W = (W0.float() + low_rank(256, 256, 8, scale=0.02).float()).bfloat16()
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        found = measured(W0.to(dtype), W.to(dtype))
        assert (found.numerical_rank, found.standing_out) == (8, 8)


@pytest.mark.parametrize("scale", [2e-2, 5e-3, 2e-3])
def test_directions_are_counted_above_the_rounding_of_their_own_file(scale):
    # The smallest is a change of 4e-4 of |W0|, of which rounding keeps every third entry.
    W0 = (0.02 * torch.randn(512, 512, generator=torch.manual_seed(0))).bfloat16()
    W = (W0.double() + low_rank(512, 512, 8, scale=scale)).bfloat16()
    assert measured(W0, W).standing_out == 8


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0])
def test_a_spectrum_that_falls_smoothly_has_no_flat_bulk(size, power):
    basis = low_rank(size, size, size)
    found = alone(basis * torch.arange(1, size + 1, dtype=torch.float64) ** -power)
    assert (found.flat_bulk, found.standing_out, found.noise_edge) == (False, None, None)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.9])
@pytest.mark.parametrize(("size", "rank"), [(256, 64), (256, 100), (512, 64)])
def test_many_equally_strong_directions_are_found(size, rank, noise):
    random = torch.randn(size, size, generator=torch.manual_seed(1), dtype=torch.float64) / (2 * size**0.5)
    found = alone(low_rank(size, size, rank) + noise * random)
    assert (found.flat_bulk, found.standing_out) == (True, rank)


def test_more_strong_directions_than_are_computed_are_not_counted(monkeypatch):
    monkeypatch.setattr(noise_edges, "EXACT_UP_TO", 0)
    monkeypatch.setattr(noise_edges, "EXACT_OF_ROUNDED_UP_TO", 0)
    monkeypatch.setattr(noise_edges, "COMPLETE_UP_TO", 0)
    random = torch.randn(400, 400, generator=torch.manual_seed(1), dtype=torch.float64) / 400**0.5
    for rank, expected in ((20, 20), (100, None)):
        found = alone(random + 20 * low_rank(400, 400, rank))
        assert found.standing_out == expected
        assert (found.flat_bulk is None) == (expected is None)


def test_weight_decay_is_a_change_along_the_initial_weights():
    generator = torch.manual_seed(0)
    W0 = torch.randn(120, 80, generator=generator, dtype=torch.float64)
    shrunk = measured(W0, 0.99 * W0)
    assert shrunk.initial_cosine == pytest.approx(-1)
    assert shrunk.rest_norm < 1e-9
    assert shrunk.rest_rank_99 == 0
    both = measured(W0, 0.99 * W0 + 0.05 * low_rank(120, 80, 3))
    assert (both.rest_rank_90, both.rest_rank_99) == (3, 3)
    assert both.rank_90 > 40
    random = measured(W0, W0 + torch.randn(120, 80, generator=generator))
    assert abs(random.initial_cosine) < 0.05
    assert random.rest_rank_99 is None


def test_eight_bit_floats_are_compared_in_double_precision():
    W0 = torch.randn(20, 20).to(torch.float8_e4m3fn)
    W = torch.randn(20, 20).to(torch.float8_e5m2)
    expected = torch.linalg.matrix_norm(W.double() - W0.double()).item()
    assert measured(W0, W).norm == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("path", ["gram", "randomized"])
def test_the_ways_for_large_matrices_agree_with_the_exact_one(monkeypatch, path):
    generator = torch.manual_seed(0)
    dW = 0.01 * torch.randn(300, 200, generator=generator, dtype=torch.float64) + low_rank(300, 200, 5, scale=3.0)
    exact = alone(dW)
    monkeypatch.setattr(noise_edges, "EXACT_UP_TO", 0)
    monkeypatch.setattr(noise_edges, "EXACT_OF_ROUNDED_UP_TO", 0)
    monkeypatch.setattr(noise_edges, "COMPLETE_UP_TO", 200 if path == "gram" else 0)
    for matrix in (dW, dW.t().contiguous(), dW.float()):
        other = alone(matrix)
        assert other.method == path
        assert other.norm == pytest.approx(exact.norm, rel=1e-6)
        assert other.rank_90 == exact.rank_90
        assert other.standing_out == exact.standing_out == 5
        assert other.noise_edge == pytest.approx(exact.noise_edge, rel=1e-3)
        difference = np.abs(np.array(other.singular_values) - exact.singular_values)
        assert difference[:5].max() < 1e-5
        assert difference.max() <= other.singular_value_error + 1e-5
        least, most = other.numerical_rank_bounds
        assert least <= exact.numerical_rank <= most


def test_all_values_of_a_large_matrix_where_asked_for(monkeypatch):
    monkeypatch.setattr(noise_edges, "EXACT_UP_TO", 0)
    monkeypatch.setattr(noise_edges, "EXACT_OF_ROUNDED_UP_TO", 0)
    monkeypatch.setattr(noise_edges, "COMPLETE_UP_TO", 0)
    dW = torch.randn(150, 100, generator=torch.manual_seed(0))
    found = alone(dW, exact=True)
    assert (found.method, found.numerical_rank) == ("gram", 100)
    assert found.singular_values == pytest.approx(torch.linalg.svdvals(dW.double())[:64].tolist(), rel=1e-7)
