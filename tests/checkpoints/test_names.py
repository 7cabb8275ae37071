"""Which tensors belong together, which are matrices, and how heads and experts are divided."""

import pytest
import torch
from checkpoint_cases import changed, reasons, transformer

import rankscope as rs


@pytest.mark.parametrize(
    "rename",
    [
        *(lambda name, p=p: p + name for p in ("bert.", "vit.", "backbone.", "actor.", "ema_model.", "a.b.")),
        *(lambda name, p=p: name.replace("attn", f"{p}.attn") for p in ("_orig_mod", "_checkpoint_wrapped_module")),
        lambda name: f"_fsdp_wrapped_module.{name}",
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_names_with_one_prefix_or_wrappers_are_matched(rename, reverse):
    plain = {f"encoder.layer.{i}.attn.weight": torch.randn(8, 8) for i in range(2)} | {"head.weight": torch.randn(4, 8)}
    other = {rename(name): value + 1 for name, value in plain.items()}
    frame = rs.compare(*((other, plain) if reverse else (plain, other)))
    assert len(frame) == 3
    assert frame.attrs["skipped"] == []
    if not any("_orig_mod" in name or "_wrapped" in name for name in other):
        assert f"names {'before' if reverse else 'after'} learning begin with" in frame.attrs["note"]


def test_of_two_prefixes_none_is_guessed():
    plain = {"a.weight": torch.randn(4, 4), "b.weight": torch.randn(4, 4)}
    both = {f"{which}.{name}": value + 1 for name, value in plain.items() for which in ("actor", "critic")}
    with pytest.raises(rs.InputError, match="after must have weights named as in before"):
        rs.compare(plain, both)


def test_names_that_differ_otherwise_are_renamed():
    before = {f"h.{i}.attn.{which}.weight": torch.randn(6, 6) for i in range(2) for which in ("q", "k")}
    after = {name.replace("h.", "ema.layers."): value + 1 for name, value in before.items()} | dict(before)
    assert reasons(rs.compare(before, after))["h.0.attn.q.weight"] == "the same before and after"
    options = {"prefix": "ema.", "rename": {"layers.": "h."}}
    frame = rs.compare(before, after, **options)
    assert list(frame.index) == list(before)
    assert frame.numerical_rank.tolist() == [1] * 4
    assert set(rs.low_rank_factors(before, after, 1, **options)) == set(before)
    hidden = reasons(frame)
    assert hidden == dict.fromkeys(before, "another tensor has its name without the prefix")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": ""}, "prefix must be the beginning of names"),
        ({"prefix": "b."}, "prefix must begin names of before or after, got 'b.'; names are 'a.0.weight'"),
        ({"rename": {"c": "d"}}, "rename must replace texts in names of before or after, got 'c'"),
        ({"rename": {"0": "1"}}, "rename must keep names apart, but 'a.0.weight' and 'a.1.weight' both become"),
        ({"rename": ["a=b"]}, "rename must map texts to texts"),
    ],
)
def test_a_renaming_that_does_nothing_or_too_much_is_refused(options, message):
    state = {f"a.{i}.weight": torch.randn(3, 3) for i in range(2)}
    with pytest.raises(rs.InputError, match=message):
        rs.compare(state, state, **options)


def test_of_a_vocabulary_that_grew_the_common_rows_are_compared():
    before = transformer()
    after = changed(before)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        after[name] = torch.cat([after[name], torch.randn(3, 32)])
    after["model.layers.0.mlp.up_proj.weight"] = torch.randn(99, 32)
    frame = rs.compare(before, after)
    row = frame.loc["lm_head.weight"]
    assert (row.numerical_rank, row["shape"]) == (3, (50, 32))
    assert frame.attrs["note"] == "'lm_head.weight' grew from 50 rows to 53; its first 50 rows were compared"
    assert reasons(frame)["model.layers.0.mlp.up_proj.weight"] == "its shape is 96 x 32 before and 99 x 32 after"
    named = rs.compare(before, after, layers=["model.embed_tokens.weight"])
    assert reasons(named) == {"model.embed_tokens.weight": "the same before and after"}
    assert "lm_head" not in (named.attrs["note"] or "")


def test_fused_heads_with_fewer_keys_have_the_size_that_the_output_gives():
    before = {"a.qkv_proj.weight": torch.randn(96, 64), "a.o_proj.weight": torch.randn(64, 64)}  # 8 q, 2 k, 2 v of 8
    after = {name: value.clone() for name, value in before.items()}
    after["a.qkv_proj.weight"][64:72] += torch.randn(8, 64)
    frame = rs.compare(before, after, heads=8)
    assert list(frame.index) == ["a.qkv_proj.weight", "a.qkv_proj.weight[k0]"]


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("m.in_proj.weight", (192, 64), None),  # of a Mamba layer, no attention
        ("h.0.attn.c_attn.weight", (16, 48), "order of queries, keys and values in c_attn is not known"),
        ("x.query_key_value.weight", (48, 16), "query_key_value is not known"),
        ("x.qkv.weight", (40, 16), "no output is beside it"),
        ("x.qkv_proj.weight", (96, 64), "no output is beside it"),
    ],
)
def test_projections_of_unknown_order_are_not_divided(name, shape, reason):
    before = {name: torch.randn(shape)}
    frame = rs.compare(before, changed(before), heads=4)
    assert list(frame.index) == [name]
    found = reasons(frame)
    assert not found if reason is None else reason in found[f"{name}[heads]"]


def test_experts_in_one_tensor_are_measured_one_by_one():
    before = {"l.experts.gate_up_proj": torch.randn(4, 16, 32), "l.experts.gate_up_proj_bias": torch.randn(4, 32)}
    after = {name: value + 1 for name, value in before.items()}
    after["l.experts.gate_up_proj"] = before["l.experts.gate_up_proj"].clone()
    step = torch.randn(16, 1) @ torch.randn(1, 32)
    after["l.experts.gate_up_proj"][2] += step
    frame = rs.compare(before, after)
    (row,) = frame.itertuples()
    assert (row.Index, row.shape, row.numerical_rank) == ("l.experts.gate_up_proj[expert 2]", (16, 32), 1)
    assert row.norm == pytest.approx(step.norm().item(), rel=1e-5)
    assert reasons(frame)["l.experts.gate_up_proj_bias"] == "a bias"


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("b.time_mix_key", (1, 1, 8), "a vector, not a matrix, of the shape 1 x 1 x 8"),  # RWKV
        ("flows.0.log_scale", (2, 1), "act one by one"),  # VITS
        ("cls_token", (1, 1, 8), "a vector"),
        ("encoder.mask_tokens.weight", (4, 8), "a table of vectors"),  # SAM
        ("attn.rel_pos_h", (7, 8), "a table of vectors"),
        ("a.relative_position_bias_table", (9, 4), "a table of vectors"),  # Swin
        ("a.relative_attention_bias.weight", (32, 4), "a table of vectors"),  # T5
        ("mixer.A_log", (8, 4), "act one by one"),  # Mamba
        ("ffn.experts.mlp.w1", (24, 8), "several experts"),  # DBRX
        ("vision.patch_embedding.weight", (8, 3, 4, 4), None),  # CLIP: a convolution
        ("conv.weight", (8, 1, 1), None),
        ("head.weight", (1, 8), None),
    ],
)
def test_tables_and_vectors_are_no_matrices(name, shape, reason):
    before = {name: torch.randn(shape)}
    frame = rs.compare(before, {name: before[name] + 1})
    assert list(frame.index) == ([name] if reason is None else [])
    assert reason is None or reason in reasons(frame)[name]


@pytest.mark.parametrize("name", ["block_sparse_moe.input_linear.weight", "mlp.output_linear.weight", "moe.w1"])
def test_other_stacks_of_experts(name):
    before = {name: torch.randn(3, 6, 5)}
    frame = rs.compare(before, {name: before[name] + 1})
    assert list(frame.index) == [f"{name}[expert {i}]" for i in range(3)]
    assert frame.numerical_rank.tolist() == [1] * 3


def test_layers_select_matrices_and_an_embedding_that_is_named():
    before = transformer()
    after = {name: value + torch.randn_like(value) for name, value in before.items()}
    tied = "model.embed_tokens.weight"
    frame = rs.compare(before, after, layers=["*.q_proj.weight", tied])
    assert set(frame.index) == {*(f"model.layers.{i}.self_attn.q_proj.weight" for i in range(2)), tied}
    assert frame.attrs["skipped"] == []
    assert tied in rs.low_rank_factors(before, after, 2, layers=[tied])
    with pytest.raises(rs.InputError, match="layers must be"):
        rs.compare(before, after, layers=["no_such_layer"])
