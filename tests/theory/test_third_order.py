"""The paper's expansion: its own formulas by hand, and the exact solution wherever learning has just begun."""

import numpy as np
import pytest

from rankscope.theory import InfiniteWidth, ThirdOrder

GRID = [(0.0, 2.0), (0.3, 0.5), (0.6, -2.0), (0.8, 4.0), (0.95, 0.5)]


@pytest.mark.parametrize(("g", "z_hat"), GRID)
def test_the_expansion_is_that_of_the_exact_solution(g, z_hat):
    ours, papers = InfiniteWidth(g, z_hat).taylor(), ThirdOrder(g, z_hat).taylor()
    assert ours[0] == papers[0] == 0
    np.testing.assert_allclose(ours, papers, rtol=1e-9, atol=0)


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
