"""Readers of quantized weights: whether the tensors of one weight fit together, and how they are decoded.

Each takes the entries of the tensors by role, a function that reads one of them, and the configuration of the model,
and returns a weight, or what is not known about it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from rankscope.checkpoints import dequantize
from rankscope.checkpoints.dequantize import Decoded, by
from rankscope.checkpoints.model_config import CONV1D_MODELS, Config, positive
from rankscope.checkpoints.source import Entry, Unreadable

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
LARGEST_STATE = 10_000
"""Bytes of a description that is read when a checkpoint is opened."""


class Known(NamedTuple):
    """A weight that can be decoded: its shape, how it is stored, and a function that reads it."""

    shape: tuple[int, ...]
    stored: str
    decode: Callable[[], Decoded]


Entries = Mapping[str, Entry]
Read = Callable[[str], Tensor]
Reader = Callable[[Entries, Read, Config], Known | str]


def is_float8(dtype: torch.dtype | str) -> bool:
    """Return whether a type is one of the float8 types with a mantissa."""
    return dtype in FLOAT8


def _settings(config: Config) -> Config:
    found = config.get("quantization_config")
    return found if isinstance(found, dict) else {}


def type_name(dtype: torch.dtype | str) -> str:
    """Return a type as text, "float32"."""
    return str(dtype).removeprefix("torch.")


def scaled(entries: Entries, read: Read, config: Config) -> Known | str:
    """Return W = (codes - zero points) * scales of float8 or int8: per matrix, row, group or block."""
    codes = entries["codes"]
    roles = [role for role in ("scale", "inverse", "comfy", "deepseek") if role in entries]
    if len(roles) != 1:
        return "it has several scales"
    role = roles[0]
    if "second" in entries:
        return _nvfp4(entries, read) if role == "scale" else "it has several scales"
    if not is_float8(codes.dtype) and (codes.dtype != torch.int8 or role != "scale"):
        return f"codes of type {type_name(codes.dtype)} with scales"
    scale = entries[role]
    assert isinstance(scale.dtype, torch.dtype)
    if not scale.dtype.is_floating_point:
        return f"scales of type {type_name(scale.dtype)}"
    blocks = _settings(config).get("weight_block_size")
    sizes = blocks if isinstance(blocks, list) and all(type(size) is int and size > 0 for size in blocks) else None
    block = dequantize.block_of(codes.shape, scale.shape, sizes)
    if block is None:
        return f"{by(codes.shape)} codes with {by(scale.shape)} scales"
    if "zeros" in entries and entries["zeros"].shape != scale.shape:
        return f"zero points of another shape than scales, {entries['zeros'].shape} and {by(scale.shape)}"

    def decode() -> Decoded:
        zero = read("zeros") if "zeros" in entries else None
        return dequantize.scaled(read("codes"), read(role), block, zero)

    return Known(codes.shape, type_name(codes.dtype), decode)


def int8(entries: Entries, read: Read, config: Config) -> Known | str:
    """Return W = codes * SCB / 127, row by row: `int8_vectorwise_dequant` of bitsandbytes."""
    codes, scale = entries["codes"], entries["scale"]
    if codes.dtype != torch.int8 or len(codes.shape) != 2 or math.prod(scale.shape) != codes.shape[0]:
        return f"{by(codes.shape)} codes of type {type_name(codes.dtype)} with {by(scale.shape)} scales"
    if "layout" in entries and (math.prod(entries["layout"].shape) != 1 or int(read("layout")) != 0):
        return "in another layout than by rows"

    def decode() -> Decoded:
        return dequantize.scaled(read("codes"), read("scale").flatten() / 127, [1, codes.shape[1]])

    return Known(codes.shape, "int8 (bitsandbytes)", decode)


def nf4(entries: Entries, read: Read, config: Config) -> Known | str:
    """Return W of bitsandbytes' NF4 or FP4, whose shape and blocks are described in JSON."""
    kind = next((kind for kind in ("nf4", "fp4") if kind in entries), None)
    if kind is None or "table" not in entries or math.prod(entries[kind].shape) > LARGEST_STATE:
        return "without a description of its blocks"
    try:
        state = json.loads(bytes(read(kind).tolist()).decode())
        shape, block = tuple(map(int, state["shape"])), int(state["blocksize"])
        nested = (int(state["nested_blocksize"]), float(state["nested_offset"])) if "nested absmax" in entries else None
    except (ValueError, KeyError, RecursionError) as error:
        return f"its description is damaged: {error}"
    codes = entries["codes"]
    assert isinstance(codes.dtype, torch.dtype)
    count, stored = math.prod(shape), 2 * math.prod(codes.shape) * codes.dtype.itemsize
    absmax, table = (math.prod(entries[role].shape) for role in ("absmax", "table"))
    if any(size < 1 for size in (*shape, block)) or not count <= stored <= count + 1 or table != 16:
        return f"{stored} codes for {by(shape)} entries"
    block = min(block, count)
    if absmax != -(-count // block):
        return f"{absmax} scales for blocks of {block} of {count} entries"
    if nested is not None:
        nested = min(max(1, nested[0]), absmax), nested[1]
        sizes = [math.prod(entries[role].shape) if role in entries else 0 for role in ("nested table", "nested absmax")]
        if sizes != [256, -(-absmax // nested[0])]:
            return "scales of scales that do not fit"

    def decode() -> Decoded:
        scale = read("absmax").flatten()
        if nested is not None:
            scale = dequantize.nested_absmax(scale, read("nested table"), read("nested absmax"), *nested)
        return dequantize.bitsandbytes_4bit(read("codes"), read("table"), scale, block, shape)

    return Known(shape, f"{kind} (bitsandbytes)", decode)


def gptq_or_awq(entries: Entries, read: Read, config: Config) -> Known | str:
    """Return W of GPTQ, or of AWQ in the layout for GEMM; shapes tell the two apart."""
    settings = _settings(config)
    codes, scale, zeros = (entries.get(role) for role in ("codes", "scale", "zeros"))
    assert codes is not None
    assert scale is not None
    if zeros is None or any(len(entry.shape) != 2 or 0 in entry.shape for entry in (codes, scale, zeros)):
        return "without zero points, or of another shape than usual"
    if codes.dtype != torch.int32 or zeros.dtype != torch.int32:
        return f"codes of type {type_name(codes.dtype)}"
    rows, columns = codes.shape
    groups, out = scale.shape
    if "groups" not in entries and (out, zeros.shape) == (8 * columns, (groups, columns)) and rows % groups == 0:

        def decode_awq() -> Decoded:
            values, scales = dequantize.awq(*(read(role) for role in ("codes", "zeros", "scale")))
            return Decoded(values, torch.ones(1), scales)

        return Known((out, rows), "int4 (AWQ)", decode_awq)
    size = entries["groups"].shape[0] if "groups" in entries and len(entries["groups"].shape) == 1 else None
    bits = 32 * rows // size if size else positive(settings, "bits")
    if bits not in (2, 4, 8) or (size or 32 * rows // bits) * bits != 32 * rows:
        return "of a number of bits that is not 2, 4 or 8"
    size = 32 * rows // bits
    if out != columns or zeros.shape != (groups, columns * bits // 32) or columns * bits % 32 or size % groups:
        return f"{by(codes.shape)} codes with {by(scale.shape)} scales and {by(zeros.shape)} zero points"
    if config.get("model_type") in CONV1D_MODELS:
        return "in a model some of whose layers store the transposed weight"
    # The first format stores zero points less 1. Nothing but the configuration tells which of the two a file is in.
    form = settings.get("checkpoint_format", "gptq") if settings.get("quant_method") == "gptq" else None
    if form not in ("gptq", "gptq_v2"):
        return "zero points differ by 1 between its two formats, and no config.json beside the file names one"

    def decode_gptq() -> Decoded:
        belongs = read("groups").long() if "groups" in entries else torch.arange(size) // (size // groups)
        if int(belongs.min()) < 0 or int(belongs.max()) >= groups:
            raise Unreadable("its g_idx names groups that it does not have")
        stored = read("zeros")
        if form == "gptq" and bool((dequantize.fields(stored, bits) == 2**bits - 1).any()):
            raise Unreadable("it has zero points that the kernels of GPTQ decode differently (0 or 16)")
        values, scales = dequantize.gptq(read("codes"), stored, read("scale"), belongs, bits, form == "gptq")
        return Decoded(values, torch.ones(1), scales)

    return Known((out, size), f"int{bits} (GPTQ)", decode_gptq)


def packed(entries: Entries, read: Read, config: Config) -> Known | str:
    """Return W of compressed-tensors' whole numbers in words of 32 bits, or of its numbers of 4 bits in bytes."""
    codes, scale = entries["codes"], entries["scale"]
    if len(codes.shape) != 2 or len(scale.shape) != 2 or 0 in (*codes.shape, *scale.shape):
        return f"{by(codes.shape)} codes with {by(scale.shape)} scales"
    if codes.dtype == torch.uint8 and "zeros" not in entries:
        return _nvfp4(entries, read)
    if codes.dtype != torch.int32 or "shape" not in entries or math.prod(entries["shape"].shape) != 2:
        return f"codes of type {type_name(codes.dtype)}"
    if "order" in entries or "global" in entries:
        return "with groups in another order"
    rows, columns = map(int, read("shape").tolist())
    fitting = [bits for bits in range(1, 9) if rows == codes.shape[0] and -(-columns * bits // 32) == codes.shape[1]]
    if len(fitting) != 1 or fitting[0] not in (2, 4, 8):
        return "of a number of bits that is not 2, 4 or 8"
    bits = fitting[0]
    block = dequantize.block_of((rows, columns), scale.shape)
    if block is None or block[0] != 1:
        return f"{by((rows, columns))} codes with {by(scale.shape)} scales"
    zeros = entries.get("zeros")
    if zeros is not None and zeros.shape != (-(-rows * bits // 32), scale.shape[1]):
        return f"zero points of the shape {by(zeros.shape)}"

    def decode() -> Decoded:
        values = dequantize.fields(read("codes"), bits)[:, :columns] - 2 ** (bits - 1)
        zero = None
        if zeros is not None:  # packed along the rows
            zero = dequantize.fields(read("zeros").t(), bits)[:, :rows].t() - 2 ** (bits - 1)
        return dequantize.scaled(values, read("scale"), block, zero)

    return Known((rows, columns), f"int{bits} (compressed-tensors)", decode)


def _nvfp4(entries: Entries, read: Read) -> Known | str:
    """Return W = codes * scale / global scale (compressed-tensors), or codes * scale * second scale (ModelOpt).

    Without either, scales are powers of two: MXFP4 of compressed-tensors.
    """
    codes, scale = entries["codes"], entries["scale"]
    whole = entries.get("global", entries.get("second"))
    group = 32 if whole is None else 16
    fits = len(codes.shape) > 1 and codes.shape[:-1] == scale.shape[:-1]
    if codes.dtype != torch.uint8 or not fits or 2 * codes.shape[-1] != group * scale.shape[-1]:
        return f"{by(codes.shape)} codes with {by(scale.shape)} scales"
    if scale.dtype not in ((torch.uint8,) if whole is None else (torch.float8_e4m3fn,)):
        return f"scales of type {type_name(scale.dtype)}"
    if whole is not None and math.prod(whole.shape) != 1:
        return f"global scales of the shape {by(whole.shape)}"

    def decode() -> Decoded:
        scales = read("scale")
        if whole is None:
            scales = dequantize.power_of_two(scales)
        elif "global" in entries:
            scales = scales.float() / read("global").float().reshape(())
        else:
            scales = scales.float() * read("second").float().reshape(())
        return dequantize.float4(read("codes"), scales)

    return Known((*codes.shape[:-1], 2 * codes.shape[-1]), "mxfp4" if whole is None else "nvfp4", decode)


def mxfp4(entries: Entries, read: Read, config: Config) -> Known | str:
    """Return W of blocks of 32, (..., rows, columns): `convert_moe_packed_tensors` of transformers, untransposed."""
    codes, scale = entries["codes"], entries["scale"]
    if {codes.dtype, scale.dtype} != {torch.uint8} or codes.shape != (*scale.shape, 16) or len(codes.shape) < 3:
        return f"{by(codes.shape)} codes with {by(scale.shape)} scales"

    def decode() -> Decoded:
        return dequantize.float4(read("codes").flatten(-2), dequantize.power_of_two(read("scale")))

    return Known((*codes.shape[:-2], 32 * codes.shape[-2]), "mxfp4", decode)


def mxfp4_transposed(entries: Entries, read: Read, config: Config) -> Known | str:
    """Return W of `_mxfp4` as transformers names and transposes it: (experts, in, out)."""
    found = mxfp4(entries, read, config)
    if isinstance(found, str) or len(found.shape) != 3:
        return found

    def decode() -> Decoded:
        return Decoded(*(entries.transpose(1, 2) for entries in found.decode()))

    return Known((found.shape[0], found.shape[2], found.shape[1]), found.stored, decode)
