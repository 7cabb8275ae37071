"""The matrix products of the time loop, by the fastest library on this machine.

Almost all of the arithmetic of a recurrent network is `addend + x W^T`, once per step forward and once
backward, and one product over all steps for the weight gradient. PyTorch ships two libraries that can do it on
a CPU: MKL (behind `torch.addmm`) and oneDNN (behind the operators that PyTorch's own compiler emits). Which is
faster is a matter of facts known beforehand: MKL leaves half the vector width unused on processors that are not
Intel's, while oneDNN pays some 9 microseconds a call. The choice is made here, in one place, from the shape,
the type and the processor, never from a stopwatch, so that the same seed gives the same bits on the same
machine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

AddProduct = Callable[[Tensor, Tensor], Tensor]
"""f(x, addend) = addend + x W^T. The result may or may not reuse the memory of `addend`."""

# Below this many multiplications a call, oneDNN's fixed cost outweighs its speed.
SMALLEST_ONEDNN_PRODUCT = 2**20


def add_product(weight: Tensor, rows: int) -> AddProduct:
    """Prepare x, addend -> addend + x weight^T for many calls with the same weight (outside autograd).

    Parameters
    ----------
    weight
        (out, in) matrix.
    rows
        Number of rows of the x to come.
    """
    if _onednn_is_faster(weight, rows * weight.numel()):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        multiply = torch.ops.mkldnn._linear_pointwise.default

        def by_onednn(x: Tensor, addend: Tensor) -> Tensor:
            # oneDNN can add by itself, but takes longer over it than a separate pass does.
            result: Tensor = multiply(x, packed, None, "none", [], "")
            return result.add_(addend)

        return by_onednn

    transposed = weight.t()

    def by_addmm(x: Tensor, addend: Tensor) -> Tensor:
        return addend.addmm_(x, transposed)

    return by_addmm


def gram(left: Tensor, right: Tensor) -> Tensor:
    """Return left^T right, (a, b), for tall matrices left (rows, a) and right (rows, b), outside autograd."""
    if _onednn_is_faster(left, left.shape[0] * left.shape[1] * right.shape[1]):
        result: Tensor = torch.ops.mkldnn._linear_pointwise(left.t(), right.t(), None, "none", [], "")
        return result
    return left.t() @ right


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
