"""The paper's expansion: its own formulas by hand, and the exact solution wherever learning has just begun."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.errors import InputError
from rankscope.theory import InfiniteWidth, ThirdOrder

GRID = [(g, z_hat) for g in (0.0, 0.3, 0.6, 0.8, 0.95) for z_hat in (-2.0, 0.5, 2.0, 4.0)]


@pytest.mark.parametrize(
    ("z_hat", "coefficients"),
    [
        (0.5, (0, 1.220703125, -1.490116119, 5.002220860)),
        (2.0, (0, 4.8828125, -5.960464478, 247.382558842)),
    ],
)
def test_check_values(z_hat, coefficients):
    for theory in (InfiniteWidth(0.6, z_hat), ThirdOrder(0.6, z_hat)):
        np.testing.assert_allclose(theory.taylor(), coefficients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("g", "z_hat"), GRID)
def test_the_expansion_is_that_of_the_exact_solution(g, z_hat):
    ours, papers = InfiniteWidth(g, z_hat).taylor(), ThirdOrder(g, z_hat).taylor()
    assert ours[0] == papers[0] == 0
    np.testing.assert_allclose(ours, papers, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("g", "z_hat"), [(0.0, 2.0), (0.3, 4.0), (0.6, 0.5), (0.8, -2.0)])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_solution_leaves_its_taylor_polynomial_as_the_next_power(g, z_hat, order):
    theory = InfiniteWidth(g, z_hat, accuracy=1e-10)
    coefficients = theory.taylor(order + 2)
    # So early that every further power is a tenth or less.
    tau = np.array([0.05, 0.1]) / np.abs(coefficients[2:] / coefficients[1:-1]).max()
    exact = theory.solve(tau)["readout"].values
    polynomial = np.polynomial.polynomial.polyval(tau, coefficients[: order + 1])
    left = (exact - polynomial) / (coefficients[order + 1] * tau ** (order + 1))
    np.testing.assert_allclose(left, 1, rtol=0.25)
    # What is left of this is a power less.
    assert 0.4 < (left[0] - 1) / (left[1] - 1) < 0.6


@pytest.mark.parametrize(("g", "z_hat"), GRID)
def test_early_learning_is_as_the_paper_says(g, z_hat):
    exact, paper = InfiniteWidth(g, z_hat, accuracy=1e-9), ThirdOrder(g, z_hat)
    beta = 1 / (1 - g**2)
    # x^2 against the terms that are left out, which grow with z_hat^2 beta.
    x = np.array([0.01, 0.02]) / (1 + z_hat**2 * beta) ** 0.5
    tau = x / beta**2
    ours, papers = exact.solve(tau), paper.solve(tau)
    s, s_paper = ours["singular_value"].values, papers["singular_value"].values
    # s1 to its third order, s2 and the change of the shuffled loss to their leading one.
    for found, expected, order in (
        (s[:, 0], s_paper[:, 0], 3),
        (s[:, 1], s_paper[:, 1], 1),
        (1 - ours["shuffled_loss"].values, 1 - papers["shuffled_loss"].values, 1),
    ):
        off = np.abs(found / expected - 1)
        assert off.max() < (1e-4 if order == 3 else 0.05)
        if off.max() > 1e-6:
            assert off[0] < 0.75 * 0.5 ** (order - 1) * off[1]


@pytest.mark.parametrize("z_hat", [0.5, 2.0])
def test_without_random_weights_the_outlier_grows_as_the_square_of_time(z_hat):
    tau = np.array([1e-4, 2e-4])
    exact, paper = (theory(0, z_hat).solve(tau)["outlier"].values for theory in (InfiniteWidth, ThirdOrder))
    np.testing.assert_allclose(paper, (z_hat * tau) ** 2, rtol=1e-3)
    # The paper leaves out the other eigenvalue of dW. The two add up to (z_hat tau)^2, and their product is minus that
    # of the singular values, -(z_hat tau)^4 / 12.
    np.testing.assert_allclose(exact, (1 + (4 / 3) ** 0.5) / 2 * (z_hat * tau) ** 2, rtol=1e-3)


def test_formulas_by_hand():
    # g = 0, where beta = 1 and x = tau.
    at = ThirdOrder(0, 2.0).solve([0.1]).isel(tau=0)
    assert float(at["readout"]) == pytest.approx(0.2 - 0.01 + 0.002 / 6 * 33)
    assert at["singular_value"].values == pytest.approx([0.2 - 0.01 + 0.002 / 6 * 15, 0.008 / 12])
    assert float(at["change_norm"]) == pytest.approx(np.hypot(0.195, 0.008 / 12))
    assert float(at["loss"]) == pytest.approx((2 - 0.201) ** 2 / 2)
    # a1 b2 = 0.02, a2 b2 = -0.0005 and a1 b3 = -0.001.
    assert float(at["outlier"]) == pytest.approx(2 * 0.0185)
    assert float(at["shuffled_loss"]) == pytest.approx((1 - 0.201 / 2) ** 2)


@pytest.mark.parametrize(("g", "z_hat"), [(0.3, 2.0), (0.6, 2.0), (0.6, -4.0), (0.8, 1.0)])
def test_the_outlier_solves_its_quadratic(g, z_hat):
    # a1 b2 + a2 b2 + a1 b3 is one polynomial; and (outlier - g^2)^2 = e outlier.
    theory, beta = ThirdOrder(g, z_hat), 1 / (1 - g**2)
    at = theory.solve(np.linspace(0.4, 1, 20) * theory.end)
    x = beta**2 * at["tau"].values
    e = z_hat**2 * x**2 / beta * (1 - 3 / 4 * x)
    outlier = at["outlier"].values
    there = ~np.isnan(outlier)
    assert there.any()
    np.testing.assert_allclose((outlier - g**2)[there] ** 2, (e * outlier)[there], rtol=1e-9)
    assert (outlier[there] > g).all()


def test_an_outlier_is_one_outside_the_bulk():
    outlier = ThirdOrder(0.6, 2.0).solve(np.linspace(0, 0.2, 50))["outlier"].values
    assert np.isnan(outlier[0])
    assert np.nanmin(outlier) > 0.6
    assert (np.diff(np.isnan(outlier).astype(int)) <= 0).all()


@pytest.mark.parametrize(("g", "z_hat"), GRID)
def test_what_has_arrived_stays(g, z_hat):
    theory = ThirdOrder(g, z_hat)
    at = theory.solve([theory.end, 2 * theory.end, np.inf])
    np.testing.assert_allclose(at["readout"], z_hat, rtol=1e-9)
    for name, values in at.items():
        np.testing.assert_array_equal(values[1:], values[[0]].values.repeat(2, axis=0), err_msg=name)
    assert float(theory.solve([0.9 * theory.end])["readout"][0] / z_hat) < 1 - 1e-3
    # The paper's limit.
    np.testing.assert_allclose(at["shuffled_loss"], g**4 * (2 - g**2) ** 2, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("g", "z_hat"), GRID)
def test_convergence_time_is_when_the_loss_has_fallen(g, z_hat):
    theory = ThirdOrder(g, z_hat)
    for fraction in (0.9, 0.05, 1e-4):
        time = theory.convergence_time(fraction)
        assert float(theory.solve([time])["loss"][0]) == pytest.approx(fraction * z_hat**2 / 2, rel=1e-6)
    assert theory.convergence_time() == theory.convergence_time(0.05)


@settings(deadline=None, max_examples=30)
@given(
    gain=st.floats(0, 0.95),
    z_hat=st.floats(0.1, 5),
    times=st.lists(st.floats(0, 2), min_size=1, max_size=5, unique=True),
)
def test_a_negative_target_only_turns_the_readout_around(gain, z_hat, times):
    plus, minus = (ThirdOrder(gain, sign * z_hat).solve(sorted(times)) for sign in (1, -1))
    np.testing.assert_allclose(minus["readout"], -plus["readout"], rtol=1e-12)
    for name in set(plus) - {"readout"}:
        np.testing.assert_allclose(minus[name], plus[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gain": 1}, "gain must be below 1, where the linear network has a fixed point, got 1"),
        ({"gain": -0.1}, "gain must be a finite number >= 0, got -0.1"),
        ({"gain": None}, "gain must be a number >= 0, got None"),
        ({"target": 0}, "target must not be 0, .*got 0"),
        ({"target": float("nan")}, "target must be a finite number, got nan"),
        ({"target": [[1.0]]}, r"target must be a number, got \[\[1.0\]\]"),
        ({"target": 1e200}, r"target must be between 1e-06 and 1e\+06 in size, got 1e\+200"),
    ],
)
def test_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        ThirdOrder(**{"gain": 0.5, "target": 1.0} | wrong)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan"), "a"])
def test_convergence_time_refuses(fraction):
    with pytest.raises(InputError, match=f"fraction must be .*got {fraction!r}"):
        ThirdOrder(0.5, 1.0).convergence_time(fraction)
