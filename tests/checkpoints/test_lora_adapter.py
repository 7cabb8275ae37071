"""A LoRA adapter is the change that merging it makes: by itself, over its base, and however it is scaled."""

import json
import math
import re
import time

import pytest
import torch
from checkpoint_cases import transformer, write_adapter
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import rankscope as rs
from rankscope.checkpoints import inspect, open_checkpoint
from rankscope.checkpoints.adapters.patterns import Pattern

LAYER = "model.layers.0.self_attn.q_proj"


def factors(rows=32, columns=32, rank=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, rank, generator=generator), torch.randn(rank, columns, generator=generator)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2.0),
        ({"lora_alpha": 12}, 4.0),
        ({"lora_alpha": 12, "use_rslora": True}, 12 / math.sqrt(3)),
        ({"r": 8, "lora_alpha": 12, "rank_pattern": {"q_proj": 3}}, 4.0),
        ({"alpha_pattern": {"q_proj": 6}}, 2.0),
        ({"alpha_pattern": {"v_proj": 6, "self_attn.q_proj": 9}}, 3.0),
        ({"alpha_pattern": {"^" + LAYER: 9}}, 3.0),
        ({"alpha_pattern": {"^q_proj": 9}}, 2.0),
        ({"alpha_pattern": {r".*layers\.0\..*": 9}}, 3.0),
        ({"alpha_pattern": {"_proj": 9}}, 2.0),
    ],
)
def test_the_scale_is_that_of_peft(tmp_path, config, scale):
    B, A = factors()
    folder = write_adapter(tmp_path / "adapter", {LAYER: (B, A)}, config)
    row = rs.compare(folder).loc[LAYER + ".weight"]
    values = torch.linalg.svdvals(scale * B.double() @ A.double())[:3].tolist()
    assert row.singular_values == pytest.approx(values, rel=1e-12)
    assert (row.numerical_rank, row.method) == (3, "factors")
    assert math.isnan(row.initial_norm)


def test_over_its_base_it_is_what_merging_changes(tmp_path):
    base = transformer()
    parts = {LAYER: factors(), "model.layers.1.mlp.up_proj": factors(96, 32, 2, seed=1)}
    folder = write_adapter(tmp_path / "adapter", parts, {"lora_alpha": 3})
    save_file(base, tmp_path / "base.safetensors")
    alone = rs.compare(tmp_path / "base.safetensors", folder)
    merged = {name: value.clone() for name, value in base.items()}
    for layer, (B, A) in parts.items():
        merged[layer + ".weight"] += 3 / len(A) * B @ A
    whole = rs.compare(base, merged)
    assert list(alone.index) == list(whole.index) == [layer + ".weight" for layer in parts]
    for column in ("norm", "initial_norm", "relative_norm", "stable_rank", "random_edge"):
        assert alone[column].tolist() == pytest.approx(whole[column].tolist(), rel=1e-5)
    assert alone.numerical_rank.tolist() == whole.numerical_rank.tolist() == [3, 2]
    assert alone.attrs["skipped"] == []


def test_heads_of_an_adapter_are_blocks_of_its_factors(tmp_path):
    B, A = factors()
    folder = write_adapter(tmp_path / "adapter", {LAYER: (B, A)}, {"lora_alpha": 3})
    frame = rs.compare(transformer(), folder, heads=4)
    expected = torch.linalg.matrix_norm(B[8:16] @ A).item()
    assert frame.loc[f"{LAYER}.weight[head 1]"].norm == pytest.approx(expected, rel=1e-5)


def test_fan_in_fan_out_is_stored_the_other_way_round(tmp_path):
    B, A = factors(24, 8)
    folder = write_adapter(tmp_path / "adapter", {"h.0.attn.c_attn": (B, A)}, {"fan_in_fan_out": True, "lora_alpha": 3})
    base = {"h.0.attn.c_attn.weight": torch.randn(8, 24)}
    (row,) = rs.compare(base, folder).itertuples()
    assert row.shape == (8, 24)
    merged = open_checkpoint(folder).changed("h.0.attn.c_attn.weight", base["h.0.attn.c_attn.weight"])
    torch.testing.assert_close(merged - base["h.0.attn.c_attn.weight"], (B.double() @ A.double()).t())
    assert row.norm == pytest.approx(torch.linalg.matrix_norm(B @ A).item(), rel=1e-5)


def test_a_convolution_is_unfolded(tmp_path):
    A, B = torch.randn(2, 4, 3, 3), torch.randn(6, 2, 1, 1)
    folder = write_adapter(tmp_path / "adapter", {"conv": (B, A)}, {"lora_alpha": 2})
    (row,) = rs.compare({"conv.weight": torch.randn(6, 4, 3, 3)}, folder).itertuples()
    assert row.shape == (6, 4, 3, 3)
    assert row.norm == pytest.approx(torch.linalg.matrix_norm(B.flatten(1) @ A.flatten(1)).item(), rel=1e-5)


def test_weights_that_were_saved_whole_are_compared_as_such(tmp_path):
    base = transformer()
    head = base["lm_head.weight"] + 0.1
    folder = write_adapter(
        tmp_path / "adapter", {LAYER: factors()}, whole={"base_model.model.lm_head.weight": head.contiguous()}
    )
    frame = rs.compare(base, folder)
    assert frame.loc["lm_head.weight"].numerical_rank == 1
    alone = rs.compare(folder)
    assert list(alone.index) == [LAYER + ".weight"]
    assert alone.attrs["skipped"][0]["name"] == "lm_head.weight"


def test_what_is_no_plain_change_is_skipped_with_its_reason(tmp_path):
    B, A = factors()
    odd = torch.ones(3, 2, 2), torch.ones(2, 4)  # B of a convolution that is more than one wide
    folder = write_adapter(
        tmp_path / "adapter",
        {
            LAYER: (B, A),
            "bad": (B[:, :2], A),
            "odd": odd,
            "nan": (B * torch.nan, A),
            "zero": (0 * B, A),
            "dora": (B, A),
        },
        whole={
            "base_model.model.half.lora_A.weight": A,
            "base_model.model.dora.lora_magnitude_vector": torch.ones(32),
            "base_model.model.wte.lora_embedding_A": torch.ones(3, 50),
            "base_model.model.odd_one.lora_new_thing": torch.ones(3),
        },
    )
    frame = rs.compare(folder)
    assert list(frame.index) == [LAYER + ".weight"]
    reasons = {one["name"]: one["reason"] for one in frame.attrs["skipped"]}
    assert set(reasons) == {
        f"{name}.weight" for name in ("bad", "odd", "nan", "zero", "dora", "half", "wte", "odd_one")
    }
    assert "do not fit" in reasons["bad.weight"]
    assert "do not fit" in reasons["odd.weight"]
    assert "must be finite" in reasons["nan.weight"]
    assert reasons["zero.weight"] == "the same before and after"
    assert "DoRA" in reasons["dora.weight"]
    assert "only lora_A" in reasons["half.weight"]
    assert "only lora_embedding_A" in reasons["wte.weight"]
    assert "lora_new_thing is not" in reasons["odd_one.weight"]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"lora_alpha": "much"}, "'much'"),
        ({"lora_alpha": None}, "None"),
        ({"alpha_pattern": [1]}, "alpha_pattern"),
        ({"alpha_pattern": {"q_proj": True}}, "True"),
        ({"alpha_pattern": {"[": 1}}, r"'\['"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused(tmp_path, config, named):
    folder = write_adapter(tmp_path / "adapter", {LAYER: factors()}, config)
    with pytest.raises(rs.InputError, match=f"adapter_config.json must .*{named}"):
        open_checkpoint(folder)


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "a++", "x" * 501, "(" * 9 + "a" + ")" * 9, "a)", "(a"])
def test_a_pattern_that_is_not_plain_is_refused(tmp_path, pattern):
    folder = write_adapter(tmp_path / "adapter", {LAYER: factors()}, {"alpha_pattern": {pattern: 1}})
    with pytest.raises(rs.InputError, match="plainly"):
        open_checkpoint(folder)


@pytest.mark.parametrize("pattern", ["(a+)+b", "(.*)*b", "(a|a)*c", ".*.*.*.*.*.*.*x", "a?" * 120 + "a" * 120 + "b"])
def test_a_pattern_that_would_take_python_for_ever_takes_no_time(tmp_path, pattern):
    folder = write_adapter(tmp_path / "adapter", {"a" * 200: factors()}, {"alpha_pattern": {pattern: 1, "a*": 3}})
    started = time.perf_counter()
    found = open_checkpoint(folder).factors("a" * 200 + ".weight")
    assert time.perf_counter() - started < 1
    torch.testing.assert_close(found.B, factors()[0].double())


@given(
    st.lists(st.sampled_from(["a", "b", r"\.", ".", "a*", "b?", "(a|b)", "[^a]+", "^", "$", "b{1,2}", "(?:a|b.)*"])),
    st.lists(st.sampled_from(["a", "b", "."])),
)
def test_patterns_fit_the_names_that_they_fit_in_peft(pattern, name):
    try:
        fits = Pattern("".join(pattern)).ends("".join(name))
    except ValueError:
        return  # a repetition of an anchor or another repetition
    assert fits == bool(re.match(rf"(.*\.)?({''.join(pattern)})$", "".join(name)))


def test_a_missing_or_damaged_file_is_named(tmp_path):
    folder = write_adapter(tmp_path / "adapter", {LAYER: factors()})
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(rs.InputError, match="adapter_model"):
        open_checkpoint(folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(rs.InputError, match=r"no adapter_model\.safetensors"):
        open_checkpoint(folder)
    (folder / "adapter_config.json").write_text(json.dumps([1]))
    with pytest.raises(rs.InputError, match="JSON object"):
        open_checkpoint(folder)


def test_an_adapter_is_no_base(tmp_path):
    folder = write_adapter(tmp_path / "adapter", {LAYER: factors()})
    with pytest.raises(rs.InputError, match="goes in after"):
        rs.compare(folder, transformer())


@pytest.mark.parametrize("scale", [1e160, 1e250])
def test_a_change_that_is_too_large_to_be_squared_is_skipped(tmp_path, scale):
    """Each factor is finite, and so is the scale; their product overflows, or its square does."""
    factors = {
        "large": (torch.full((3, 2), 1e30), torch.full((2, 4), 1e30)),
        "usual": (torch.ones(3, 2), torch.ones(2, 4)),
    }
    folder = write_adapter(tmp_path / "adapter", factors, {"alpha_pattern": {"large": scale}})
    found = inspect(folder)
    assert [matrix.name for matrix in found.matrices] == ["usual.weight"]
    assert "can be squared" in dict(found.skipped)["large.weight"]
