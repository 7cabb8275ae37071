"""Several inputs and outputs learned together: one number at a time in the right basis, and networks that do it."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_cases import (
    agree,
    gradient_descent,
    largest_real_eigenvalue,
    random_network,
    readout_of_shuffled,
    singular_values,
)

from rankscope.theory import InfiniteWidth

SCALARS = ("loss", "change_norm", "gradient_norm", "shuffled_loss", "outlier")


def rotations(seed, *sizes):
    rng = np.random.default_rng(seed)
    return [np.linalg.qr(rng.standard_normal((n, n)))[0] for n in sizes]


def one_by_one(gain, sizes, shape, times):
    """What a target with these singular values does, from the scalar theory of each of them."""
    count = shape[0] * shape[1]
    # The loss is a mean over outputs and inputs, and learning that much slower.
    parts = [InfiniteWidth(gain, z, 1e-9).solve(np.asarray(times) / count) for z in sizes]
    loss = np.stack([part["loss"] for part in parts])
    s = np.concatenate([part["singular_value"] for part in parts], axis=1)
    initial = np.array([z**2 / 2 for z in sizes])
    return {
        "readouts": np.stack([part["readout"] for part in parts]),
        "loss": loss.sum(0) / count,
        "singular_value": -np.sort(-np.pad(s, [(0, 0), (0, 5)]), axis=1)[:, :5],
        "change_norm": np.linalg.norm([part["change_norm"] for part in parts], axis=0),
        "gradient_norm": np.linalg.norm([part["gradient_norm"] for part in parts], axis=0) / count,
        "shuffled_loss": (initial @ np.stack([part["shuffled_loss"] for part in parts])) / initial.sum(),
        # NaN where none of them has one.
        "outlier": functools.reduce(np.fmax, [part["outlier"].values for part in parts]),
    }


@settings(deadline=None, max_examples=4)
@given(
    gain=st.sampled_from([0.0, 0.3, 0.6, 0.85]),
    sizes=st.lists(st.floats(0.3, 3), min_size=1, max_size=3),
    extra=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    seed=st.integers(0, 99),
)
def test_singular_values_of_the_target_are_learned_one_by_one(gain, sizes, extra, seed):
    q, p = shape = (len(sizes) + extra[0], len(sizes) + extra[1])
    left, right = rotations(seed, q, p)
    target = left[:, : len(sizes)] * sizes @ right[:, : len(sizes)].T
    theory = InfiniteWidth(gain, target, 1e-8)
    times = np.array([0.0, 0.3, 0.6, 0.9, 2.0, np.inf]) * theory.convergence_time()
    ours, expected = theory.solve(times), one_by_one(gain, sizes, shape, times)
    readouts = left[:, : len(sizes)] @ (expected["readouts"].T[:, :, None] * right[:, : len(sizes)].T)
    if target.size == 1:
        readouts = readouts[:, 0, 0]
    np.testing.assert_allclose(ours["readout"], readouts, atol=1e-6 * max(sizes))
    np.testing.assert_allclose(
        ours["singular_value"], expected["singular_value"][:, : ours.sizes["singular_index"]], atol=1e-6
    )
    for name in SCALARS:
        scale = np.nanmax(expected[name], initial=1e-300)
        np.testing.assert_allclose(ours[name], expected[name], atol=1e-6 * scale, err_msg=name)


@pytest.mark.parametrize("target", [[[2.0, -0.3], [0.5, 0.6]], [[0.6, -1.0, 0.3]]])
def test_flow_descent_and_power_series_agree(target):
    # The flow goes one singular value at a time, the other two do not.
    theory, epochs = InfiniteWidth(0.5, target), 1000
    time = theory.convergence_time(0.3)
    assert float(theory.solve([time])["loss"][0]) == pytest.approx(0.3 * (np.square(target)).mean() / 2, rel=1e-5)
    steps = theory.descend(time / epochs, epochs + 1)
    flow = theory.solve(steps["tau"])
    for name in flow:
        assert float(np.abs(steps[name] - flow[name]).max()) < 0.005 * float(np.abs(flow[name]).max()), name
    early = flow["readout"].values[:30]
    series = np.polynomial.polynomial.polyval(flow["tau"].values[:30], theory.taylor(3))
    np.testing.assert_allclose(np.moveaxis(series, -1, 0), early, atol=1e-4 * np.abs(early).max())


@pytest.mark.parametrize("target", [[[0.8, -0.3], [0.2, 1.6]]])
def test_networks_of_several_inputs_and_outputs(target):
    gain, N, networks, epochs = 0.4, 128, 8, 40
    target = np.array(target)
    theory = InfiniteWidth(gain, target)
    rate = 2 * theory.convergence_time() / epochs
    found, rng = [], np.random.default_rng(0)
    for seed in range(networks):
        W0, m, w = random_network(N, gain, seed, *target.shape[::-1])
        for epoch, (W, z, gradient) in enumerate(gradient_descent(W0, m, w, target, rate, epochs)):  # noqa: B007
            if epoch == epochs // 4:
                halfway = z
        s = singular_values(W - W0)
        shuffled = np.mean([readout_of_shuffled(W0, W, m, w, rng) for _ in range(10)], axis=0)
        found.append(
            {
                "halfway": halfway,
                "readout": z,
                "gradient_norm": np.linalg.norm(gradient),
                "change_norm": np.linalg.norm(s),
                "singular_value": s[:3],
                "outlier": largest_real_eigenvalue(W, 1.15 * gain),
                "shuffled": shuffled,
            }
        )
    steps = theory.descend(rate, epochs)
    expected = {"halfway": steps["readout"].values[epochs // 4]}
    last = steps.isel(tau=-1)
    for name in ("readout", "gradient_norm", "change_norm"):
        expected[name] = last[name].values
    if last["outlier"] > 1.5 * gain:
        expected["outlier"] = last["outlier"].values
    expected["singular_value"] = last["singular_value"].values[:3]
    # Networks give terms of order 1 / N beside their scatter.
    for name, value in expected.items():
        samples = np.array([one[name] for one in found])
        for index in np.ndindex(np.shape(value)):
            agree(samples[(slice(None), *index)], value[index], resolution=1 / N, errors=4)
    # The readout after a shuffle by itself scatters more; its mean has the loss that the theory gives.
    after = np.mean([one["shuffled"] for one in found], axis=0)
    relative = ((target - after) ** 2).mean() / (target**2).mean()
    assert relative == pytest.approx(float(last["shuffled_loss"]), abs=0.15)
