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
