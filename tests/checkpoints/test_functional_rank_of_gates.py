"""The functional rank of single gates: which rows are cut, and what the rest does meanwhile."""

import pytest
import torch
from torch import nn

import rankscope as rs
from rankscope.errors import InputError

N = 8
RANKS = {"r": 1, "z": 2, "n": 3}


def directions(rows, columns, rank, seed):
    rng = torch.Generator().manual_seed(seed)
    U, V = (torch.linalg.qr(torch.randn(size, rank, generator=rng).double()).Q for size in (rows, columns))
    return U @ V.T


def pair(kind=nn.GRU, ranks=RANKS):
    """A network before and after; what each gate learned has a rank of its own, and equal directions."""
    before = kind(3, N, dtype=torch.float64).requires_grad_(False)
    after = kind(3, N, dtype=torch.float64).requires_grad_(False)
    after.load_state_dict(before.state_dict())
    blocks = [directions(N, N, rank, seed) for seed, rank in enumerate(ranks.values())]
    after.weight_hh_l0.add_(torch.cat(blocks))
    after.weight_ih_l0.add_(0.1)
    return before, after


def distance_to(target):
    def evaluate(model):
        return float((model.weight_hh_l0 - target.weight_hh_l0).square().sum())

    return evaluate


def ranks_of(found):
    return {name: result.rank for name, result in found.items()}


@pytest.mark.parametrize("method", ["bisection", "curve"])
def test_each_gate_by_itself(method):
    before, after = pair()
    model = nn.GRU(3, N, dtype=torch.float64)
    own = {name: w.clone() for name, w in model.state_dict().items()}
    layers = ["weight_hh_l0", "weight_hh_l0[*]"]
    found = rs.functional_rank(
        model, before, after, distance_to(after), layers, tolerance=1e-6, jointly=False, method=method
    )
    assert ranks_of(found) == {
        "weight_hh_l0": 6,
        "weight_hh_l0[r]": 1,
        "weight_hh_l0[z]": 2,
        "weight_hh_l0[n]": 3,
    }
    # without the change of this gate alone, all directions of which are equally long
    assert found["weight_hh_l0[z]"].start == pytest.approx(2)
    assert found["weight_hh_l0[n]"].start == pytest.approx(3)
    assert all(torch.equal(w, own[name]) for name, w in model.state_dict().items())


def test_the_other_gates_are_whole_meanwhile():
    before, after = pair()
    found = rs.functional_rank(
        nn.GRU(3, N, dtype=torch.float64),
        before,
        after,
        distance_to(after),
        ["weight_hh_l0[*]"],
        jointly=False,
        method="curve",
        ranks=[0, 1],
    )
    assert ranks_of(found) == {"weight_hh_l0[r]": 1, "weight_hh_l0[z]": None, "weight_hh_l0[n]": None}
    for result, rank in zip(found.values(), RANKS.values(), strict=True):
        assert result.scores == pytest.approx({0: rank, 1: rank - 1})
        assert result.end == pytest.approx(0)


def test_all_gates_together():
    before, after = pair()
    found = rs.functional_rank(
        nn.GRU(3, N, dtype=torch.float64), before, after, distance_to(after), ["*[*]"], method="curve"
    )
    assert found.rank == 3
    assert found.layers == tuple(f"weight_{which}_l0[{gate}]" for which in ("ih", "hh") for gate in "rzn")
    assert found.start == pytest.approx(6)
    assert {rank: round(score, 9) for rank, score in found.scores.items()} == {0: 6, 1: 3, 2: 1, 3: 0}


def test_the_gates_of_an_lstm():
    ranks = {"i": 1, "f": 4, "g": 2, "o": 3}
    before, after = pair(nn.LSTM, ranks)
    model = nn.LSTM(3, N, dtype=torch.float64)
    found = rs.functional_rank(
        model, before.state_dict(), after, distance_to(after), ["*hh*[g]", "weight_hh_l0[f]"], jointly=False
    )
    assert ranks_of(found) == {"weight_hh_l0[f]": 4, "weight_hh_l0[g]": 2}
    names = [f"weight_hh_l0[{gate}]" for gate in ranks]
    assert ranks_of(rs.functional_rank(model, before, after, distance_to(after), names, jointly=False)) == dict(
        zip(names, ranks.values(), strict=True)
    )


def test_gates_that_did_not_change_are_left_out():
    before, after = pair()
    after.weight_hh_l0[:N] = before.weight_hh_l0[:N]
    model = nn.GRU(3, N, dtype=torch.float64)
    found = rs.functional_rank(model, before, after, distance_to(after), ["weight_hh_l0[*]"], jointly=False)
    assert ranks_of(found) == {"weight_hh_l0[z]": 2, "weight_hh_l0[n]": 3}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["weight_hh_l0[q]"], r"layers must be one of .*'weight_hh_l0\[z\]'.* got 'weight_hh_l0\[q\]'"),
        (["weight_hh_l1[z]"], r"did you mean 'weight_hh_l0\[z\]'"),
        (["weight_hh_l0", "weight_hh_l0[z]"], r"layers must not name 'weight_hh_l0\[z\]' beside the whole matrix"),
    ],
)
def test_what_is_refused(layers, message):
    before, after = pair()
    with pytest.raises(InputError, match=message):
        rs.functional_rank(nn.GRU(3, N, dtype=torch.float64), before, after, distance_to(after), layers)


def test_a_matrix_without_gates():
    before, after = ({"weight": w} for w in (torch.zeros(4, 4), torch.eye(4)))
    model = nn.Linear(4, 4, bias=False)
    with pytest.raises(InputError, match=r"got 'weight\[z\]', but no matrix has gates"):
        rs.functional_rank(model, before, after, lambda _: 0.0, ["weight[z]"])
    # factors are of whole matrices
    with pytest.raises(InputError, match="layers must be one of"):
        rs.low_rank_factors(*pair(), rank=1, layers=["weight_hh_l0[z]"])


def test_a_trained_gated_network_in_few_lines():
    task = rs.tasks.FlipFlop(channels=1, duration=20)
    network = rs.GatedRNN.initialize(task, "lstm", hidden_size=24, rng=0)
    before = network.snapshot()
    rs.train(network, task, 120, rng=0, learning_rate=0.02)
    trials = task.sample(64, rng=1)
    layers = ["rnn.weight_hh_l0", "rnn.weight_hh_l0[*]"]
    found = rs.functional_rank(
        network, before, network, lambda model: rs.evaluate(model, trials), layers, jointly=False, method="curve"
    )
    whole = found["rnn.weight_hh_l0"]
    assert len(found) == 5
    assert whole.end < 0.05 * whole.start
    assert 1 <= whole.rank <= 6
    # the paper's rule on the same network: nearly the same threshold, the same curve
    losses = rs.lowrank.truncation_losses(before, network, trials, range(25))
    assert abs(rs.lowrank.functional_rank(losses) - whole.rank) <= 1
    for rank, score in whole.scores.items():
        assert score == pytest.approx(losses[rank], rel=1e-3)
