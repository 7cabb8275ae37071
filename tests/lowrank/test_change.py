"""The change of weight matrices: known singular values, Eckart and Young, the level of rounding, names and gates."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rankscope as rs
from rankscope.errors import InputError
from rankscope.lowrank import change, changes, variance_explained
from rankscope.lowrank.change import FactoredChange

TASK = rs.tasks.FlipFlop(duration=20)


def low_rank(values, seed=0, rows=12, columns=12):
    """W0 and W0 + dW, with the singular values of dW."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.normal(size=(size, size)))[0][:, : len(values)] for size in (rows, columns))
    before = rng.normal(size=(rows, columns))
    return before, before + (U * values) @ V.T


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=8), st.integers(0, 1000), st.sampled_from([9, 12, 15]))
def test_known_singular_values_and_the_theorem_of_eckart_and_young(values, seed, columns):
    before, after = low_rank(values, seed, columns=columns)
    dW = change(before, after)
    expected = np.zeros(min(12, columns))
    expected[: len(values)] = np.sort(values)[::-1]
    np.testing.assert_allclose(dW.singular_values, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(dW.matrix, after - before)
    assert dW.norm**2 == pytest.approx((expected**2).sum())
    assert dW.numerical_rank == len(values)
    np.testing.assert_allclose(dW.variance_explained, np.cumsum(expected**2) / (expected**2).sum())
    # The best approximation of a rank misses exactly the values after it.
    for rank in range(len(expected) + 1):
        error = dW.matrix - dW.truncated(rank)
        tail = expected[rank:]
        assert np.linalg.norm(error) == pytest.approx(np.sqrt((tail**2).sum()), abs=1e-10)
        assert np.linalg.norm(error, 2) == pytest.approx(tail[0] if tail.size else 0, abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_of_the_stored_weights_is_told_from_a_change(dtype):
    exact = [torch.from_numpy(matrix) for matrix in low_rank([9.0, 6.0, 4.0], rows=300, columns=200)]
    stored = change(*(matrix.to(dtype) for matrix in exact))
    assert stored.numerical_rank == 3
    noise = change(exact[0], exact[0].to(dtype))
    assert noise.singular_values[0] < stored.rounding < 4 * noise.singular_values[0]


def test_a_product_of_factors_is_the_change_of_its_matrix():
    rng = np.random.default_rng(0)
    B, A = (torch.from_numpy(rng.normal(size=shape)) for shape in ((30, 4), (4, 20)))
    factored = FactoredChange(B, A, None, torch.float32)
    whole = change(torch.zeros(30, 20), B @ A)
    assert factored.shape == whole.shape
    assert factored.numerical_rank == 4
    assert factored.norm == pytest.approx(whole.norm)
    np.testing.assert_allclose(factored.singular_values, whole.singular_values[:4])
    for rank in range(5):
        np.testing.assert_allclose(factored.truncated(rank), whole.truncated(rank), atol=1e-12)


def test_no_change():
    nothing = change(np.eye(3), np.eye(3))
    assert nothing.norm == nothing.numerical_rank == 0
    np.testing.assert_array_equal(nothing.variance_explained, [1, 1, 1])
    np.testing.assert_allclose(variance_explained([2, 1, 1]), [4 / 6, 5 / 6, 1])


def test_networks_tensors_and_arrays_are_the_same_change():
    before, after = (rs.RateRNN.initialize(TASK, hidden_size=12, rng=seed) for seed in (0, 1))
    matrices = [network.recurrent_weights for network in (before, after)]
    arrays = [matrix.detach().numpy() for matrix in matrices]
    expected = arrays[1].astype(np.float64) - arrays[0].astype(np.float64)
    for one, other in ((before, after), matrices, arrays, (before, arrays[1]), [array.tolist() for array in arrays]):
        np.testing.assert_array_equal(change(one, other).matrix, expected)


def test_a_change_stays_what_it_was_while_the_network_goes_on_learning():
    before, after = (rs.RateRNN.initialize(TASK, hidden_size=12, rng=seed, dtype=torch.float64) for seed in (0, 1))
    dW = change(before, after)
    with torch.no_grad():
        after.recurrent_weights += 1
    np.testing.assert_array_equal(dW.after - dW.before, dW.matrix)


def test_gates_are_blocks_of_rows_in_the_order_of_torch():
    before, after = (rs.GatedRNN.initialize(TASK, "lstm", 6, 2, rng=seed) for seed in (0, 1))
    found = changes(before, after, gates=True)
    gates = [f"rnn.weight_hh_l0[{gate}]" for gate in "ifgo"]
    assert list(found)[:5] == ["rnn.weight_hh_l0", *gates]
    blocks = np.split(found["rnn.weight_hh_l0"].matrix, 4)
    for name, block in zip(gates, blocks, strict=True):
        np.testing.assert_array_equal(found[name].matrix, block)
    assert list(changes(before, after, ["rnn.weight_hh_l0[*]"])) == gates
    assert list(changes(before, after, ["rnn.weight_ih_*[g]"])) == ["rnn.weight_ih_l0[g]", "rnn.weight_ih_l1[g]"]
    assert list(changes(before, after, ["readout.weight"])) == ["readout.weight"]
    assert change(before, after, ["rnn.weight_hh_l1"]).shape == (24, 6)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (np.eye(3), np.eye(4), r"after must have the shape of before, \(3, 3\), got \(4, 4\)"),
        (np.eye(3), np.ones(3), r"after must be a network or a matrix, got shape \(3,\)"),
        (np.eye(3) * np.nan, np.eye(3), "before must be finite, got 9 entries that are not"),
        (np.eye(3), np.diag([1, np.inf, 1]), "after must be finite, got 1 entries that are not"),
        ("W", np.eye(3), "before must be a network or a matrix of numbers, got str"),
        (np.eye(3), [[1], [1, 2]], "after must be a network or a matrix of numbers, got list"),
        (np.eye(3), None, "after must be a network or a matrix"),
    ],
)
def test_matrices_that_are_refused(before, after, message):
    with pytest.raises(InputError, match=message):
        change(before, after)


def test_networks_and_names_that_are_refused():
    one, two = (rs.GatedRNN.initialize(TASK, "gru", 6, layers, rng=0) for layers in (1, 2))
    for refused, message in (
        (lambda: change(two.snapshot(), two), "matrices must name one matrix, got .'rnn.weight_hh_l0', 'rnn.weight_hh"),
        (lambda: change(one, one), r"before must be the network before learning \(network.snapshot"),
        (
            lambda: changes(one, two),
            "before must have the matrix 'rnn.weight_hh_l1': matrices must be one of",
        ),
        (lambda: changes(one, two, ["readout.wight"]), "did you mean 'readout.weight'"),
        (lambda: changes(one, two, ["rnn.weight_hh_l0[o]"]), "matrices must be one of .*'rnn.weight_hh_l0.r.'"),
        (lambda: changes(one, two, "readout.weight"), r"write \['readout.weight'\]"),
        (lambda: change(np.eye(12), np.eye(12)).truncated(13), "rank must be a whole number >= 0 and <= 12, got 13"),
    ):
        with pytest.raises(InputError, match=message):
            refused()
