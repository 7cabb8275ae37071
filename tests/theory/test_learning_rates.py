"""How long a step may be: to settle where the flow ends, and to keep a fixed point at all."""

import numpy as np
import pytest
import torch
from linear_cases import gradient_descent, random_network, resolvent

from rankscope.theory import InfiniteWidth, SingleNetwork


def keeps_its_fixed_point(W0, m, w, target, rate, epochs=100):
    """Whether no eigenvalue of W reaches 1: then the determinant of 1 - W stays positive."""
    W, m, w = (torch.as_tensor(x) for x in (W0, m, w))
    one = torch.eye(len(W), dtype=torch.float64)
    for _ in range(epochs):
        if torch.linalg.slogdet(one - W).sign <= 0:
            return False
        a, b = torch.linalg.solve(one - W, m), torch.linalg.solve((one - W).T, w)
        W = W + rate * (target - (w.T @ a)) * b @ a.T
    return True


@pytest.mark.parametrize(("gain", "target"), [(0.0, 2.0), (0.8, -1.0)])
def test_a_stable_step_settles_where_the_flow_ends(gain, target):
    W0, m, w = random_network(60, gain, seed=1)
    theory = SingleNetwork(W0, m, w, target, 1e-8)
    # To the end by steps that are short enough for the flow; then off it by a little, the way that matters.
    *_, (W, _, _) = gradient_descent(W0, m, w, target, 0.02 * theory.stable_learning_rate, 3000)
    R = resolvent(W)
    direction = (R.T @ w) @ (R @ m).T
    assert (w.T @ R @ m).item() == pytest.approx(target, rel=1e-4)
    off = W + 1e-3 * direction / np.linalg.norm(direction) ** 2

    def error_after(step):
        rate, epochs = step * theory.stable_learning_rate, 30
        errors = [abs(target - z.item()) for _, z, _ in gradient_descent(off, m, w, target, rate, epochs)]
        return errors[-1] / errors[0]

    assert error_after(0.95) < 0.5
    assert error_after(1.05) > 2


@pytest.mark.parametrize(("gain", "target"), [(0.6, 0.5)])
def test_networks_survive_below_the_largest_rate_and_hardly_above(gain, target):
    largest = InfiniteWidth(gain, target).largest_learning_rate()
    networks = [random_network(128, gain, seed) for seed in range(8)]
    below, above = (
        sum(keeps_its_fixed_point(*network, target, step * largest) for network in networks) for step in (0.7, 1.5)
    )
    # Single networks are further from the limit, and some rates happen to be thrown to safety.
    assert below >= 6
    assert above <= 3


@pytest.mark.parametrize(("gain", "target"), [(0.3, 2.0), (0.6, 0.5)])
def test_the_theory_itself_descends_below_it_and_not_above(gain, target):
    theory = InfiniteWidth(gain, target)
    largest = theory.largest_learning_rate()
    assert largest > theory.stable_learning_rate
    for step in (0.3, 0.6, 1.0):
        assert theory.descend(step * largest, 200)["readout"].notnull().all()
    above = [theory.descend(rate, 200)["readout"].notnull().all() for rate in np.linspace(largest, 1.02 * largest, 21)]
    assert not all(above)
