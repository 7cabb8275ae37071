"""Anatomy of a change: formulas against simulations, and networks whose answer is known."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import svds
from torch import nn

import rankscope as rs
from rankscope.lowrank.anatomy import basis, growth, intruders, null, overlaps, products, scaling, visibility
from rankscope.tasks import FixedPoint, FlipFlop
from rankscope.training import squared_loss

TASK = FlipFlop(duration=8.0)


class Plain(nn.Module):
    """A network of a user: torch's layers, without any method of ours."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(2, 40, num_layers=2, batch_first=True)
        self.readout = nn.Linear(40, 2)

    def forward(self, inputs):
        return self.readout(self.rnn(inputs)[0])


def network_of(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "module":
            return Plain().double()
        if kind in ("gru", "lstm", "rnn"):
            return rs.GatedRNN.initialize(TASK, kind, 40, num_layers=2, rng=0, dtype=torch.float64)
        options = {"tau": {"tau": 2.0, "bias": np.ones(40)}, "rate": {"convention": "rate", "bias": np.ones(40)}}
        return rs.RateRNN.initialize(TASK, 40, rng=0, dtype=torch.float64, **options.get(kind, {}))


@pytest.mark.parametrize("kind", ["current", "rate", "tau", "rnn", "gru", "lstm", "module"])
def test_activity_and_adjoints_are_the_factors_of_the_gradient(kind):
    network, trials = network_of(kind), TASK.sample(3, 0)
    found = products(network, trials, squared_loss)
    assert not any(weights.grad is not None for weights in network.parameters())
    inputs = trials.inputs.double()
    squared_loss(network(inputs), trials.targets.double(), trials.mask.double()).backward()
    gradients = {name: weights.grad for name, weights in network.named_parameters()}
    assert found.keys() >= {name for name in gradients if "recurrent" in name or "weight_hh" in name}
    for name, (activity, adjoints) in found.items():
        torch.testing.assert_close(adjoints.t() @ activity, gradients[name], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", ["current", "gru"])
def test_a_step_of_sgd_lies_in_activity_and_adjoints(kind):
    trials = TASK.sample(2, 0)
    network = network_of(kind)
    before = network.snapshot()
    rs.train(network, [trials], 1, rng=0, optimizer="sgd", learning_rate=0.1)
    found = rs.anatomy(before, network, trials)
    rows = 2 * TASK.steps
    assert rows < 40
    for share in (found.activity_share, found.adjoint_share):
        np.testing.assert_allclose(share.sel(stage="before")[:, rows - 1], 1, atol=1e-9)
        assert (share.sel(stage="before")[:, 0] < 1).all()
    assert found.block.values.tolist() == (
        ["recurrent_weights"]
        if kind == "current"
        else [f"rnn.weight_hh_l{layer}[{gate}]" for layer in (0, 1) for gate in "rzn"]
    )


def test_linear_networks_begin_along_the_resolvents_of_input_and_output():
    from rankscope.lowrank.anatomy.partners import partners
    from rankscope.lowrank.matrices import Block

    task = FixedPoint(duration=31.0)
    network = rs.RateRNN.initialize(task, 1024, 0.6, 0, nonlinearity="identity", trained=("recurrent",))
    before = network.snapshot()
    rs.train(network, task, 1, rng=0, optimizer="sgd", learning_rate=0.001, recorded_epochs=0)
    dW = (network.recurrent_weights - before.recurrent_weights).detach().double().numpy()
    U, _, Vt = svds(dW, 1)
    found = partners(before, before.recurrent_weights.detach().double().numpy(), Block("recurrent_weights"))
    assert overlaps(U, found["R^T outputs"].left) > 0.99**2
    assert overlaps(Vt.T, found["R inputs"].right) > 0.99**2
    assert overlaps(U, found["outputs"].left) < 0.9


@pytest.mark.parametrize("shape", [(300, 300), (150, 300), (300, 150)])
@pytest.mark.parametrize("strength", [1.4, 1.8, 2.5, 4.0, 8.0])
def test_a_direction_in_noise_is_where_theory_has_it(shape, strength):
    n, m = shape
    c, rng = n / m, np.random.default_rng(7)
    theta, found = strength * c**0.25, []
    for _ in range(8):
        u, v = (basis(rng.normal(size=(size, 1))) for size in shape)
        noise = rng.normal(size=shape) / np.sqrt(m)
        U, s, Vt = svds(noise + theta * u @ v.T, 1)
        found.append([s[0], ((U.T @ u) ** 2).item(), ((Vt @ v) ** 2).item()])
    expected = visibility([theta], shape, np.sqrt(n))
    values = np.array([expected.singular_value, expected.left, expected.right])[:, 0]
    error = np.std(found, 0, ddof=1) / np.sqrt(8)
    assert expected.visible[0]
    assert (np.abs(np.mean(found, 0) - values) < 2 * error).all()


def test_what_is_not_visible_has_no_overlap_and_without_noise_everything_has():
    weak = visibility([0.9, 1.1], (100, 100), 10.0)
    assert weak.visible.tolist() == [False, True]
    assert (weak.edge, weak.singular_value[0], weak.left[0]) == (2, 2, 0)
    assert visibility([1.5], (1500, 1500), 0.9 * 1500**0.5).left == pytest.approx(np.array([0.64]))
    assert visibility([0.1], (5, 5), 0.0).right == pytest.approx(np.array([1]))


def test_nulls_are_those_of_random_directions():
    rng = np.random.default_rng(1)
    for size, dimension in ((50, 2), (200, 7)):
        drawn = rng.normal(size=(size, 1000))
        found = overlaps(drawn / np.linalg.norm(drawn, axis=0), basis(rng.normal(size=(size, dimension))))
        mean, std = null(size, dimension)
        assert found.mean() == pytest.approx(mean, abs=2 * std / 1000**0.5)
        assert found.std() == pytest.approx(std, rel=0.1)


def test_a_readout_alone_writes_nothing_into_the_recurrent_weights():
    network = rs.RateRNN.initialize(TASK, 20, 0.9, 0, trained=("output",))
    before = network.snapshot()
    rs.train(network, TASK, 3, rng=0)
    with pytest.warns(UserWarning, match="the change of 'recurrent_weights' is zero: it has no directions"):
        found = rs.anatomy(before, network, TASK, history={2: network})
    assert found.change_is_zero == 1
    known = {"change_is_zero", "partner_dimension", "overlap_null", "overlap_null_std", "visible_edge"}
    known |= {"activity_share_null", "adjoint_share_null", "anatomy_spectrum", "growth_epoch"}
    assert known == {name for name, values in found.items() if np.isfinite(values).any()}


def test_decay_is_told_from_a_change_of_low_rank():
    rng = np.random.default_rng(0)
    W0 = rng.normal(size=(60, 60)) / 60**0.5
    U, _, Vt = np.linalg.svd(W0)
    # The learned part overlaps with W0, which shifts the least-squares c.
    learned = 1.5 * np.outer(U[:, 0], Vt[0]) + 0.5 * np.outer(*rng.normal(size=(2, 60))) / 60
    found = scaling(rs.change(W0, 0.9 * W0 + learned))
    assert found.c == pytest.approx(-0.1, abs=1e-10)
    assert abs(found.least_squares + 0.1) > 0.01
    assert (found.numerical_rank, found.rank_95) == (2, 2)
    alone = scaling(rs.change(W0, 0.9 * W0))
    assert (alone.numerical_rank, alone.rank_95) == (0, 0)
    assert scaling(rs.change(np.zeros((60, 60)), learned)).numerical_rank == 2


def test_intruders_have_no_likeness_in_the_initial_weights():
    rng = np.random.default_rng(0)
    W0 = rng.normal(size=(80, 80)) / 80**0.5
    U0 = np.linalg.svd(W0)[0]
    u, v = (basis(rng.normal(size=(80, 1))) for _ in range(2))
    W = W0 + 6 * u @ v.T
    U, s, _ = np.linalg.svd(W)
    found = intruders(U0, U, s)
    assert found.number == 1
    assert found.share == pytest.approx(s[0] ** 2 / np.square(W).sum())
    for one in (slice(None), slice(0, 50)):
        for W0_part, W_part in ((W0[one], W[one]), (W0[:, one], W[:, one])):
            compared = rs.compare({"w": torch.tensor(W0_part)}, {"w": torch.tensor(W_part)}, intruders=True).loc["w"]
            U, s, _ = np.linalg.svd(W_part, full_matrices=False)
            expected = intruders(np.linalg.svd(W0_part, full_matrices=False)[0], U, s)
            assert (compared.intruders, compared.visible) == (expected.number, 1)
            assert compared.intruder_share == pytest.approx(expected.share)
    assert compared.scaling == pytest.approx((W_part - W0_part).ravel() @ W0_part.ravel() / np.square(W0_part).sum())


def test_directions_that_grow_one_after_the_other_have_their_epochs():
    rng = np.random.default_rng(0)
    U, V = (basis(rng.normal(size=(30, 3))) for _ in range(2))
    epochs, final = [10, 20, 30, 40], np.array([3.0, 2.0, 1.0])
    # Half of each after 15, 25 and 35 epochs; at 20 the last final direction is the leading one.
    sizes = np.array([[0, 0, 0.2], [3, 0, 0.2], [3, 2, 0.2], [3, 2, 0.8]])
    found = growth(epochs, [(U * row) @ V.T for row in sizes], U, final, V.T, 50)
    np.testing.assert_allclose(found.half, [15, 25, 30 + 10 * 0.3 / 0.6])
    np.testing.assert_allclose(found.matched[1:], sizes[1:], atol=1e-12)
    np.testing.assert_allclose(found.cosine[3], 1)
