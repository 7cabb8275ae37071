"""Files of factors without a configuration, in the formats of kohya's sd-scripts, LyCORIS 4.1 and diffusers 0.42.

The formulas were checked with layers of these libraries, which are not installed for the tests.
"""

import json

import pytest
import torch
from checkpoint_cases import reasons
from safetensors.torch import save_file

import rankscope as rs

torch.manual_seed(0)
Q, CONV = "down_blocks.0.attentions.1.to_q", "down_blocks.0.conv_in"
BASE = {
    f"{Q}.weight": torch.randn(12, 8),
    "down_blocks.0.attentions.1.to_out.0.weight": torch.randn(12, 8),
    f"{CONV}.weight": torch.randn(6, 4, 3, 3),
}
A, B = torch.randn(3, 8), torch.randn(12, 3)
KOHYA = f"lora_unet_{Q}".replace(".", "_")


def written(path, tensors, metadata=None):
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata)
    return path


def only(frame):
    """Return the singular values of the only row."""
    assert reasons(frame) == {}
    ((_, row),) = frame.iterrows()
    return torch.tensor(row.singular_values, dtype=torch.float64)


def values(dW):
    return torch.linalg.svdvals(dW.double().flatten(1))


FACTORS = {
    "kohya": ({f"{KOHYA}.lora_down.weight": A, f"{KOHYA}.lora_up.weight": B, f"{KOHYA}.alpha": torch.tensor(6.0)}, 2),
    "kohya without alpha": ({f"{KOHYA}.lora_down.weight": A, f"{KOHYA}.lora_up.weight": B}, 1),
    "diffusers": ({f"unet.{Q}.lora_A.weight": A, f"unet.{Q}.lora_B.weight": B}, 1),
    "lora.down": ({f"unet.{Q}.lora.down.weight": A, f"unet.{Q}.lora.up.weight": B}, 1),
    "lora_linear_layer": (
        {f"unet.{Q}.lora_linear_layer.down.weight": A, f"unet.{Q}.lora_linear_layer.up.weight": B},
        1,
    ),
    "processor": (
        {f"unet.{Q[:-5]}.processor.to_q_lora.down.weight": A, f"unet.{Q[:-5]}.processor.to_q_lora.up.weight": B},
        1,
    ),
    "processor's output": (
        {f"unet.{Q[:-5]}.processor.to_out_lora.down.weight": A, f"unet.{Q[:-5]}.processor.to_out_lora.up.weight": B},
        1,
    ),
}


@pytest.mark.parametrize("kind", FACTORS)
def test_factors_by_every_name(tmp_path, kind):
    tensors, scale = FACTORS[kind]
    path = written(tmp_path / "lora.safetensors", tensors)
    over = rs.compare(BASE, path)
    assert list(over.index) == ["down_blocks.0.attentions.1.to_out.0.weight" if "output" in kind else f"{Q}.weight"]
    for frame in (over, rs.compare(path), rs.compare(BASE, tensors)):
        assert torch.allclose(only(frame), values(scale * B @ A)[:3], rtol=1e-5)


def test_a_convolution_and_its_forms_of_lycoris(tmp_path):
    name = f"lycoris_{CONV}".replace(".", "_")
    torch.manual_seed(1)
    r, alpha = 2, {f"{name}.alpha": torch.tensor(1.0)}
    down, up, mid = torch.randn(r, 4, 3, 3), torch.randn(6, r, 1, 1), torch.randn(r, r, 3, 3)
    small, w1, w2 = torch.randn(r, 4, 1, 1), torch.randn(2, 2), torch.randn(3, 2, 3, 3)
    a, b = torch.randn(2, 6, r), torch.randn(2, r, 36)
    cores, ta, tb = torch.randn(2, r, r, 3, 3), torch.randn(2, r, 6), torch.randn(2, r, 4)
    tucker = [torch.einsum("ijkl,jq,ip->pqkl", cores[i], tb[i], ta[i]) for i in (0, 1)]
    cases = (
        (alpha | {"lora_down.weight": down, "lora_up.weight": up}, up.flatten(1) @ down.flatten(1) / 2),
        (
            alpha | {"lora_down.weight": small, "lora_up.weight": up, "lora_mid.weight": mid},
            torch.einsum("ijkl,jq,pi->pqkl", mid, small[:, :, 0, 0], up[:, :, 0, 0]) / 2,
        ),
        (
            alpha | {f"hada_w{i + 1}_{side}": x[i] for i in (0, 1) for side, x in (("a", a), ("b", b))},
            (a[0] @ b[0]) * (a[1] @ b[1]) / 2,
        ),
        (
            alpha
            | {f"hada_w{i + 1}_{side}": x[i] for i in (0, 1) for side, x in (("a", ta), ("b", tb))}
            | {"hada_t1": cores[0], "hada_t2": cores[1]},
            tucker[0] * tucker[1] / 2,
        ),
        (alpha | {"lokr_w1": w1, "lokr_w2": w2}, torch.kron(w1[:, :, None, None], w2)),
        ({"diff": torch.ones(6, 4, 3, 3), "diff_b": torch.ones(6)}, torch.ones(6, 4, 3, 3)),
    )
    for number, (pieces, dW) in enumerate(cases):
        tensors = {piece if piece.startswith(name) else f"{name}.{piece}": value for piece, value in pieces.items()}
        frame = rs.compare(BASE, written(tmp_path / f"{number}.safetensors", tensors))
        row = frame.loc[f"{CONV}.weight"]
        s = values(dW)[: len(row.singular_values)]
        assert torch.allclose(torch.tensor(row.singular_values, dtype=torch.float64), s, atol=1e-6 * float(s[0]))


def test_the_scale_is_in_the_metadata_of_diffusers(tmp_path):
    tensors = {f"unet.{Q}.lora_A.weight": A, f"unet.{Q}.lora_B.weight": B}
    options = {"r": 3, "lora_alpha": 2, "alpha_pattern": {"to_q": 12}}
    for prefix in ("unet.", ""):
        named = {name.removeprefix("" if prefix else "unet."): value for name, value in tensors.items()}
        metadata = {"lora_adapter_metadata": json.dumps({prefix + key: value for key, value in options.items()})}
        path = written(tmp_path / "lora.safetensors", named, metadata)
        assert torch.allclose(only(rs.compare(BASE, path)), values(4 * B @ A)[:3], rtol=1e-5)
    with pytest.raises(rs.InputError, match="must have JSON as lora_adapter_metadata"):
        rs.compare(written(tmp_path / "lora.safetensors", tensors, {"lora_adapter_metadata": "{"}))


def test_names_that_fit_two_weights_or_one_twice_are_left_out(tmp_path):
    base = {f"{model}.layers.{i}.q.weight": torch.randn(12, 8) for model in ("a", "b") for i in (0, 1)}
    path = written(
        tmp_path / "lora.safetensors",
        {
            f"lora_{layer}.lora_{side}.weight": x
            for layer in ("unet_layers_0_q", "te1_a_layers_1_q", "te2_a_layers_1_q", "unet_b_layers_1_q", "unet_c")
            for side, x in (("down", A), ("up", B))
        },
    )
    frame = rs.compare(base, path)
    assert list(frame.index) == ["b.layers.1.q.weight"]
    found = reasons(frame)
    assert "fits several weights of BEFORE: a.layers.0.q.weight, b.layers.0.q.weight" in found["lora_unet_layers_0_q"]
    assert "both fit a.layers.1.q.weight" in found["lora_te1_a_layers_1_q"]
    assert "only in" in found["lora_unet_c"]


def test_what_has_no_scale_or_another_formula_is_left_out(tmp_path):
    path = written(
        tmp_path / "lora.safetensors",
        {"layers.0.q.lora_A.weight": A, "layers.0.q.lora_B.weight": B}
        | {f"lora_unet_d.lora_{side}.weight": x for side, x in (("down", A), ("up", B))}
        | {"lora_unet_d.dora_scale": torch.ones(12, 1), "lora_unet_o.oft_blocks": torch.ones(2, 2, 2)}
        | {"lora_unet_e.alpha": torch.tensor(torch.nan), "lora_unet_e.lora_down.weight": A, "other": torch.ones(1)}
        | {f"lora_unet_h.hada_w1_{side}": x for side, x in (("a", B), ("b", A))},
    )
    found = reasons(rs.compare(path))
    for name, sentence in {
        "layers.0.q.weight": "alpha / r of its factors is in no file",
        "lora_unet_d": "DoRA of LyCORIS",
        "lora_unet_o": "OFT of LyCORIS",
        "lora_unet_e": "its alpha is nan",
        "lora_unet_h": "no hada_w2_a of its four factors",
        "other": "not a piece of a change",
    }.items():
        assert sentence in found[name]


def test_a_small_file_does_not_fill_the_memory(tmp_path):
    name, long = "lora_unet_x", torch.ones(1, 2**14)
    cases = (
        {"lokr_w1": long, "lokr_w2": long.t()},
        {"lora_down.weight": long[:, :, None], "lora_up.weight": long.t(), "lora_mid.weight": long[None]},
        {
            f"hada_w{i}_{side}": torch.ones(2**11, 64) if side == "a" else torch.ones(64, 2**14)
            for i in (1, 2)
            for side in "ab"
        },
    )
    for number, pieces in enumerate(cases):
        path = written(
            tmp_path / f"{number}.safetensors", {f"{name}.{piece}": value for piece, value in pieces.items()}
        )
        frame = rs.compare(path)
        assert "entries, as it is no product of small factors; give the base" in reasons(frame)[name]
