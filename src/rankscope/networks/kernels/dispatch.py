"""The matrix products of the time loop, by the fastest means on this machine.

Almost all of the arithmetic of a recurrent network is two products: `addend + leak state + x W^T`, once per step
forward and once backward, and left^T right over all steps for the weight gradient. Who computes them fastest is a
matter of facts known beforehand: our own compiled kernels where their tiles fit; oneDNN, which PyTorch ships and its
compiler uses, on processors for which MKL leaves half the vector width unused; else MKL through `torch.addmm`. The
choice is made here, in one place, from the shape, the type, the processor and the number of threads, never from a
stopwatch, so that the same seed gives the same bits on the same machine.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rankscope.networks.kernels import build

# Above this many units a second thread pays, and our kernels have only one.
LARGEST_NATIVE_WITH_THREADS = 512
# Above this, the gradient no longer stays in the cache while our kernel adds to it slice by slice.
LARGEST_NATIVE_GRAM = 256
# Below this many multiplications a call, oneDNN's fixed cost of some 10 microseconds outweighs its speed.
SMALLEST_ONEDNN_PRODUCT = 2**20


class Affine(Protocol):
    """x, addend, state, leak -> addend + leak * state + x W^T, for a W that was given before."""

    def __call__(
        self, x: Tensor, addend: Tensor, state: Tensor | None = None, leak: float = 0.0, out: Tensor | None = None
    ) -> Tensor:
        """Write the result into `out` and return it; by default that is `addend`, and it may be `state`."""
        ...


def affine(weight: Tensor, rows: int) -> Affine:
    """Prepare addend + leak * state + x weight^T for many calls with the same weight, outside autograd.

    Parameters
    ----------
    weight
        (out, in). It may be packed here: later changes of it may or may not be seen.
    rows
        Number of rows of the x to come. All arguments to come are contiguous.
    """
    if _native_fits(weight, columns=weight.shape[0]):
        return build.AffineKernel(weight)
    if _onednn_is_faster(weight, rows * weight.numel()):
        return _by_onednn(weight, rows)
    return _by_addmm(weight)


def driven(weight: Tensor, channels: Tensor) -> build.DrivenKernel | None:
    """Return what walks through time with weights (N, N) and (N, C) in compiled code, or None if nothing does."""
    fits = _native_fits(weight, columns=weight.shape[0])
    return build.DrivenKernel(weight, channels) if fits else None


class Grams(NamedTuple):
    """left^T right, and the products of what is beside each with it, (C, N)."""

    between: Tensor
    beside_left: Tensor
    beside_right: Tensor


def grams(left: Tensor, right: Tensor, beside_left: Tensor, beside_right: Tensor, into: Tensor | None = None) -> Grams:
    """Multiply tall contiguous left (rows, a) and right (rows, b), and the few channels beside each, outside autograd.

    Parameters
    ----------
    beside_left, beside_right
        (rows, C), contiguous.
    into
        Contiguous memory (a, b) for left^T right; fresh one by default.
    """
    N = left.shape[1]
    if right.shape[1] == N <= LARGEST_NATIVE_GRAM and _native_fits(left, columns=N):
        between = left.new_zeros(N, N) if into is None else into.zero_()
        few = [build.Beside(beside, left.new_zeros(beside.shape[1], N)) for beside in (beside_left, beside_right)]
        build.accumulate(between, left, right, *few)
        return Grams(between, *(beside.total for beside in few))
    if _onednn_is_faster(left, left.numel() * right.shape[1]):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(left.t(), right.t(), None, "none", [], "")
        between = product if into is None else into.copy_(product)
    else:
        between = left.t() @ right if into is None else torch.mm(left.t(), right, out=into)
    # (few x many) @ (many x N) is ten times faster than its transpose
    return Grams(between, beside_left.t() @ left, beside_right.t() @ right)


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
    """Return addend + leak * state in the memory that the result is to have."""
    result = addend if out is None else out
    if state is not None:
        return torch.add(addend, state, alpha=leak, out=result)
    return result if result is addend else result.copy_(addend)


def _native_fits(like: Tensor, columns: int) -> bool:
    return (
        like.dtype == torch.float32
        and like.device.type == "cpu"
        and build.supports(columns)
        and (columns <= LARGEST_NATIVE_WITH_THREADS or torch.get_num_threads() == 1)
    )


def _onednn_is_faster(like: Tensor, multiplications: int) -> bool:
    return (
        multiplications >= SMALLEST_ONEDNN_PRODUCT
        and like.dtype == torch.float32
        and like.device.type == "cpu"
        and _onednn_beats_mkl()
    )


@functools.cache
def _onednn_beats_mkl() -> bool:
    """Whether this processor is one on which MKL holds back and oneDNN's operators are there to be used."""
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and _cpu_vendor() not in ("GenuineIntel", "")
    )


def _cpu_vendor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")
