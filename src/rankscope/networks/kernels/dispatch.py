"""Choice of the fastest matrix product on this machine.

Almost all of the arithmetic of a recurrent network is in two products: `addend + leak state + x W^T`, once per step
forward and once backward, and left^T right over all steps for the weight gradient. Three implementations exist: our
compiled kernels where their tiles fit; oneDNN, which PyTorch ships, on processors for which MKL uses half the vector
width; and MKL through `torch.addmm`. The choice depends on shape, dtype, processor and number of threads, never on a
measurement, so that the same seed gives the same bits on the same machine.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rankscope.networks.kernels import build
from rankscope.networks.kernels.tile import COMPILED

# Above this many units a second thread pays, and our kernels have only one.
LARGEST_NATIVE_WITH_THREADS = 512
# Above this, the gradient no longer stays in the cache while our kernel adds to it slice by slice.
LARGEST_NATIVE_GRAM = 256
# Below this many multiplications per call, oneDNN's fixed cost of about 10 microseconds outweighs its speed.
SMALLEST_ONEDNN_PRODUCT = 2**20


class Affine(Protocol):
    """x, addend, state, leak -> addend + leak * state + x W^T, for a fixed W."""

    def __call__(
        self, x: Tensor, addend: Tensor, state: Tensor | None = None, leak: float = 0.0, out: Tensor | None = None
    ) -> Tensor:
        """Write the result into `out` and return it; by default that is `addend`, and it may be `state`."""
        ...


def affine(weight: Tensor, rows: int, scale: float = 1.0) -> Affine:
    """Prepare addend + leak * state + x (scale weight)^T for many calls with the same weight, outside autograd.

    Parameters
    ----------
    weight
        (out, in). It may be packed here: whether later changes have an effect is undefined.
    rows
        Expected number of rows of x. All arguments of the calls must be contiguous.
    """
    if native_fits(weight, columns=weight.shape[0]):
        return build.AffineKernel(weight, scale)
    scaled = weight if scale == 1 else weight * scale
    if onednn_is_faster(weight, rows * weight.numel()):
        return _by_onednn(scaled, rows)
    return _by_addmm(scaled)


def time_loop(
    phi: str, weight: Tensor, channels: Tensor, scale: float = 1.0, channels_scale: float = 1.0
) -> build.TimeLoopKernel | None:
    """Return the compiled time loops for phi and weights (N, N) and (N, C), or None where the kernels do not fit."""
    if phi in COMPILED and native_fits(weight, columns=weight.shape[0]):
        return build.TimeLoopKernel(weight, channels, scale, channels_scale)
    return None


class Grams(NamedTuple):
    """left^T right (a, b), and the products of the extra channels with each, (C, a) and (C, b)."""

    product: Tensor
    extra_left: Tensor
    extra_right: Tensor


def grams(left: Tensor, right: Tensor, extra_left: Tensor, extra_right: Tensor, into: Tensor | None = None) -> Grams:
    """Return left^T right for tall contiguous matrices (rows, a), (rows, b), and the products with extra channels.

    Parameters
    ----------
    extra_left, extra_right
        (rows, C), contiguous.
    into
        Contiguous buffer (a, b) for left^T right; allocated by default.
    """
    N = left.shape[1]
    if right.shape[1] == N <= LARGEST_NATIVE_GRAM and native_fits(left, columns=N):
        product = left.new_zeros(N, N) if into is None else into.zero_()
        extras = [build.Extra(extra, left.new_zeros(extra.shape[1], N)) for extra in (extra_left, extra_right)]
        build.accumulate(product, left, right, *extras)
        return Grams(product, *(extra.total for extra in extras))
    # (few x many) @ (many x N) is ten times faster than its transpose.
    return Grams(inner_product(left, right, into), extra_left.t() @ left, extra_right.t() @ right)


def inner_product(left: Tensor, right: Tensor, into: Tensor | None = None) -> Tensor:
    """Return left^T right for tall matrices (rows, a) and (rows, b).

    Parameters
    ----------
    into
        Buffer (a, b); allocated by default.
    """
    if onednn_is_faster(left, left.numel() * right.shape[1]):
        found: Tensor = torch.ops.mkldnn._linear_pointwise(left.t(), right.t(), None, "none", [], "")
        return found if into is None else into.copy_(found)
    return left.t() @ right if into is None else torch.mm(left.t(), right, out=into)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + bias for a tall matrix x (rows, in), outside autograd."""
    if onednn_is_faster(x, x.numel() * len(weight)):
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found
    return torch.nn.functional.linear(x, weight, bias)


def gated_loop(cell: str, weight: Tensor) -> build.GatedLoopKernel | None:
    """Return the compiled loop of one of `cells.CELLS`, or None where the kernels do not fit; see `GatedLoopKernel`."""
    return build.GatedLoopKernel(cell, weight) if native_fits(weight, columns=min(weight.shape)) else None


def _by_addmm(weight: Tensor) -> Affine:
    transposed = weight.t()

    def by_addmm(
        x: Tensor, addend: Tensor, state: Tensor | None = None, leak: float = 0.0, out: Tensor | None = None
    ) -> Tensor:
        return _start(addend, state, leak, out).addmm_(x, transposed)

    return by_addmm


def _by_onednn(weight: Tensor, rows: int) -> Affine:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    multiply = torch.ops.mkldnn._linear_pointwise.default

    def by_onednn(
        x: Tensor, addend: Tensor, state: Tensor | None = None, leak: float = 0.0, out: Tensor | None = None
    ) -> Tensor:
        product: Tensor = multiply(x, packed, None, "none", [], "")
        return _start(addend, state, leak, out).add_(product)

    return by_onednn


def _start(addend: Tensor, state: Tensor | None, leak: float, out: Tensor | None) -> Tensor:
    """Return addend + leak * state in the memory of the result."""
    result = addend if out is None else out
    if state is not None:
        return torch.add(addend, state, alpha=leak, out=result)
    return result if result is addend else result.copy_(addend)


def native_fits(like: Tensor, columns: int) -> bool:
    """Return whether our kernels handle products of `columns` columns of the dtype and device of `like`."""
    return (
        like.dtype == torch.float32
        and like.device.type == "cpu"
        and build.supports(columns)
        and (columns <= LARGEST_NATIVE_WITH_THREADS or torch.get_num_threads() == 1)
    )


def onednn_is_faster(like: Tensor, multiplications: int) -> bool:
    """Return whether oneDNN computes a product of this size, dtype and device faster than MKL."""
    return (
        multiplications >= SMALLEST_ONEDNN_PRODUCT
        and like.dtype == torch.float32
        and like.device.type == "cpu"
        and onednn_beats_mkl()
    )


@functools.cache
def onednn_beats_mkl() -> bool:
    """Return whether MKL uses half the vector width of this processor and oneDNN's operators are available."""
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and cpu_vendor() not in ("GenuineIntel", "")
    )


def cpu_vendor() -> str:
    """Return the vendor of the processor; "" where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")
