"""Truncation curves: networks of known rank, truncation by hand, and the same from two ways of running a network."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import rankscope as rs
from rankscope.errors import InputError
from rankscope.lowrank import find_functional_rank, truncation_curve

TASK = rs.tasks.FlipFlop(duration=15)
TRIALS = TASK.sample(8, rng=3)


def moved(network, rank, seed=0):
    """Return a copy whose matrices have all changed by `rank` directions."""
    after = copy.deepcopy(network)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for weights in after.parameters():
            if weights.ndim == 2:
                left, right = (rng.normal(size=(n, rank)) for n in weights.shape)
                weights.add_(torch.tensor(left @ right.T / weights.shape[1]).to(weights))
    return after


def gated(rank=2, kind="gru", layers=2):
    before = rs.GatedRNN.initialize(TASK, kind, 6, layers, 0, dtype=torch.float64)
    return before, moved(before, rank)


def rate(rank=3, size=12, dtype=torch.float64, **options):
    before = rs.RateRNN.initialize(TASK, size, rng=0, dtype=dtype, **options)
    return before, moved(before, rank)


def by_hand(before, after, names, rank, weights=False):
    """Return `after` with these matrices truncated, by torch's decomposition."""
    twin = copy.deepcopy(after)
    with torch.no_grad():
        for name in names:
            W0, W = before.get_parameter(name), after.get_parameter(name)
            start = torch.zeros_like(W0) if weights else W0
            U, s, Vt = torch.linalg.svd(W - start, full_matrices=False)
            twin.get_parameter(name).copy_(start + (U[:, :rank] * s[:rank]) @ Vt[:rank])
    return twin


@pytest.mark.parametrize("values", [(1.0,), (2.0, 1.5, 1.2), (1.0, 0.9, 0.8, 0.7, 0.6)])
def test_a_task_that_needs_r_channels_has_rank_r(values):
    """Each of r inputs reaches its own output through one direction of dW; without it that output is silent."""
    r, N, s = len(values), 16, np.array(values)
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.normal(size=(N, N)))[0][:, :r] for _ in range(2))
    W0 = rng.normal(size=(N, N)) / 4
    W0 -= U @ U.T @ W0
    options = {"dt": 1.0, "nonlinearity": "identity"}
    before = rs.RateRNN(V, W0, U.T, **options)
    after = rs.RateRNN(V, W0 + (U * s) @ V.T, U.T, **options)
    inputs, targets, mask = np.zeros((3, r, 2, r))
    inputs[:, 0] = np.eye(r)
    targets[:, 1], mask[:, 1] = np.diag(s), 1
    trials = rs.Trials(*(torch.as_tensor(x) for x in (inputs, targets, mask)))
    curve = truncation_curve(before, after, trials, ranks=range(r + 3))
    np.testing.assert_allclose(curve.scores, [0.5 * (s[R:] ** 2).sum() / r**2 for R in range(r + 3)], atol=1e-12)
    assert rs.functional_rank(curve) == find_functional_rank(before, after, trials).rank == r


@pytest.mark.parametrize("truncate", ["change", "weights"])
@pytest.mark.parametrize(
    ("pair", "tolerance"),
    [
        (gated(), 1e-9),
        (gated(kind="lstm", layers=1), 1e-9),
        (rate(), 1e-9),
        (rate(dtype=torch.float32), 1e-4),
        (rate(convention="rate"), 1e-9),
        (rate(nonlinearity="softplus", readout_nonlinearity="identity"), 1e-9),
        (rate(nonlinearity=torch.sin, trained=("recurrent", "bias", "initial_state")), 1e-9),
    ],
)
def test_losses_are_those_of_networks_truncated_by_hand(pair, tolerance, truncate):
    before, after = pair
    names = ["recurrent_weights"] if isinstance(after, rs.RateRNN) else list(after.recurrent_names())
    curve = truncation_curve(before, after, TRIALS, ranks=[6, 0, 2, 1], truncate=truncate)
    assert curve.ranks == (0, 1, 2, 6)
    assert curve.matrices == tuple(names)
    for rank, score in zip(curve.ranks, curve.scores, strict=True):
        twin = by_hand(before, after, names, rank, truncate == "weights")
        assert score == pytest.approx(rs.evaluate(twin, TRIALS), rel=tolerance)
    assert curve.full == pytest.approx(rs.evaluate(after, TRIALS), rel=tolerance)
    assert len(set(curve.scores.round(6))) >= 3


def test_the_fast_path_of_rate_networks_is_the_same_as_one_network_at_a_time():
    before, after = rate()
    fast = truncation_curve(before, after, TRIALS)
    slow = truncation_curve(before, after, score=lambda network: rs.evaluate(network, TRIALS))
    assert fast.ranks == slow.ranks == tuple(range(13))
    np.testing.assert_allclose(fast.scores, slow.scores, rtol=1e-9)
    assert fast.full == pytest.approx(slow.full, rel=1e-9)


def test_noise_is_the_same_for_all_ranks_and_comes_from_rng():
    after = rs.RateRNN.initialize(TASK, 12, rng=0, noise_std=0.3, dtype=torch.float64)
    curve = truncation_curve(after.snapshot(), after, TRIALS, ranks=range(4), rng=3)
    np.testing.assert_array_equal(curve.scores, curve.full)
    assert curve.full == pytest.approx(rs.evaluate(after, TRIALS, rng=3), rel=1e-10)
    assert truncation_curve(after.snapshot(), after, TRIALS, ranks=[0], rng=4).full != curve.full


def test_scores_one_by_one_leave_the_other_matrices_as_trained():
    before, after = gated()
    names = ["rnn.weight_hh_l0", "readout.weight"]
    each = truncation_curve(before, after, TRIALS, ranks=[0, 1], matrices=names, jointly=False)
    assert list(each) == names
    for name, curve in each.items():
        assert curve.scores[0] == pytest.approx(rs.evaluate(by_hand(before, after, [name], 0), TRIALS), rel=1e-9)


def test_a_matrix_named_together_with_its_gates_is_truncated_whole():
    before, after = gated(layers=1)
    whole = truncation_curve(before, after, TRIALS, ranks=[0, 1], matrices=["rnn.weight_hh_l0"])
    names = ["rnn.weight_hh_l0", "rnn.weight_hh_l0[*]"]
    each = truncation_curve(before, after, TRIALS, ranks=[0, 1], matrices=names, jointly=False)
    np.testing.assert_array_equal(each["rnn.weight_hh_l0"].scores, whole.scores)


def test_a_gate_is_truncated_alone():
    before, after = gated(layers=1)
    twin = copy.deepcopy(after)
    with torch.no_grad():
        twin.rnn.weight_hh_l0[6:12] = before.rnn.weight_hh_l0[6:12]
    curve = truncation_curve(before, after, TRIALS, ranks=[0, 6], matrices=["rnn.weight_hh_l0[z]"])
    assert curve.scores[0] == pytest.approx(rs.evaluate(twin, TRIALS), rel=1e-9)
    assert curve.scores[1] == pytest.approx(curve.full, rel=1e-9)
    with pytest.raises(InputError, match=r"must not name 'rnn.weight_hh_l0\[z\]' together with its whole matrix"):
        truncation_curve(before, after, TRIALS, matrices=["rnn.weight_hh_l0", "rnn.weight_hh_l0[z]"])


def test_accuracy_and_a_function_of_ones_own():
    before, after = rate()
    trials = rs.Trials(TRIALS.inputs, (TRIALS.targets > 0).float(), torch.ones_like(TRIALS.mask))
    curve = truncation_curve(before, after, trials, score="accuracy", ranks=[0, 3])
    assert curve.higher_is_better
    twin = by_hand(before, after, ["recurrent_weights"], 0)
    assert curve.scores[0] == rs.accuracy(twin(trials.inputs), trials.targets, trials.mask)
    modes = []

    def score(network):
        modes.append((network.training, torch.is_grad_enabled()))
        return -rs.evaluate(network, TRIALS)

    own = truncation_curve(before, after, ranks=[0, 3], score=score, higher_is_better=True)
    np.testing.assert_allclose(own.scores, -truncation_curve(before, after, TRIALS, ranks=[0, 3]).scores)
    assert set(modes) == {(False, False)}


def test_nothing_that_was_given_is_changed():
    dropped = nn.Sequential(nn.Linear(2, 6), nn.Dropout(0.5), nn.Linear(6, 2))
    for before, after in (gated(), rate(), (dropped, moved(dropped, 1))):
        names = ["0.weight"] if isinstance(after, nn.Sequential) else None
        kept = [copy.deepcopy(network.state_dict()) for network in (before, after)]
        curve = truncation_curve(before, after, TRIALS, ranks=[0, 1], matrices=names)
        rs.lowrank.shuffled_loss(before, after, TRIALS, 0, matrices=names)
        for network, state in zip((before, after), kept, strict=True):
            assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
            assert all(p.grad is None for p in network.parameters())
        assert after.training
        assert curve.scores[1] == pytest.approx(curve.full, rel=1e-4) or after is not dropped


def test_a_parametrized_weight_is_truncated_as_what_it_is_in_the_network():
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    plain = nn.Sequential(nn.Linear(2, 6), nn.Linear(6, 2)).double()
    after = moved(plain, 1)
    constrained = copy.deepcopy(plain), copy.deepcopy(after)
    for network in constrained:
        nn.utils.parametrize.register_parametrization(network[0], "weight", Doubled())
    with torch.no_grad():
        plain[0].weight *= 2
        after[0].weight *= 2
    expected, found = (
        truncation_curve(*pair, score=lambda net: rs.evaluate(net, TRIALS), matrices=["0.weight"], ranks=[0, 1])
        for pair in ((plain, after), constrained)
    )
    np.testing.assert_allclose(found.scores, expected.scores)
    torch.testing.assert_close(constrained[1][0].weight, after[0].weight)  # the network itself is still whole


class ByHand(nn.Module):
    """A layer whose matrix is computed, and one that no forward pass reads."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.V, self.other = (nn.Parameter(torch.rand(2, 2)) for _ in range(2))

    @property
    def matrix(self):
        return self.V.abs()

    def forward(self, inputs):
        return inputs @ self.matrix


def test_a_score_that_does_not_depend_on_the_truncated_matrix_is_noticed():
    before = ByHand()
    after = moved(before, 2)
    options = {"matrices": ["matrix"], "ranks": [0, 1, 2]}
    curve = truncation_curve(before, after, score=lambda net: rs.evaluate(copy.deepcopy(net), TRIALS), **options)
    np.testing.assert_allclose(curve.scores, truncation_curve(before, after, TRIALS, **options).scores)
    with pytest.raises(InputError, match=r"score must use the matrix 'matrix' .* does not read it"):
        truncation_curve(before, after, score=lambda net: float((TRIALS.inputs @ net.V.abs()).sum()), **options)
    with pytest.warns(UserWarning, match="at every rank, and with NaN in place of 'other'"):
        truncation_curve(before, after, score=lambda net: rs.evaluate(net, TRIALS), matrices=["other"], ranks=[0, 1])


@pytest.mark.filterwarnings("ignore:score is 1 at every rank")
@pytest.mark.parametrize("needed", [0, 1, 3, 7])
def test_bisection_finds_the_rank_of_the_whole_curve_with_few_evaluations(needed):
    before, after = rate(rank=10, size=40)
    directions = rs.change(before, after)
    evaluated = []

    def score(network):
        """Return how many of the directions that the task needs are there."""
        evaluated.append(network)
        dW = network.recurrent_weights.detach().numpy() - directions.before
        strengths = np.einsum("ik,ij,kj->k", directions.svd[0], dW, directions.svd[2]) / directions.svd[1]
        return float(np.clip(strengths[:needed], 0, 1).sum()) if needed else 1.0

    rank, curve = find_functional_rank(before, after, score=score, higher_is_better=True)
    assert rank == needed
    assert len(evaluated) <= 6  # of ranks 0 to 10
    assert set(curve.ranks) <= set(range(11))
    whole = truncation_curve(before, after, score=score, higher_is_better=True, ranks=range(11))
    assert rs.functional_rank(whole, "recovered") == needed
    assert find_functional_rank(before, after, score=score, higher_is_better=True, ranks=[0, 1, 5]).rank == (
        None if needed == 7 else {0: 0, 1: 1, 3: 5}[needed]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": [-1]}, "rank must be a whole number >= 0 and <= 6, got -1"),
        ({"ranks": [7]}, "rank must be a whole number >= 0 and <= 6, got 7"),
        ({"ranks": [1.0]}, "rank must be a whole number"),
        ({"ranks": []}, "ranks must have at least one rank"),
        ({"score": "acuracy"}, "did you mean 'accuracy'"),
        ({"score": lambda network: None}, "score must return a number, got NoneType"),
        ({"truncate": "dW"}, "truncate must be one of 'change', 'weights'"),
        ({"trials": None}, "trials must be given for score='loss', got None"),
    ],
)
def test_arguments_that_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        truncation_curve(*gated(), **{"trials": TRIALS, **options})
