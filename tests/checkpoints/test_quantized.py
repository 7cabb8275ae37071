"""Quantized weights are compared as the numbers that codes and scales stand for, or left out; never as codes.

The formulas were checked with bitsandbytes, compressed-tensors, quanto and transformers; here they are written out
again, entry by entry.
"""

import json
import math

import numpy as np
import pytest
import torch
from checkpoint_cases import low_rank, reasons, transformer, write_adapter
from safetensors.torch import save_file

import rankscope as rs
from rankscope.checkpoints import open_checkpoint
from rankscope.checkpoints.quantized import dequantized
from rankscope.checkpoints.source import Unreadable

FLOAT8 = torch.float8_e4m3fn
NF4 = torch.linspace(-1, 1, 16) ** 3


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(low, high, *shape, dtype=torch.uint8):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def packed(codes, bits, order=None):
    """Return (rows, n) codes in words of 32 bits."""
    each = 32 // bits
    order = order or range(each)
    words = np.zeros((codes.shape[0], codes.shape[1] // each), dtype=np.int64)
    for row, column in np.ndindex(words.shape):
        for place, which in enumerate(order):
            words[row, column] |= int(codes[row, column * each + which]) << (bits * place)
    return torch.from_numpy(words.astype(np.uint32).view(np.int32))


def per_tensor():
    codes, scale = draw(6, 8).to(FLOAT8), torch.tensor(0.25)
    return codes, scale, codes.float() * 0.25


def per_row():
    codes, scale = draw(6, 8).to(torch.float8_e5m2), draw(6, 1).abs()
    return codes, scale, torch.stack([codes[i].float() * scale[i] for i in range(6)])


def by_blocks():
    codes, scale = draw(200, 130).to(FLOAT8), draw(2, 2).abs()
    W = codes.float()
    for i, j in np.ndindex(2, 2):
        W[128 * i : 128 * i + 128, 128 * j : 128 * j + 128] *= scale[i, j]
    return codes, scale, W


def scaled(make, name, scale_name):
    codes, scale, W = make()
    return {name: codes, scale_name: scale}, name, W


def bitsandbytes_int8():
    codes, scale = whole(-127, 128, 6, 8, dtype=torch.int8), draw(6).abs()
    W = torch.stack([codes[i] * scale[i] / 127 for i in range(6)])
    return {"m.weight": codes, "m.SCB": scale, "m.weight_format": torch.tensor(0, dtype=torch.uint8)}, "m.weight", W


def bitsandbytes_nf4(nested=False, storage=torch.uint8):
    codes, absmax = whole(0, 16, 6 * 32).long(), draw(3).abs()
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [6, 32]}
    tensors = {"m.weight.quant_map": NF4, "m.weight.absmax": absmax}
    if nested:
        table, scale, stored = draw(256), draw(2).abs(), whole(0, 256, 3)
        absmax = torch.tensor([float(table[int(stored[i])]) * float(scale[i // 2]) + 0.5 for i in range(3)])
        tensors |= {
            "m.weight.absmax": stored,
            "m.weight.nested_absmax": scale,
            "m.weight.nested_quant_map": table,
        }
        state |= {"nested_blocksize": 2, "nested_offset": 0.5, "nested_dtype": "float32"}
    W = torch.stack([NF4[code] * absmax[i // 64] for i, code in enumerate(codes)]).reshape(6, 32)
    described = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    data = (codes[::2] * 16 + codes[1::2]).to(torch.uint8)
    tensors |= {"m.weight": data.view(storage)[:, None], "m.weight.quant_state.bitsandbytes__nf4": described}
    return tensors, "m.weight", W


def gptq(bits=4, groups=True):
    codes, zeros, scales = whole(0, 2**bits, 32, 16).numpy(), whole(1, 2**bits, 4, 16).numpy(), draw(4, 16).abs()
    belongs = np.random.default_rng(0).integers(0, 4, 32) if groups else np.arange(32) // 8
    W = torch.empty(16, 32)
    for n, k in np.ndindex(16, 32):
        W[n, k] = scales[belongs[k], n] * (int(codes[k, n]) - int(zeros[belongs[k], n]))
    tensors = {"m.qweight": packed(codes.T, bits).t().contiguous(), "m.qzeros": packed(zeros - 1, bits)}
    tensors |= {"m.scales": scales.half(), "m.g_idx": torch.tensor(belongs, dtype=torch.int32)}
    W = W * (scales.half().float() / scales)[belongs].t()
    return tensors, "m.weight", W


def awq():
    codes, zeros, scales = whole(0, 16, 32, 16).numpy(), whole(0, 16, 4, 16).numpy(), draw(4, 16).abs()
    W = torch.empty(16, 32)
    for n, k in np.ndindex(16, 32):
        W[n, k] = scales[k // 8, n] * (int(codes[k, n]) - int(zeros[k // 8, n]))
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    tensors = {"m.qweight": packed(codes, 4, order), "m.qzeros": packed(zeros, 4, order), "m.scales": scales}
    return tensors, "m.weight", W


def words_of_compressed_tensors():
    codes, scale, zeros = whole(-8, 8, 8, 20, dtype=torch.int8), draw(8, 5).abs(), whole(-8, 8, 8, 5, dtype=torch.int8)
    padded = torch.nn.functional.pad(codes + 8, (0, 4)).numpy()
    tensors = {
        "m.weight_packed": packed(padded, 4),
        "m.weight_scale": scale,
        "m.weight_zero_point": packed((zeros + 8).t().numpy(), 4).t().contiguous(),
        "m.weight_shape": torch.tensor([8, 20]),
    }
    W = torch.empty(8, 20)
    for i, j in np.ndindex(8, 20):
        W[i, j] = (int(codes[i, j]) - int(zeros[i, j // 4])) * scale[i, j // 4]
    return tensors, "m.weight", W


def float4(code):
    """Return the number of four bits: sign, two bits of exponent, one of mantissa."""
    exponent, mantissa = code >> 1 & 3, code & 1
    return (-1) ** (code >> 3) * ((1 + mantissa / 2) * 2.0 ** (exponent - 1) if exponent else mantissa / 2)


def nvfp4(second=False):
    data, scale, other = whole(0, 256, 4, 16), draw(4, 2).abs().to(FLOAT8), torch.tensor(3.0)
    W = torch.empty(4, 32)
    for i, j in np.ndindex(4, 32):
        code = int(data[i, j // 2]) >> (4 if j % 2 else 0) & 15
        W[i, j] = float4(code) * float(scale[i, j // 16]) * (3 if second else 1 / 3)
    if second:
        return {"m.weight": data, "m.weight_scale": scale, "m.weight_scale_2": other}, "m.weight", W
    return {"m.weight_packed": data, "m.weight_scale": scale, "m.weight_global_scale": other}, "m.weight", W


def mxfp4():
    blocks, scales = whole(0, 256, 2, 6, 3, 16), whole(120, 130, 2, 6, 3)
    W = torch.empty(2, 96, 6)
    for expert, column, row in np.ndindex(2, 6, 96):
        code = int(blocks[expert, column, row // 32, row % 32 // 2]) >> (4 if row % 2 else 0) & 15
        W[expert, row, column] = float4(code) * 2.0 ** (int(scales[expert, column, row // 32]) - 127)
    name = "l.mlp.experts.gate_up_proj"
    return {f"{name}_blocks": blocks, f"{name}_scales": scales, f"{name}_bias": draw(2, 6)}, name, W


def experts_by_rows():
    codes, scale = draw(2, 6, 8).to(FLOAT8), draw(2, 1, 8).abs()
    W = torch.stack([codes[e].float() * scale[e] for e in range(2)])
    return {"l.experts.down_proj": codes, "l.experts.down_proj_scale": scale}, "l.experts.down_proj", W


CASES = {
    "weight_scale": lambda: scaled(per_tensor, "m.weight", "m.weight_scale"),
    "rows": lambda: scaled(per_row, "m.weight", "m.weight_scale"),
    "weight_scale_inv": lambda: scaled(by_blocks, "m.weight", "m.weight_scale_inv"),
    "scale_weight": lambda: scaled(per_tensor, "m.weight", "m.scale_weight"),
    "scale": lambda: scaled(by_blocks, "m.weight", "m.scale"),
    "without a layer": lambda: scaled(per_row, "weight", "weight_scale"),
    "experts": experts_by_rows,
    "int8": bitsandbytes_int8,
    "nf4": bitsandbytes_nf4,
    "nf4 of nf4": lambda: bitsandbytes_nf4(nested=True),
    "nf4 as bfloat16": lambda: bitsandbytes_nf4(storage=torch.bfloat16),
    "gptq": gptq,
    "gptq of 8 bits": lambda: gptq(8, groups=False),
    "awq": awq,
    "int4": words_of_compressed_tensors,
    "nvfp4": nvfp4,
    "nvfp4 of modelopt": lambda: nvfp4(second=True),
    "mxfp4": mxfp4,
}
SETTINGS = {"quantization_config": {"quant_method": "gptq"}}


@pytest.mark.parametrize("case", CASES)
def test_the_weight_is_codes_times_scales(case, tmp_path):
    tensors, name, W = CASES[case]()
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    source = dequantized(open_checkpoint(tmp_path))
    assert set(source.entries) <= {name, "l.mlp.experts.gate_up_proj_bias"}
    assert source.entries[name].shape == tuple(W.shape)
    torch.testing.assert_close(source.tensor(name), W, rtol=1e-6, atol=0)
    gaps = source.spacing(name)
    assert gaps.shape == W.shape
    assert bool((gaps > 0).all())
    before = {name: W + 1}
    frame = rs.compare(before, tmp_path)
    assert set(frame.tensor) == {name}
    assert frame.dtype.str.endswith(", dequantized").all()
    assert frame.norm.tolist() == pytest.approx([math.sqrt(W.numel() / len(frame))] * len(frame), rel=1e-5)


def test_rounding_is_that_of_the_code():
    """A change of rank 2 in a quantized weight is not of full rank because of the errors of the codes."""
    W0 = draw(60, 80)
    W = W0 + low_rank(60, 80, 2, scale=30).float()
    scale = W.abs().amax(1, keepdim=True) / 448
    after = {"m.weight": (W / scale).to(FLOAT8), "m.weight_scale": scale}
    (row,) = rs.compare({"m.weight": W0}, after).itertuples()
    assert row.numerical_rank == 2
    assert row.dtype == "float8_e4m3fn, dequantized"
    (row,) = rs.compare(after, {"m.weight": W0}).itertuples()
    assert row.dtype == "float32 (before: float8_e4m3fn, dequantized)"


def test_float8_without_a_scale_is_plain_only_if_nothing_has_one():
    W = draw(8, 8).to(FLOAT8)
    plain = {"a.weight": W, "b.weight": W}
    frame = rs.compare({"a.weight": draw(8, 8, seed=1), "b.weight": draw(8, 8, seed=1)}, plain)
    assert frame.dtype.tolist() == ["float8_e4m3fn, without a scale"] * 2
    for more in (
        {"a.weight_scale": torch.ones(1)},
        {"scaled_fp8": torch.zeros(2).to(FLOAT8)},
        {"b.strange_scales": torch.ones(8, 8)},
    ):
        frame = rs.compare({name: draw(8, 8, seed=1) for name in plain}, plain | more)
        assert "b.weight" not in frame.index
        assert reasons(frame)["b.weight"].startswith("float8 codes")
        assert not any("scale" in name for name in frame.index)
    quiet = plain | {"b.input_scale": torch.ones(1, 1), "b.k_scale": torch.ones(1, 1)}
    assert list(rs.compare(quiet, {name: -value.float() for name, value in quiet.items()}).index) == list(plain)


def test_unknown_formats_are_left_out_with_all_their_tensors():
    strange = {
        "hqq": {"a.W_q": whole(0, 9, 4, 4), "a.scale": draw(4, 4), "a.zero": draw(4, 4), "a.axis": torch.tensor(1)},
        "quanto": {
            "a.weight._data._data": whole(0, 9, 4, 4),
            "a.weight._scale": draw(8, 1),
            "a.weight._shift": draw(8, 1),
        },
        "torchao": {"a._weight_qdata": whole(0, 9, 4, 4, dtype=torch.int8), "a._weight_scale": draw(4, 4)},
        "aqlm": {"a.codes": whole(0, 9, 4, 4, 1), "a.codebooks": draw(1, 256, 1, 8), "a.scales": draw(4, 1, 1, 1)},
        "gptq without its config": gptq()[0],
        "exponents": {"a.weight": draw(4, 64).to(FLOAT8), "a.weight_scale": whole(0, 9, 4, 2)},
        "packed": {"a.weight": whole(0, 9, 4, 4), "a.weight_scale": draw(4, 4)},
        "nobody's": {"a.codes_of_mine": whole(0, 9, 4, 4), "a.my_scales": draw(4, 4), "a.my_zeros": draw(4, 4)},
        "int8 in another order": {**bitsandbytes_int8()[0], "m.weight_format": torch.tensor(2, dtype=torch.uint8)},
    }
    for tensors in strange.values():
        other = {
            name: value + 1 if value.is_floating_point() and value.itemsize > 1 else value
            for name, value in tensors.items()
        }
        frame = rs.compare(tensors, other)
        assert frame.empty, list(frame.index)
        assert all("quantiz" in reason for reason in reasons(frame).values()), reasons(frame)
    reason = reasons(rs.compare(gptq()[0], gptq()[0]))["m.weight"]
    assert "GPTQ" in reason
    assert "config.json" in reason
    assert "dequantize it" in reason


@pytest.mark.parametrize("case", CASES)
def test_damaged_groups_are_left_out(case, tmp_path):
    tensors, name, _ = CASES[case]()
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    for key, value in tensors.items():
        if value.numel() < 6 or key.endswith("bias"):
            continue  # one number is a scale of the whole matrix
        broken = tensors | {key: value.flatten()[: value.numel() // 2 - 1].clone()}
        save_file({key: value.contiguous() for key, value in broken.items()}, tmp_path / "model.safetensors")
        source = dequantized(open_checkpoint(tmp_path))
        if isinstance(source.entries[name].dtype, torch.dtype) and len(source.entries[name].shape) > 1:
            with pytest.raises(Unreadable):
                source.tensor(name)


def test_descriptions_that_mean_nothing_are_left_out():
    nf4, name, _ = bitsandbytes_nf4()
    key = f"{name}.quant_state.bitsandbytes__nf4"
    for state in ("[]", '{"shape": [1e999], "blocksize": 1}', '{"shape": "x", "blocksize": []}', "[" * 9999, "\xff"):
        described = torch.tensor(list(state.encode()), dtype=torch.uint8)
        assert isinstance(dequantized(open_checkpoint(nf4 | {key: described})).entries[name].dtype, str)
    packed_words, name, _ = words_of_compressed_tensors()
    for shape in ([math.nan, 20.0], [-8.0, 20.0], [8.0, 1e300]):
        broken = packed_words | {"m.weight_shape": torch.tensor(shape, dtype=torch.float64)}
        assert isinstance(dequantized(open_checkpoint(broken)).entries[name].dtype, str)


def test_an_adapter_over_a_quantized_base(tmp_path):
    base = transformer()
    name = "model.layers.0.self_attn.q_proj.weight"
    B, A = draw(32, 2), draw(2, 32)
    folder = write_adapter(tmp_path / "adapter", {name.removesuffix(".weight"): (B, A)}, {"lora_alpha": 2})
    W = base[name]
    scale = W.abs().max() / 448
    codes = {name: (W / scale).to(FLOAT8), name + "_scale": scale}
    row = rs.compare(base | codes, folder).loc[name]
    assert row.initial_norm == pytest.approx(W.norm().item(), rel=0.01)
    unknown = {name.replace(".weight", ".W_q"): whole(0, 9, 16, 32), name.replace("weight", "scale"): draw(16, 1)}
    frame = rs.compare({key: value for key, value in base.items() if key != name} | unknown, folder, heads=4)
    row = frame.loc[name]
    assert row.norm == pytest.approx((B @ A).norm().item(), rel=1e-5)
    assert frame.relative_norm.isna()[name]
    assert "columns relative to W0 are empty" in frame.attrs["note"]
    assert "HQQ" in frame.attrs["note"]


def test_a_model_is_loaded_with_the_weights_and_not_with_codes():
    model = torch.nn.Sequential(torch.nn.Linear(8, 6))
    tensors, _, W = scaled(per_row, "0.weight", "0.weight_scale")
    torch.testing.assert_close(rs.load_weights(model, tensors)[0].weight.detach(), W)
    with pytest.raises(rs.InputError, match="float8 codes"):
        rs.load_weights(model, {"0.weight": draw(6, 8).to(FLOAT8), "scaled_fp8": torch.zeros(2).to(FLOAT8)})
