"""The exact theory of infinitely many units: known values, limits, symmetries, and the accuracy that was asked for."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.theory import InfiniteWidth

GAINS, TARGETS = (0.0, 0.6, 0.95), (0.5, 4.0)
gains, targets = st.floats(0, 0.9), st.floats(0.05, 4)


@functools.cache
def exactly(gain, target):
    """The theory at its best, and moments when the loss is this and that share of the first one."""
    theory = InfiniteWidth(gain, target, 1e-10)
    shares = (0.999, 0.9, 0.7, 0.4, 0.2, 0.1, 0.01, 1e-4, 1e-6, 1e-9)
    return theory, [0.0, *map(theory.convergence_time, shares), np.inf]


@functools.cache
def solved(gain, target, accuracy=1e-6):
    """The theory, and everything at those moments."""
    theory = InfiniteWidth(gain, target, accuracy)
    return theory, theory.solve(exactly(gain, target)[1])


CHECK_VALUES = [
    # g, z_hat, tau, variable, index, value, to half of the last digit given
    (0.6, 2.0, 0.05, "readout", None, 0.2598, 5e-5),
    (0.6, 2.0, 0.1, "readout", None, 0.9410, 5e-5),
    (0.6, 2.0, 0.125, "readout", None, 1.9996, 5e-5),
    (0.6, 2.0, 0.075, "change_norm", None, 0.2409, 5e-5),
    (0.6, 2.0, np.inf, "change_norm", None, 0.4293, 5e-5),
    (0.6, 2.0, np.inf, "singular_value", 1, 0.032, 5e-4),
    (0.6, 2.0, np.inf, "shuffled_loss", None, 0.744, 5e-4),
    (0.6, 2.0, np.inf, "outlier", None, 0.8876, 5e-5),
    (0.6, 0.5, 0.25, "readout", None, 0.2526, 5e-5),
    (0.6, 0.5, 0.5, "readout", None, 0.4245, 5e-5),
    (0.6, 0.5, 1.0, "change_norm", None, 0.2552, 5e-5),
    (0.6, 0.5, np.inf, "singular_value", 0, 0.2558, 5e-5),
    (0.6, 0.5, np.inf, "singular_value", 1, 0.0058, 5e-5),
    (0.6, 0.5, np.inf, "shuffled_loss", None, 0.450, 1e-3),
    (0.6, 4.0, np.inf, "outlier", None, 0.9448, 5e-5),
    (0.8, 1.0, np.inf, "outlier", None, 0.925, 5e-4),
    (0.3, 2.0, np.inf, "outlier", None, 0.7407, 5e-5),
]


@pytest.mark.parametrize(("g", "z_hat", "tau", "name", "index", "value", "digits"), CHECK_VALUES)
def test_check_values(g, z_hat, tau, name, index, value, digits):
    found = InfiniteWidth(g, z_hat).solve([tau])[name].values[0]
    assert (found if index is None else found[index]) == pytest.approx(value, abs=digits)


@pytest.mark.parametrize("g", GAINS)
@pytest.mark.parametrize("z_hat", TARGETS)
def test_the_accuracy_asked_for_is_reached(g, z_hat):
    theory, times = exactly(g, z_hat)
    exact, time = theory.solve(times), theory.convergence_time()
    for accuracy in (1e-4, 1e-8):
        theory, found = solved(g, z_hat, accuracy)
        for name, expected in exact.items():
            np.testing.assert_array_equal(np.isnan(found[name]), np.isnan(expected), err_msg=name)
            off = np.abs(found[name] - expected).max() / np.abs(expected).max()
            assert not off > accuracy, f"{name} is off by {float(off):.1e}"
        assert theory.convergence_time() == pytest.approx(time, rel=accuracy)


@settings(deadline=None, max_examples=5)
@given(gain=gains, target=targets)
def test_loss_falls_by_the_square_of_the_gradient(gain, target):
    # dloss/dtau = -|gradient|^2: Gauss's rule over one stretch of the flow.
    theory = InfiniteWidth(gain, target, 1e-9)
    start, end = theory.convergence_time(0.6), theory.convergence_time(0.5)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    at = theory.solve([start, *((start + end) / 2 + (end - start) / 2 * nodes), end])
    loss, gradient = at["loss"].values, at["gradient_norm"].values
    assert loss[0] - loss[-1] == pytest.approx((end - start) / 2 * weights @ gradient[1:-1] ** 2, rel=1e-5)


@settings(deadline=None, max_examples=5)
@given(gain=gains, target=targets)
def test_a_negative_target_only_turns_the_readout_around(gain, target):
    times = [0.0, 0.03, 0.3, np.inf]
    plus, minus = (InfiniteWidth(gain, sign * target).solve(times) for sign in (1, -1))
    np.testing.assert_allclose(minus["readout"], -plus["readout"], rtol=1e-6)
    for name in set(plus) - {"readout"}:
        np.testing.assert_allclose(minus[name], plus[name], rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("z_hat", TARGETS)
def test_the_limit_of_no_gain(z_hat):
    times = [InfiniteWidth(0, z_hat).convergence_time(share) for share in (0.9, 0.5, 0.1)] + [np.inf]
    none = InfiniteWidth(0, z_hat, 1e-9).solve(times)
    previous = np.inf
    for g in (1e-2, 1e-5, 9e-6, 5e-324):
        at = InfiniteWidth(g, z_hat, 1e-9).solve(times)
        off = max(float(np.abs(at[name] - values).max() / np.abs(values).max()) for name, values in none.items())
        # Everything is even in g.
        assert off < 100 * g**2 + 1e-8
        assert off <= previous + 1e-8
        previous = off


def test_without_random_weights_learning_is_known():
    # g = 0: R stays within the plane of m and w, whose flow is that of a 2 x 2 matrix.
    theory, z_hat, steps = InfiniteWidth(0, 2.0, 1e-9), 2.0, 4_000
    time = theory.convergence_time(0.1)
    R, m, w = np.eye(2), np.array([1.0, 0.0]), np.array([0.0, 1.0])

    def velocity(R):
        return (z_hat - w @ R @ m) * np.outer(R @ R.T @ w, R.T @ R @ m)

    step = time / steps
    for _ in range(steps):
        R = R + step * velocity(R + step / 2 * velocity(R))
    at = theory.solve([time]).isel(tau=0)
    assert float(at["readout"]) == pytest.approx(w @ R @ m, rel=1e-6)
    dW = np.eye(2) - np.linalg.inv(R)
    assert at["singular_value"].values == pytest.approx(np.linalg.svd(dW)[1], rel=1e-6)
    assert float(at["outlier"]) == pytest.approx(np.linalg.eigvals(dW).real.max(), rel=1e-6)
    # There is nothing to shuffle.
    assert float(at["shuffled_loss"]) == pytest.approx(float(at["loss"]) / 2, rel=1e-9)


@pytest.mark.parametrize("g", [0.0, 0.3, 0.6, 0.9])
def test_small_targets_are_learned_as_the_paper_says(g):
    z_hat = 1e-5
    theory = InfiniteWidth(g, z_hat)
    end = theory.solve([np.inf]).isel(tau=0)
    # |dW| follows 1 - g^2, convergence time (1 - g^2)^2, loss after shuffle g^4 (2 - g^2)^2.
    ratio = InfiniteWidth(0, z_hat).convergence_time() * (1 - g**2) ** 2
    assert theory.convergence_time() == pytest.approx(ratio, rel=1e-6)
    assert float(end["shuffled_loss"]) == pytest.approx(g**4 * (2 - g**2) ** 2, abs=1e-6)
    # The readout relaxes as exp(-beta^2 tau), along m and w alone.
    at = theory.solve([0.1, 1.0])
    np.testing.assert_allclose(at["readout"], z_hat * (1 - np.exp(-at["tau"] / (1 - g**2) ** 2)), rtol=1e-6)
    np.testing.assert_allclose(at["change_norm"], at["readout"] * (1 - g**2), rtol=1e-6)


@pytest.mark.parametrize("g", [0.0, 0.6])
def test_descent_in_small_steps_is_the_flow(g):
    theory = InfiniteWidth(g, 2.0)
    time = theory.convergence_time()
    off = []
    for epochs in (500, 1000):
        steps = theory.descend(time / epochs, epochs + 1)
        flow = theory.solve(steps["tau"])
        off.append({name: float(np.abs(steps[name] - flow[name]).max() / flow[name].max()) for name in flow})
        np.testing.assert_array_equal(steps["epoch"], np.arange(epochs + 1))
    for name, (coarse, fine) in {name: (off[0][name], off[1][name]) for name in off[0]}.items():
        # Euler's method is one of first order.
        assert fine < 0.05, name
        assert coarse / fine == pytest.approx(2, rel=0.15), name


def test_descent_has_no_fixed_point_beyond_1():
    theory = InfiniteWidth(0.6, 2.0)
    steps = theory.descend(3 * theory.largest_learning_rate(), 40)
    lost = np.isnan(steps["readout"].values)
    assert not lost[0]
    assert lost.any()
    assert (np.diff(lost.astype(int)) >= 0).all()
    for name in steps:
        assert np.isnan(steps[name].values[lost]).all(), name
    assert np.isnan(theory.descend(1e300, 5)["readout"].values[-1])
