"""Formulas by which quantized weights are codes times scales. Functions of tensors only; `quantized` finds the tensors.

Each returns `Decoded`: W is `values` times `scale`. Codes of n bits are packed into bytes or words of 32 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FLOAT4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""Numbers of E2M1, the type of four bits of the Open Compute Project's Microscaling Formats (2023), section 5.3.3."""

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Column, of eight, in each four bits of a word, lowest first: `pack` of AutoAWQ's WQLinear_GEMM."""


class Decoded(NamedTuple):
    """A weight as `values` (rows, columns, ...) times `scale`, which broadcasts to them, both float32.

    `gaps` is the distance of each value from its neighbours in the code, before scaling.
    """

    values: Tensor
    gaps: Tensor
    scale: Tensor

    def weight(self) -> Tensor:
        """Return W, float32."""
        return self.values * self.scale

    def spacing(self) -> Tensor:
        """Return the distance of neighbouring numbers of the code at each entry of W, float32."""
        return (self.gaps * self.scale.abs()).expand(self.values.shape)


def rounding_level(spacing: Tensor) -> float:
    """Return the largest singular value that errors of rounding to numbers so far apart can have.

    Parameters
    ----------
    spacing
        Distance of neighbouring numbers at each entry, (rows, columns). An error has the variance of a uniform
        distribution of that width; the bound is that of Bandeira & van Handel (2016) for independent entries.
    """
    variances = spacing.double().square() / 12
    rows, columns = (math.sqrt(float(variances.sum(dim).max())) for dim in (1, 0))
    return min(rows + columns + 4 * math.sqrt(float(variances.max())), math.sqrt(3 * float(variances.sum())))


def by(shape: Sequence[int]) -> str:
    """Return a shape as text, "4 x 3"."""
    return " x ".join(map(str, shape)) or "no dimensions"


def block_of(shape: Sequence[int], scale: Sequence[int], blocks: Sequence[int] | None = None) -> list[int] | None:
    """Return the block of codes, entries in each dimension, that one scale belongs to; None if that is not certain.

    A scale of one dimension is that of the rows, or, for a stack of matrices, that of each matrix.

    Parameters
    ----------
    shape, scale
        Shapes of the codes and of the scales.
    blocks
        Size of a block in the last dimensions, from the configuration of the model.
    """
    if math.prod(scale) == 1:
        return list(shape)
    if len(scale) < len(shape):
        if scale[0] != shape[0] or any(size != 1 for size in scale[1:]):
            return None
        scale = [*scale, *(1 for _ in range(len(shape) - len(scale)))]
    if len(scale) != len(shape):
        return None
    given = dict(zip(range(-1, -len(shape) - 1, -1), reversed(list(blocks or [])), strict=False))
    found = []
    for dim, (size, count) in enumerate(zip(shape, scale, strict=True)):
        known = given.get(dim - len(shape))
        if count in (1, size):
            found.append(size // count)
        elif known is not None and -(-size // known) == count:
            found.append(known)
        # Blocks of 128 are usual, the last one may be smaller; others divide the matrix.
        elif known is None and -(-size // 128) == count:
            found.append(128)
        elif known is None and count and size % count == 0:
            found.append(size // count)
        else:
            return None
    return found


def spread(scale: Tensor, shape: Sequence[int], block: Sequence[int]) -> Tensor:
    """Return scales so that they broadcast to codes of `shape`, each repeated over its block."""
    scale = scale.float()
    if scale.numel() == 1:
        return scale.reshape([1] * len(shape))
    scale = scale.reshape([*scale.shape, *(1 for _ in range(len(shape) - scale.ndim))])
    for dim, (size, entries) in enumerate(zip(shape, block, strict=True)):
        if entries > 1 and scale.shape[dim] > 1:
            scale = scale.repeat_interleave(entries, dim).narrow(dim, 0, size)
    return scale


def scaled(codes: Tensor, scale: Tensor, block: Sequence[int], zero: Tensor | None = None) -> Decoded:
    """Return (codes - zero points) * scales: `dequantize` of compressed-tensors, and DeepSeek's `weight_dequant`."""
    values = codes.float()
    gaps = float_gaps(values, codes.dtype) if codes.dtype.is_floating_point else torch.ones(1)
    if zero is not None:
        values -= spread(zero, codes.shape, block)
    return Decoded(values, gaps, spread(scale, codes.shape, block))


def float_gaps(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the distance of neighbouring numbers of a floating type at each value."""
    info = torch.finfo(dtype)
    # Below the smallest normal number the distance stays what it is there.
    _, exponents = torch.frexp(values.abs().clamp_min(info.tiny))
    gaps: Tensor = torch.ldexp(torch.full_like(values, info.eps / 2), exponents)
    return gaps


def by_table(codes: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of a table that codes stand for, and the gaps around them."""
    levels, places = torch.unique(table.float(), return_inverse=True)
    steps = levels.diff() if len(levels) > 1 else torch.zeros(1)
    gaps = (torch.cat([steps[:1], steps]) + torch.cat([steps, steps[-1:]])) / 2
    index = codes.long()
    return table.float()[index], gaps[places][index]


def nibbles(packed: Tensor, high_first: bool = False) -> Tensor:
    """Return codes of four bits from bytes, (..., n) to (..., 2 n)."""
    low, high = packed & 0xF, packed >> 4
    return torch.stack((high, low) if high_first else (low, high), -1).flatten(-2)


def fields(words: Tensor, bits: int) -> Tensor:
    """Return codes of 2, 4 or 8 bits from words of 32, lowest first: (rows, n) to (rows, n * 32 / bits)."""
    shifts = torch.arange(0, 32, bits)
    codes: Tensor = (words.long()[..., None] >> shifts) & (2**bits - 1)
    return codes.flatten(-2)


def gptq(
    qweight: Tensor, qzeros: Tensor, scales: Tensor, groups: Tensor, bits: int, first_format: bool
) -> tuple[Tensor, Tensor]:
    """Return codes minus zero points, and scales, (out, in): the weights of GPTQ (Frantar et al. 2022).

    As in `dequantize_weight` of AutoGPTQ and GPTQModel: W[n, k] = scales[g, n] (q[k, n] - z[g, n]) with the group g of
    column k. The first format of the files stores z - 1.

    Parameters
    ----------
    qweight, qzeros, scales
        (in * bits / 32, out), (groups, out * bits / 32) and (groups, out).
    groups
        Group of each column of W, (in,).
    """
    codes = fields(qweight.t(), bits)
    zeros = fields(qzeros, bits) + int(first_format)
    return (codes - zeros.t()[:, groups]).float(), scales.float().t()[:, groups]


def awq(qweight: Tensor, qzeros: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes minus zero points, and scales, (out, in): AWQ (Lin et al. 2023) in AutoAWQ's layout for GEMM.

    As in `dequantize_gemm`: W[n, k] = scales[g, n] (q[k, n] - z[g, n]), with groups of consecutive columns.

    Parameters
    ----------
    qweight, qzeros, scales
        (in, out / 8), (groups, out / 8) and (groups, out).
    """
    order = torch.tensor(AWQ_ORDER).argsort()
    codes, zeros = (fields(words, 4).reshape(len(words), -1, 8)[..., order].flatten(-2) for words in (qweight, qzeros))
    group = len(codes) // len(zeros)
    zeros, scale = (values.repeat_interleave(group, 0) for values in (zeros, scales.float()))
    return (codes - zeros).float().t(), scale.t()


def bitsandbytes_4bit(packed: Tensor, table: Tensor, absmax: Tensor, block: int, shape: Sequence[int]) -> Decoded:
    """Return W of NF4 or FP4 (Dettmers et al. 2023): `dequantize_4bit` of bitsandbytes.

    Parameters
    ----------
    packed
        Two codes a byte, the first in the higher bits, of any shape and type.
    table
        The 16 numbers that codes stand for.
    absmax
        Scale of each `block` of consecutive entries of W.
    """
    count = math.prod(shape)
    codes = nibbles(packed.contiguous().flatten().view(torch.uint8), high_first=True)[:count]
    values, gaps = by_table(codes, table)
    scale = absmax.float().repeat_interleave(block)[:count]
    return Decoded(*(entries.reshape(list(shape)) for entries in (values, gaps, scale)))


def nested_absmax(absmax: Tensor, table: Tensor, scale: Tensor, block: int, offset: float) -> Tensor:
    """Return the scales of a double quantization (Dettmers et al. 2023): `dequantize_blockwise` of bitsandbytes."""
    return table.float()[absmax.long()] * scale.float().repeat_interleave(block)[: absmax.numel()] + offset


def float4(packed: Tensor, scale: Tensor) -> Decoded:
    """Return W from codes of E2M1, two a byte, the first in the lower bits, and scales of equal groups of a row.

    Parameters
    ----------
    packed, scale
        (..., n / 2) and (..., groups).
    """
    codes = nibbles(packed)
    values, gaps = by_table(codes, torch.tensor(FLOAT4))
    return Decoded(values, gaps, scale.repeat_interleave(codes.shape[-1] // scale.shape[-1], -1))


def power_of_two(exponents: Tensor) -> Tensor:
    """Return the scales of the Microscaling Formats, E8M0: 2^(e - 127) from bytes."""
    scale: Tensor = torch.ldexp(torch.ones(exponents.shape), exponents.int() - 127)
    return scale
