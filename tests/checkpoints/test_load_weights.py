"""Checkpoints loaded into copies of a model, and truncation curves of what they are."""

import pytest
import torch
from checkpoint_cases import low_rank, write_adapter
from safetensors.torch import save_file
from torch import nn

import rankscope as rs

SIZE = 24
INPUTS = torch.randn(200, SIZE, generator=torch.manual_seed(5), dtype=torch.float64)


def linear_pair(rank=3):
    """A linear network, and its weights before and after a change of known rank."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = {
        name: value + low_rank(SIZE, SIZE, rank, seed=len(name)) if value.ndim == 2 else value + 1
        for name, value in before.items()
    }
    return model, before, after


def written(folder, state, kind):
    """Write a state dict as somebody else would."""
    if kind == "safetensors":
        save_file(state, folder / "model.safetensors")
        return folder
    path = folder / "training.pt"
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    return path


@pytest.mark.parametrize("kind", ["state dict", "module", "safetensors", "training.pt"])
def test_the_copy_has_the_weights_of_the_checkpoint_and_the_model_its_own(tmp_path, kind):
    model, before, after = linear_pair()
    if kind == "module":
        checkpoint = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)).double()
        checkpoint.load_state_dict(after)
    else:
        checkpoint = after if kind == "state dict" else written(tmp_path, after, kind)
    loaded = rs.load_weights(model, checkpoint)
    assert all(torch.equal(value, after[name]) for name, value in loaded.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_adapter_is_added_to_the_model(tmp_path):
    model, before, _ = linear_pair()
    B, A = torch.randn(SIZE, 3), torch.randn(3, SIZE)
    folder = write_adapter(tmp_path / "adapter", {"1": (B, A)}, {"lora_alpha": 6})
    merged = rs.load_weights(model, folder)
    torch.testing.assert_close(merged[1].weight, before["1.weight"] + 2 * (B.double() @ A.double()))
    assert torch.equal(merged[0].weight, model[0].weight)
    assert rs.change(model, merged, ["1.weight"]).numerical_rank == 3


@pytest.mark.parametrize("rank", [1, 3, 10])
def test_two_files_have_the_functional_rank_that_was_built_into_them(tmp_path, rank):
    model, before, after = linear_pair(rank)
    save_file(before, tmp_path / "before.safetensors")
    first, last = rs.load_weights(model, tmp_path / "before.safetensors"), rs.load_weights(model, after)
    targets = last(INPUTS)

    def loss(network):
        return float(((network(INPUTS) - targets) ** 2).mean())

    names = ["0.weight", "1.weight"]
    curve = rs.truncation_curve(first, last, score=loss, matrices=names, ranks=range(12))
    assert rs.functional_rank(curve, "recovered", tolerance=1e-6) == rank
    found = rs.lowrank.find_functional_rank(first, last, score=loss, matrices=names, tolerance=1e-6)
    assert found.rank == rank
    assert len(found.curve.ranks) <= 5
    each = rs.truncation_curve(first, last, score=loss, matrices=names, ranks=range(12), jointly=False)
    assert [rs.functional_rank(one, "recovered", tolerance=1e-6) for one in each.values()] == [rank, rank]


def test_one_of_our_files_holds_the_network_after_learning(tmp_path):
    task = rs.tasks.FlipFlop()
    before, after = (rs.RateRNN.initialize(task, hidden_size=8, rng=seed) for seed in (0, 1))
    after.save(tmp_path / "network.safetensors", initial=before)
    loaded = rs.load_weights(before, tmp_path / "network.safetensors")
    assert torch.equal(loaded.recurrent_weights, after.recurrent_weights)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    model, _, after = linear_pair()
    B, A = torch.randn(SIZE, 3), torch.randn(3, SIZE)
    for checkpoint, message in (
        ({"w": torch.zeros(2, 2)}, "checkpoint must have the weights of model, got none of their names"),
        ({**after, "0.weight": torch.zeros(2, 2)}, r"must have the shapes of model, got \(2, 2\) for '0.weight'"),
        ({**after, "0.weight": torch.zeros(SIZE, SIZE, device="meta")}, "'0.weight': without values"),
        (tmp_path / "nowhere", "checkpoint must be a checkpoint, got .*nowhere"),
        (write_adapter(tmp_path / "half", {"1": (B[:, :2], A)}), "but '1.weight': the factors do not fit"),
        (write_adapter(tmp_path / "wide", {"1": (B, A[:, :9])}), "but '1.weight': its shape is 24 x 24 in the base"),
    ):
        with pytest.raises(rs.InputError, match=message):
            rs.load_weights(model, checkpoint)
