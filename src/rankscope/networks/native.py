"""Matrix kernels compiled for this processor when they are first needed.

A step of a 256-unit network multiplies a (32, 256) by a (256, 256) matrix, which takes a modern core 16
microseconds. General libraries spend another 10 to 25 on the call: they check, plan, pack the weights again,
and cannot add the leak on the way. So the two products of the time loop are written here in the language of
LLVM, as the textbook register-tiled loops they are, and compiled in memory by llvmlite; no C compiler is
needed. With tiles of rows x columns held in vector registers,

    affine       out = addend + leak * state + x W^T      (W^T packed into panels as wide as a tile)
    accumulate   out = out + left^T right
    adjoint      delta[t] = phi'(rates[t]) * (delta[t] + delta[t+1] W^T) + leak * delta[t+1],  for t = T-2, ..., 0

All are float32, single-threaded, and return the same bits for the same numbers. `products.py` decides when
they are used.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rankscope.networks.assembly import SLOPES, Tile, module

try:
    import llvmlite.binding as llvm
except ImportError:  # an installation without it is slower, not broken
    llvm = None

_POINTER, _INTEGER = ctypes.c_void_p, ctypes.c_int64


class AffineKernel:
    """x, addend, state, leak -> addend + leak * state + x weight^T.

    Parameters
    ----------
    weight
        (N, K) float32 matrix; it is packed here, later changes are not seen.
    """

    def __init__(self, weight: Tensor) -> None:
        kernels = compiled()
        assert kernels is not None
        columns, depth = weight.shape
        width = kernels.tile.columns
        self._panels = weight.t().reshape(depth, columns // width, width).transpose(0, 1).contiguous()
        self._packed = self._panels.data_ptr()
        self._columns, self._depth = columns, depth
        self._call, self._adjoint = kernels.affine, kernels.adjoint

    def __call__(
        self, x: Tensor, addend: Tensor, state: Tensor | None = None, leak: float = 0.0, out: Tensor | None = None
    ) -> Tensor:
        """Write the result into `out` and return it; by default that is `addend`, and it may be `state`.

        x is (M, K), the others (M, N); all are contiguous, float32, and in the memory of this process.
        """
        start = addend.data_ptr()
        result = addend if out is None else out
        self._call(
            x.shape[0],
            self._columns,
            self._depth,
            x.data_ptr(),
            self._packed,
            start,
            start if state is None else state.data_ptr(),
            start,
            result.data_ptr(),
            leak,
        )
        return result

    def walk_forward(
        self, x: Tensor, addend: Tensor, state: Tensor, leak: float, after: Callable[[int], object]
    ) -> None:
        """For t = 0, ..., T-1: addend[t] += leak * state + x[t] W^T; then that is the state, and `after(t)` is called.

        x is (T, M, K), addend (T, M, N) and state (M, N), contiguous; `after` may fill x[t+1].
        """
        steps, rows, _ = addend.shape
        call, columns, depth, packed = self._call, self._columns, self._depth, self._packed
        x_t, addend_t, state_t = x.data_ptr(), addend.data_ptr(), state.data_ptr()
        x_stride, stride = 4 * rows * depth, 4 * rows * columns
        for t in range(steps):
            call(rows, columns, depth, x_t, packed, addend_t, state_t, addend_t, addend_t, leak)
            after(t)
            state_t = addend_t
            x_t += x_stride
            addend_t += stride

    def walk_back(self, slope: str, delta: Tensor, rates: Tensor, leak: float) -> None:
        """Fill delta[T-2], ..., delta[0] from delta[T-1] and what they hold; `slope` is one of `SLOPES`.

        delta and rates are (T, M, N), contiguous; the weight is (N, N).
        """
        steps, rows, columns = delta.shape
        self._adjoint[slope](steps, rows, columns, self._packed, rates.data_ptr(), delta.data_ptr(), leak)


def accumulate(out: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left^T right to `out` (a, b), for contiguous float32 left (rows, a) and right (rows, b)."""
    kernels = compiled()
    assert kernels is not None
    kernels.accumulate(left.shape[0], left.shape[1], right.shape[1], left.data_ptr(), right.data_ptr(), out.data_ptr())


def supports(columns: int) -> bool:
    """Whether the kernels exist here and their tiles divide `columns`."""
    kernels = compiled()
    return kernels is not None and columns % kernels.tile.columns == 0


@dataclass(frozen=True)
class Kernels:
    """The compiled functions, and what keeps their machine code alive."""

    tile: Tile
    affine: Any
    accumulate: Any
    adjoint: dict[str, Any]
    engine: Any


@functools.cache
def compiled() -> Kernels | None:
    """Compile the kernels for this processor, once a process; None where that is not possible."""
    if llvm is None:
        return None
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    tile = tile_for(llvm.get_host_cpu_features())
    if tile is None:
        return None
    return compile_kernels(tile)


def tile_for(features: dict[str, bool]) -> Tile | None:
    """Return the tile that fills the vector registers of a processor with these features."""
    if features.get("avx512f"):
        return Tile(rows=8, vectors=2, lanes=16)
    if features.get("avx2") and features.get("fma"):
        return Tile(rows=4, vectors=2, lanes=8)
    if features.get("neon"):
        return Tile(rows=8, vectors=2, lanes=4)
    return None


def compile_kernels(tile: Tile) -> Kernels:
    """Compile the kernels with this tile."""
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
    parsed = llvm.parse_assembly(module(tile))
    parsed.verify()
    engine = llvm.create_mcjit_compiler(parsed, target)
    engine.finalize_object()
    affine = ctypes.CFUNCTYPE(None, *[_INTEGER] * 3, *[_POINTER] * 6, ctypes.c_float)
    accumulating = ctypes.CFUNCTYPE(None, *[_INTEGER] * 3, *[_POINTER] * 3)
    adjoint = ctypes.CFUNCTYPE(None, *[_INTEGER] * 3, *[_POINTER] * 3, ctypes.c_float)
    return Kernels(
        tile,
        affine(engine.get_function_address("affine")),
        accumulating(engine.get_function_address("accumulate")),
        {slope: adjoint(engine.get_function_address(f"adjoint_{slope}")) for slope in SLOPES},
        engine,
    )
