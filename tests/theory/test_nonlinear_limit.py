"""Nonlinear learning at infinite width, beside random networks, the linear theory, and another quadrature."""

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.errors import InputError
from rankscope.theory import InfiniteWidth, NonlinearLimit
from rankscope.theory.nodes import normal_nodes


@pytest.mark.parametrize(("count", "dimensions", "antithetic"), [(64, 4, False), (60, 3, True), (16, 1, False)])
def test_nodes_have_the_moments_of_a_standard_normal(count, dimensions, antithetic):
    x = normal_nodes(count, dimensions, 0, antithetic=antithetic)
    assert x.shape == (count, dimensions)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(x.T @ x / count, np.eye(dimensions), atol=1e-13)
    np.testing.assert_allclose((x**4).mean(0), 3, rtol=0.2)
    assert np.tanh(1 + x).mean(0) == pytest.approx(0.5504, abs=0.012)  # numerical integration
    if antithetic:
        np.testing.assert_allclose((x**3).mean(0), 0, atol=1e-13)
    assert not np.allclose(x, normal_nodes(count, dimensions, 1, antithetic=antithetic))


def test_a_linear_network_learns_as_the_linear_theory_has_it():
    target, rate, epochs = 2.0, 0.02, 80
    task = rs.tasks.FixedPoint(target=target, duration=81)
    limit = NonlinearLimit(
        task,
        nodes=16,
        trained=["recurrent"],
        optimizer="sgd",
        learning_rate=rate,
        batch_size=1,
        nonlinearity="identity",
    )
    found, exact = limit.solve(epochs), InfiniteWidth(0, target).descend(rate, epochs)
    np.testing.assert_allclose(found["loss"] ** 0.5, exact["loss"] ** 0.5, atol=2e-3 * target)
    np.testing.assert_allclose(found["change_norm"], exact["change_norm"], atol=2e-3)
    np.testing.assert_allclose(found["singular_value"][:, :2], exact["singular_value"][:, :2], atol=2e-3)
    assert found["loss"][-1] < 0.01 * found["loss"][0]


def on_a_grid(task, rate, epochs, points=14):
    """Return the losses of gradient descent on J(x, y) and omega(x), on a product grid with Gauss's weights."""
    x, p = np.polynomial.hermite_e.hermegauss(points)
    p = p / p.sum()
    m, omega = (torch.tensor(axis.ravel()) for axis in np.meshgrid(x, x))
    p = torch.tensor(np.outer(p, p).ravel())
    J = torch.zeros(len(p), len(p), dtype=torch.double, requires_grad=True)
    omega.requires_grad_()
    trials = task.sample(1, 0)
    inputs, targets, mask = (a[0, :, 0].double() for a in (trials.inputs, trials.targets, trials.mask))
    losses = []
    for _ in range(epochs):
        h, loss = torch.zeros_like(p), 0.0
        for u, target, weight in zip(inputs, targets, mask, strict=True):
            h = (1 - task.dt) * h + task.dt * (J @ (p * torch.tanh(h)) + m * u)
            loss = loss + 0.5 * weight * ((p * omega * torch.tanh(h)).sum() - target) ** 2 / mask.sum()
        gradients = torch.autograd.grad(loss, [J, omega])
        with torch.no_grad():
            J -= rate * gradients[0] / torch.outer(p, p)
            omega -= rate * gradients[1] / p
        losses.append(loss.item())
    return np.array(losses)


def test_descent_is_that_of_another_quadrature():
    task = rs.tasks.FixedPoint(target=0.5, duration=10)
    limit = NonlinearLimit(task, nodes=128, optimizer="sgd", learning_rate=0.3, batch_size=1)
    found, expected = limit.solve(30)["loss"].values, on_a_grid(task, 0.3, 30)
    assert expected[-1] < 0.1 * expected[0]
    np.testing.assert_allclose(found, expected, atol=0.01 * expected[0])


def test_random_networks_approach_it():
    epochs, recorded = 45, [15, 44]
    limit = NonlinearLimit("flipflop")
    solved = limit.solve(epochs, rng=3, recorded_epochs=recorded)
    networks = [
        limit.simulate(96, epochs, 3, network_rng=seed, recorded_epochs=recorded, functional_rank=False)
        for seed in range(6)
    ]
    quantities = {
        "loss": lambda d, epoch: d["loss"][epoch],
        "norm": lambda d, epoch: d["change_norm"][epoch],
        # The two leading values are equal but for the scatter of a network's vectors, which drives them apart.
        "s1, s2": lambda d, epoch: (d["singular_value"][epoch, :2] ** 2).mean() ** 0.5,
    }
    for name, quantity in quantities.items():
        for epoch in recorded:
            expected = float(quantity(solved, epoch))
            found = np.array([float(quantity(network, epoch)) for network in networks])
            standard_error = found.std(ddof=1) / len(found) ** 0.5
            assert abs(found.mean() - expected) < 3 * standard_error + 0.02 * expected, (name, epoch)
    assert float(solved["example_output"][44].std()) > 0.1
    assert np.isnan(solved["singular_value"][16]).all()


def test_other_parts_and_tasks():
    readout = NonlinearLimit("romo", trained=["output"]).solve(5)
    assert float(readout["change_norm"].max()) == 0
    assert np.isnan(readout["functional_rank"])
    recurrent = NonlinearLimit("romo", trained=["recurrent"], antithetic=True).solve(5)
    assert float(recurrent["change_norm"][-1]) > 0
    cosine = NonlinearLimit("cosine", 32).solve(3)  # starts from the input vector
    assert float(cosine["change_norm"][-1]) > 0


def test_errors_are_of_nodes_and_scramblings():
    found = NonlinearLimit("flipflop", 32).errors(12, repetitions=2)
    last = found.isel(epoch=-1)["change_norm"]
    assert 0 < float(last.sel(estimate="scrambling")) < 0.1 * float(last.sel(estimate="value"))
    assert 0 < float(last.sel(estimate="nodes")) < 0.1 * float(last.sel(estimate="value"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 15}, "nodes must be at least 16 for 4 inputs and outputs, got 15"),
        ({"nodes": 65, "antithetic": True}, "nodes must be even"),
        ({"trained": ["input"]}, "trained must be one of 'recurrent', 'output'"),
        ({"trained": "recurrent"}, "trained must be a collection"),
        ({"optimizer": "rprop"}, "optimizer must be one of 'adam', 'sgd'"),
        ({"optimizer": "sgd"}, "learning_rate must be given for sgd"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"nonlinearity": "tan"}, "nonlinearity must be"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        NonlinearLimit("flipflop", **options)
