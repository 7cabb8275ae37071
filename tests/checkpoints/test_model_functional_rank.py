"""The functional rank of a model: known where the change was built so; and the model gets its own weights back."""

import copy

import pytest
import torch
from checkpoint_cases import low_rank, write_adapter
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import rankscope as rs
from rankscope.checkpoints.functional import _bisected


class Case:
    """A model of two linear layers whose change has that rank, every direction as important as any other."""

    def __init__(self, rank, size=24):
        torch.manual_seed(rank)
        self.model = nn.Sequential(nn.Linear(size, size), nn.Linear(size, size)).double()
        self.before = copy.deepcopy(self.model.state_dict())
        self.after = copy.deepcopy(self.before)
        for index, name in enumerate(("0.weight", "1.weight")):
            self.after[name] += low_rank(size, size, rank, seed=index)
        self.after["1.bias"] += 1.0
        trained = copy.deepcopy(self.model)
        trained.load_state_dict(self.after)
        self.inputs = torch.randn(200, size, dtype=torch.float64)
        with torch.no_grad():
            self.targets = trained(self.inputs)
        self.calls = 0

    def loss(self, model):
        self.calls += 1
        return ((model(self.inputs) - self.targets) ** 2).mean()

    def accuracy(self, model):
        """Return the share of outputs that are right: a number that rises."""
        return ((model(self.inputs) - self.targets).abs() < 1e-6).double().mean()


@pytest.mark.parametrize("method", ["bisection", "curve"])
@pytest.mark.parametrize("rank", [1, 3, 10])
def test_a_change_built_with_a_known_rank_has_it(rank, method):
    case = Case(rank)
    found = rs.functional_rank(case.model, case.before, case.after, case.loss, method=method)
    assert found.rank == rank
    assert found.layers == ("0.weight", "1.weight")
    assert found.end == pytest.approx(0, abs=1e-20)
    assert found.scores[0] == found.start > found.threshold > found.end
    by_layer = rs.functional_rank(case.model, case.before, case.after, case.loss, jointly=False, method=method)
    assert {name: one.rank for name, one in by_layer.items()} == {"0.weight": rank, "1.weight": rank}


@pytest.mark.parametrize("method", ["bisection", "curve"])
def test_an_accuracy_is_better_higher(method):
    case = Case(3)
    found = rs.functional_rank(case.model, case.before, case.after, case.accuracy, higher_is_better=True, method=method)
    assert (found.rank, found.start, found.end, found.threshold) == (3, 0, 1, pytest.approx(0.95))


def test_the_curve_has_every_rank_and_bisection_few_of_them():
    case = Case(10)
    curve = rs.functional_rank(case.model, case.before, case.after, case.loss, method="curve")
    assert list(curve.scores) == list(range(11))
    assert case.calls == 12  # and the whole change
    case.calls = 0
    bisected = rs.functional_rank(case.model, case.before, case.after, case.loss)
    assert case.calls <= 6
    assert bisected.scores.items() <= curve.scores.items()


def test_the_curve_agrees_with_the_paper_s_measurement_on_our_own_network():
    task = rs.tasks.FlipFlop()
    network = rs.RateRNN.initialize(task, hidden_size=24, gain=0.8, rng=0)
    before = network.snapshot()
    rs.train(network, task, epochs=200, rng=0, learning_rate=0.005)
    trials = task.sample(64, rng=1)
    losses = rs.lowrank.truncation_losses(before, network, trials, ranks=range(8))
    found = rs.functional_rank(
        network,
        before,
        network,
        lambda model: rs.evaluate(model, trials),
        layers=["recurrent_weights"],
        method="curve",
        ranks=range(8),
    )
    assert list(found.scores.values()) == pytest.approx(losses, rel=1e-4)


def test_the_other_weights_are_those_after_learning():
    case = Case(2)
    seen = []

    def evaluate(model):
        seen.append((model[1].bias.clone(), model[1].weight.clone()))
        return case.loss(model)

    rs.functional_rank(case.model, case.before, case.after, evaluate, layers=["0.*"])
    for bias, weight in seen:
        assert torch.equal(bias, case.after["1.bias"])
        assert torch.equal(weight, case.after["1.weight"])


def test_layer_by_layer_the_others_have_their_whole_change():
    case = Case(2)
    seen = []

    def evaluate(model):
        seen.append([torch.equal(model[i].weight, case.after[f"{i}.weight"]) for i in (0, 1)])
        return case.loss(model)

    rs.functional_rank(case.model, case.before, case.after, evaluate, jointly=False)
    assert all(any(whole) for whole in seen)
    assert [False, True] in seen
    assert [True, False] in seen


@pytest.mark.parametrize("jointly", [True, False])
@pytest.mark.parametrize("fails", [None, 1, 3])
def test_the_model_gets_its_weights_and_modes_back_whatever_happens(jointly, fails):
    case = Case(3)
    own = {name: torch.randn_like(value) for name, value in case.before.items()}
    case.model.load_state_dict(own)
    case.model.train()
    case.model[1].eval()

    def evaluate(model):
        model.eval()
        model[0].weight.mul_(2)  # a careless one
        if fails is not None and case.calls >= fails:
            raise KeyboardInterrupt
        return case.loss(model)

    try:
        rs.functional_rank(case.model, case.before, case.after, evaluate, jointly=jointly)
    except KeyboardInterrupt:
        assert fails is not None
    else:
        assert fails is None
    assert all(torch.equal(value, own[name]) for name, value in case.model.state_dict().items())
    assert [module.training for module in case.model.modules()] == [True, True, False]


def test_the_model_may_itself_be_what_was_trained():
    case = Case(3)
    case.model.load_state_dict(case.after)
    assert rs.functional_rank(case.model, case.before, case.model, case.loss).rank == 3
    assert torch.equal(case.model[0].weight, case.after["0.weight"])


def test_weights_from_files_and_under_prefixes(tmp_path):
    case = Case(3)
    save_file(case.before, tmp_path / "before.safetensors")
    torch.save({"state_dict": {f"module.{name}": value for name, value in case.after.items()}}, tmp_path / "after.pt")
    found = rs.functional_rank(case.model, tmp_path / "before.safetensors", tmp_path / "after.pt", case.loss)
    assert found.rank == 3


def test_an_adapter_over_its_base(tmp_path):
    case = Case(3)
    factors = {}
    for name in ("0", "1"):
        U, s, Vt = torch.linalg.svd(case.after[f"{name}.weight"] - case.before[f"{name}.weight"])
        factors[name] = (U[:, :4] * s[:4], Vt[:4])
    folder = write_adapter(tmp_path / "adapter", factors, {"lora_alpha": 4})
    case.before["1.bias"] += 1.0  # the adapter has none
    assert rs.functional_rank(case.model, case.before, folder, case.loss).rank == 3


def test_a_convolution_is_put_back_in_its_shape():
    torch.manual_seed(0)
    model = nn.Conv2d(3, 8, 3).double()
    before = copy.deepcopy(model.state_dict())
    after = before | {"weight": before["weight"] + low_rank(8, 27, 2).reshape(8, 3, 3, 3)}
    inputs = torch.randn(4, 3, 9, 9, dtype=torch.float64)
    model.load_state_dict(after)
    with torch.no_grad():
        targets = model(inputs)
    assert rs.functional_rank(model, before, after, lambda m: ((m(inputs) - targets) ** 2).mean()).rank == 2


def test_half_precision_models():
    torch.manual_seed(0)
    model = nn.Linear(16, 16).bfloat16()
    before = copy.deepcopy(model.state_dict())
    after = before | {"weight": (before["weight"].double() + low_rank(16, 16, 2, scale=3.0)).bfloat16()}
    inputs = torch.randn(100, 16)

    def loss(m):
        return ((inputs @ m.weight.float().t() - inputs @ after["weight"].float().t()) ** 2).mean()

    assert rs.functional_rank(model, before, after, loss).rank == 2


def test_a_model_that_is_no_worse_without_the_change_needs_none():
    case = Case(2)
    assert rs.functional_rank(case.model, case.before, case.after, lambda model: 1.0).rank == 0
    worse_after = rs.functional_rank(case.model, case.before, case.after, case.loss, higher_is_better=True)
    assert worse_after.rank == 0


@pytest.mark.parametrize("method", ["bisection", "curve"])
def test_where_no_rank_that_was_tried_suffices_there_is_none(method):
    case = Case(10)
    found = rs.functional_rank(case.model, case.before, case.after, case.loss, method=method, ranks=[0, 2, 5])
    assert found.rank is None
    assert found.scores[5] > found.threshold


@given(first=st.integers(0, 40), count=st.integers(1, 40))
def test_bisection_finds_the_first_that_suffices_in_few_steps(first, count):
    asked = []

    def suffices(rank):
        asked.append(rank)
        return rank >= first

    assert _bisected(range(count), suffices) == (first if first < count else None)
    assert len(asked) == len(set(asked)) <= count.bit_length()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tolerance": 0}, r"tolerance must be .* > 0 and < 1, got 0"),
        ({"tolerance": 1}, "tolerance"),
        ({"method": "bisect"}, "did you mean 'bisection'"),
        ({"ranks": []}, "ranks must have at least one"),
        ({"ranks": [-1]}, "ranks must be a whole number >= 0"),
        ({"layers": "0.weight"}, r"layers must be a list of names.*\['0\.weight'\]"),
        ({"layers": ["0.wieght"]}, "did you mean '0.weight'"),
        ({"layers": ["0.bias"]}, "'0.bias' is left out: a bias"),
        ({"layers": []}, "at least one matrix that changed"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_evaluated(options, named):
    case = Case(1)
    with pytest.raises(rs.InputError, match=named):
        rs.functional_rank(case.model, case.before, case.after, case.loss, **options)
    assert case.calls == 0


@pytest.mark.parametrize(
    ("value", "named"), [("low", "got str"), (None, "got NoneType"), (float("nan"), "finite"), (float("inf"), "finite")]
)
def test_a_score_that_is_no_number_is_refused(value, named):
    case = Case(1)
    with pytest.raises(rs.InputError, match=f"evaluate must return a .*{named}"):
        rs.functional_rank(case.model, case.before, case.after, lambda model: value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
def test_weights_that_are_not_finite_are_refused_by_name(value):
    case = Case(1)
    case.after["0.weight"] = torch.full_like(case.after["0.weight"], value)
    for call in (
        lambda: rs.functional_rank(case.model, case.before, case.after, case.loss),
        lambda: rs.low_rank_factors(case.before, case.after, 2),
    ):
        with pytest.raises(rs.InputError, match=r"layers must not have '0\.weight'"):
            call()


def test_weights_that_do_not_fit_the_model_are_refused():
    case = Case(1)
    with pytest.raises(rs.InputError, match="model must have the weights"):
        rs.functional_rank(nn.Conv1d(1, 1, 1), {"w": torch.zeros(2, 2)}, {"w": torch.ones(2, 2)}, case.loss)
    with pytest.raises(rs.InputError, match=r"model must have the shapes.*\(3, 3\)"):
        rs.functional_rank(nn.Sequential(nn.Linear(3, 3)), case.before, case.after, case.loss)
    with pytest.raises(rs.InputError, match=r"'1\.weight', which is not in it"):
        rs.functional_rank(nn.Sequential(nn.Linear(24, 24)), case.before, case.after, case.loss)
    same = {"0.weight": case.before["0.weight"]}
    with pytest.raises(rs.InputError, match="at least one matrix that changed"):
        rs.functional_rank(case.model, same, same, case.loss)
