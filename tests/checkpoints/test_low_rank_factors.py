"""Factors of the change: they multiply to the best approximation, and come back from a file as an adapter."""

import pytest
import torch
from checkpoint_cases import changed, low_rank, transformer
from hypothesis import given, settings
from hypothesis import strategies as st

import rankscope as rs
from rankscope.checkpoints import factors as module


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), rank=st.integers(1, 14), seed=st.integers(0, 5))
def test_factors_multiply_to_the_best_approximation(rows, columns, rank, seed):
    dW = torch.randn(rows, columns, generator=torch.manual_seed(seed), dtype=torch.float64)
    A, B = rs.low_rank_factors({"w": torch.zeros_like(dW)}, {"w": dW}, rank)["w"]
    assert (A.shape, B.shape) == ((rank, columns), (rows, rank))
    error = torch.linalg.matrix_norm(dW - B.double() @ A.double(), 2).item()
    left = torch.linalg.svdvals(dW)[rank:]
    assert error == pytest.approx(left[0].item() if len(left) else 0, abs=1e-5)


def test_what_is_saved_is_an_adapter_with_the_same_change(tmp_path):
    before = transformer()
    after = changed(before, rank=3)
    factors = rs.low_rank_factors(before, after, 3)
    assert len(factors) == 13
    folder = factors.save(tmp_path / "adapter")
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    for frame in (rs.compare(folder), rs.compare(before, folder)):
        assert set(frame.index) == set(factors)
        assert frame.numerical_rank.tolist() == [3] * 13
        for values in frame.singular_values:
            assert values == pytest.approx([1, 1, 1], rel=1e-5)


def test_recurrent_weights_and_convolutions_come_back_under_their_names(tmp_path):
    model = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(3, 4), "conv": torch.nn.Conv2d(2, 5, 3)})
    before = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    folder = rs.low_rank_factors(before, model, 2).save(tmp_path / "adapter")
    frame, whole = rs.compare(before, folder), rs.compare(before, model)
    assert set(frame.index) == set(whole.index)
    assert "lstm.weight_hh_l0[f]" in frame.index
    assert frame.loc["conv.weight"]["shape"] == (5, 2, 3, 3)
    for name in ("conv.weight", "lstm.weight_ih_l0"):
        assert frame.loc[name].singular_values[:2] == pytest.approx(whole.loc[name].singular_values[:2], rel=1e-5)


def test_a_factor_of_an_adapter_again(tmp_path):
    folder = rs.low_rank_factors({"w": torch.zeros(6, 5)}, {"w": low_rank(6, 5, 3)}, 3).save(tmp_path / "three")
    A, B = rs.low_rank_factors({"w": torch.zeros(6, 5)}, folder, 1)["w"]
    assert torch.linalg.matrix_norm(B @ A).item() == pytest.approx(1, rel=1e-5)


def test_chosen_layers_only():
    before = transformer()
    factors = rs.low_rank_factors(before, changed(before), 2, layers=["*.q_proj.weight", "lm_head.weight"])
    assert list(factors) == [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)] + ["lm_head.weight"]


def test_large_matrices_by_their_leading_triplets(monkeypatch):
    monkeypatch.setattr(module, "COMPLETE_UP_TO", 0)
    dW = low_rank(80, 60, 4) + 1e-3 * torch.randn(80, 60, generator=torch.manual_seed(0), dtype=torch.float64)
    A, B = rs.low_rank_factors({"w": torch.zeros(80, 60)}, {"w": dW}, 4)["w"]
    U, s, Vt = torch.linalg.svd(dW, full_matrices=False)
    torch.testing.assert_close((B @ A).double(), (U[:, :4] * s[:4]) @ Vt[:4], atol=1e-4, rtol=0)


@pytest.mark.parametrize("rank", [0, -1, 1.5, "3"])
def test_a_rank_that_is_none_is_refused(rank):
    with pytest.raises(rs.InputError, match="rank must be a whole number >= 1"):
        rs.low_rank_factors(transformer(), transformer(), rank)
