"""Spectra: known matrices, the order, and the laws of random ones."""

import numpy as np
import pytest

import rankscope as rs
from rankscope.errors import InputError
from rankscope.lowrank import change, eigenvalues, spectra


def test_known_eigenvalues_and_their_order():
    rotation = np.array([[0.0, -2.0], [2.0, 0.0]])
    matrix = np.zeros((5, 5))
    matrix[:2, :2] = rotation
    matrix[2, 2], matrix[3, 3], matrix[4, 4] = -3, 0.5, 1
    values = eigenvalues(matrix)
    assert values.dtype == np.complex128
    np.testing.assert_allclose(values, [-3, 2j, -2j, 1, 0.5], atol=1e-12)
    np.testing.assert_allclose(eigenvalues(matrix.T), [-3, 2j, -2j, 1, 0.5], atol=1e-12)
    assert eigenvalues(np.eye(2)).dtype == np.complex128


def test_conjugate_pairs_stay_together_upper_one_first():
    values = eigenvalues(np.random.default_rng(0).normal(size=(61, 61)))
    assert (np.diff(np.abs(values)) <= 1e-12).all()
    upper = np.flatnonzero(values.imag > 0)
    assert len(upper) > 10
    np.testing.assert_array_equal(values[upper + 1], values[upper].conj())


@pytest.mark.parametrize("gain", [0.5, 1.8])
def test_laws_of_random_connectivity(gain):
    N = 512
    network = rs.RateRNN.initialize(rs.tasks.FlipFlop(), hidden_size=N, gain=gain, rng=0)
    data = spectra(network.snapshot(), network).sel(matrix="initial")
    # the circular law: eigenvalues fill the disc of radius g evenly
    radii = np.hypot(data.eigenvalue_real, data.eigenvalue_imag).values / gain
    assert radii[0] == pytest.approx(1, abs=0.06)
    assert np.mean(radii < np.sqrt(0.5)) == pytest.approx(0.5, abs=0.03)
    assert np.mean(data.eigenvalue_real) == pytest.approx(0, abs=0.01)
    # the quarter circle law: singular values from 0 to 2g, their mean square g^2
    s = data.singular_value.values
    assert s[0] == pytest.approx(2 * gain, rel=0.03)
    assert s[-1] < 0.02 * gain
    assert np.mean(s**2) == pytest.approx(gain**2, rel=0.02)
    assert np.mean(s) == pytest.approx(8 / (3 * np.pi) * gain, rel=0.02)


def test_all_three_matrices():
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=(2, 20, 20))
    data = spectra(change(before, after))
    assert dict(data.sizes) == {"matrix": 3, "singular_index": 20, "eigenvalue": 20}
    assert data.matrix.values.tolist() == ["initial", "change", "trained"]
    assert data.singular_index.values.tolist() == list(range(1, 21))
    for name, matrix in {"initial": before, "change": after - before, "trained": after}.items():
        one = data.sel(matrix=name)
        np.testing.assert_allclose(one.singular_value, np.linalg.svdvals(matrix), atol=1e-12)
        np.testing.assert_array_equal(one.eigenvalue_real, eigenvalues(matrix).real)
        np.testing.assert_array_equal(one.eigenvalue_imag, eigenvalues(matrix).imag)
        assert complex(one.eigenvalue_real.sum(), one.eigenvalue_imag.sum()) == pytest.approx(np.trace(matrix))
    assert all(variable.attrs["long_name"] for variable in data.data_vars.values())


def test_two_networks_are_their_change():
    task = rs.tasks.FlipFlop(duration=20)
    one, other = (rs.RateRNN.initialize(task, hidden_size=10, gain=0.9, rng=seed) for seed in (0, 1))
    assert spectra(one, other).identical(spectra(change(one, other)))


def test_a_direction_added_to_small_connectivity_is_an_outlier():
    rng = np.random.default_rng(2)
    N, u = 300, np.ones(300) / np.sqrt(300)
    before = 0.1 * rng.normal(size=(N, N)) / np.sqrt(N)
    data = spectra(change(before, before + np.outer(u, u))).sel(matrix="trained")
    assert float(data.eigenvalue_real[0]) == pytest.approx(1, abs=0.03)
    assert np.hypot(data.eigenvalue_real[1], data.eigenvalue_imag[1]) < 0.12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((change(np.ones((2, 3)), np.zeros((2, 3))),), r"must be a change of square matrices, got shape \(2, 3\)"),
        ((np.eye(3),), "after must be a network or a matrix"),
        ((np.eye(3), np.eye(2)), "after must have the shape of before"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        spectra(*arguments)
