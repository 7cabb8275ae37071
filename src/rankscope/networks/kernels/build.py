"""Compile the kernels for this processor, once per process, and call them on torch tensors.

A step of a 256-unit network multiplies a (32, 256) by a (256, 256) matrix, which takes a modern core 16 microseconds.
General libraries add 10 to 25 for checks, dispatch and packing the weights in every call, and apply leak and
nonlinearity in further passes over memory. These kernels are written as LLVM assembly and compiled in memory by
llvmlite; no C compiler is needed. With tiles of rows x columns held in vector registers,

    affine       out = addend + leak * state + x W^T      (W^T packed into panels as wide as a tile)
    forward      h[t] = leak h[t-1] + u[t] V^T + x[t] W^T,  x[t+1] = phi(h[t]),  out[t] = x[t+1] R^T,  for all t
    adjoint      delta[t] = phi'(x[t+1]) (u[t] V^T + delta[t+1] W^T) + leak delta[t+1],  for t = T-2, ..., 0
    accumulate   out = out + left^T right

All are float32, single-threaded, and return the same bits for the same numbers. `dispatch.py` decides when they are
used.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from rankscope.networks.cells import CELLS
from rankscope.networks.kernels.gated_loop import arrays_of
from rankscope.networks.kernels.gemm import module
from rankscope.networks.kernels.tile import COMPILED, Tile

try:
    import llvmlite.binding as llvm
except ImportError:  # optional: without it dispatch uses torch's matrix products
    llvm = None

_POINTER, _INTEGER, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class AffineKernel:
    """x, addend, state, leak -> addend + leak * state + x (scale weight)^T.

    Parameters
    ----------
    weight
        (N, K) float32 matrix. It is packed here; later changes have an effect after `pack`.
    scale
        Factor of the weight.
    """

    def __init__(self, weight: Tensor, scale: float = 1.0) -> None:
        kernels = compiled()
        assert kernels is not None
        self._kernels = kernels
        self._columns, self._depth = weight.shape
        self._weight, self._scale = weight, scale
        self._panels = weight.new_empty(weight.numel())
        self.pack()

    def pack(self) -> None:
        """Pack the present values of the weight."""
        self._pack(self._weight, self._scale, self._panels)

    def _pack(self, weight: Tensor, scale: float, panels: Tensor) -> None:
        self._kernels.pack(*weight.shape, weight.data_ptr(), *weight.stride(), scale, panels.data_ptr())

    def __call__(
        self, x: Tensor, addend: Tensor, state: Tensor | None = None, leak: float = 0.0, out: Tensor | None = None
    ) -> Tensor:
        """Write the result into `out` and return it; by default that is `addend`, and it may be `state`.

        x is (M, K), the others (M, N); all are contiguous float32 tensors on the CPU.
        """
        start = addend.data_ptr()
        result = addend if out is None else out
        self._kernels.affine(
            x.shape[0],
            self._columns,
            self._depth,
            x.data_ptr(),
            self._panels.data_ptr(),
            0,
            start,
            start,
            start,
            start if state is None else state.data_ptr(),
            start,
            result.data_ptr(),
            leak,
        )
        return result


class TimeLoopKernel(AffineKernel):
    """The time loops of a network with recurrent weights `weight`, driven by a few channels.

    Parameters
    ----------
    weight
        (N, N) float32 matrix W.
    channels
        (N, C) float32 matrix V.
    scale, channels_scale
        Factors of W and V.
    """

    def __init__(self, weight: Tensor, channels: Tensor, scale: float = 1.0, channels_scale: float = 1.0) -> None:
        self._channel_weights, self._channels_scale = channels, channels_scale
        self._channels = channels.shape[1]
        self._channel_panels = channels.new_empty(channels.numel())
        super().__init__(weight, scale)

    def pack(self) -> None:
        """Pack the present values of both weights."""
        super().pack()
        self._pack(self._channel_weights, self._channels_scale, self._channel_panels)

    def forward(
        self, phi: str, u: Tensor, initial: Tensor, states: Tensor, rates: Tensor, leak: float, readout: Tensor,
        out: Tensor,
    ) -> None:  # fmt: skip
        """Run forward in time.

        For t = 0, ..., T-1: h[t] = leak * h[t-1] + u[t] V^T + x[t] W^T; x[t+1] = phi(h[t]); out[:, t] = x[t+1]
        readout^T.

        Parameters
        ----------
        phi
            One of `COMPILED`.
        u, initial, readout
            (T, M, C), h[-1] (M, N) and (D, N), contiguous.
        states
            (T, M, N) for every h[t], or (1, M, N) for the last one only; contiguous.
        rates
            x: (T + 1, M, N), or (2, M, N), which x[t] occupies alternately; contiguous. The first is x[0].
        out
            (M, T, D) with any strides of M and T, contiguous in D.
        """
        steps, rows, _ = u.shape
        self._kernels.forward[phi](
            steps,
            rows,
            self._columns,
            self._panels.data_ptr(),
            self._channels,
            u.data_ptr(),
            self._channel_panels.data_ptr(),
            initial.data_ptr(),
            states.data_ptr(),
            0 if len(states) == 1 else rows * self._columns,
            rates.data_ptr(),
            1 if len(rates) == 2 else -1,
            leak,
            len(readout),
            readout.data_ptr(),
            out.data_ptr(),
            out.stride(0),
            out.stride(1),
        )

    def adjoint(self, phi: str, delta: Tensor, u: Tensor, rates: Tensor, leak: float) -> None:
        """Fill delta[T-2], ..., delta[0] from delta[T-1]; `phi` is one of `COMPILED`.

        delta and rates are (T, M, N), u (T, M, C), contiguous.
        """
        steps, rows, columns = delta.shape
        self._kernels.adjoint[phi](
            steps,
            rows,
            columns,
            self._panels.data_ptr(),
            self._channels,
            u.data_ptr(),
            self._channel_panels.data_ptr(),
            rates.data_ptr(),
            delta.data_ptr(),
            leak,
        )


class GatedLoopKernel(AffineKernel):
    """The time loop of a gated layer, forward or backward.

    Parameters
    ----------
    cell
        One of `cells.CELLS`.
    weight
        Recurrent weights (gates N, N) for a loop forward, their transpose for a loop back.
    """

    def __init__(self, cell: str, weight: Tensor) -> None:
        super().__init__(weight)
        self._cell, self._units = cell, min(weight.shape)

    def run(self, sizes: Tensor, arrays: Mapping[str, Tensor]) -> None:
        """Run all steps.

        Parameters
        ----------
        sizes
            Number of sequences in each step, int64.
        arrays
            Those of `gated_loop.arrays_of`, contiguous.
        """
        pointers = [arrays[name].data_ptr() for name in arrays_of(self._cell)]
        count = len(arrays["states" if "states" in arrays else "dgates"])
        function = self._kernels.gated[self._cell]
        function(len(sizes), sizes.data_ptr(), count, self._units, self._panels.data_ptr(), *pointers)


class Extra(NamedTuple):
    """A few channels (rows, C) beside a tall matrix (rows, N), and the total (C, N) to which their product is added."""

    channels: Tensor
    total: Tensor


def accumulate(out: Tensor, left: Tensor, right: Tensor, extra_left: Extra, extra_right: Extra) -> None:
    """Add left^T right to `out` (a, b), and channels^T left and channels^T right to the totals of the extra channels.

    left is (rows, a), right (rows, b); all are contiguous and float32.
    """
    kernels = compiled()
    assert kernels is not None
    extras: list[int] = []
    for extra in (extra_left, extra_right):
        extras += [extra.channels.shape[1], extra.channels.data_ptr(), extra.total.data_ptr()]
    kernels.accumulate(*left.shape, right.shape[1], left.data_ptr(), right.data_ptr(), out.data_ptr(), *extras)


def supports(columns: int) -> bool:
    """Return whether the kernels are available and their tiles divide `columns`."""
    kernels = compiled()
    return kernels is not None and columns % kernels.tile.columns == 0


@dataclass(frozen=True)
class Kernels:
    """The compiled functions, and the engine that owns their machine code."""

    tile: Tile
    affine: Any
    pack: Any
    accumulate: Any
    forward: dict[str, Any]
    adjoint: dict[str, Any]
    gated: dict[str, Any]
    engine: Any


@functools.cache
def compiled() -> Kernels | None:
    """Compile the kernels for this processor, once per process; None where that is not possible."""
    if llvm is None:
        return None
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    tile = tile_for(llvm.get_host_cpu_features())
    return None if tile is None else compile_kernels(tile)


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

    def function(name: str, *arguments: Any) -> Any:
        return ctypes.CFUNCTYPE(None, *arguments)(engine.get_function_address(name))

    sizes, extra = (_INTEGER, _INTEGER, _INTEGER), (_INTEGER, _POINTER, _POINTER)
    forward = (*sizes, _POINTER, *extra, _POINTER, _POINTER, _INTEGER, _POINTER, _INTEGER, _FLOAT)
    readout = (*extra, _INTEGER, _INTEGER)
    adjoint = (*sizes, _POINTER, *extra, _POINTER, _POINTER, _FLOAT)
    gated = (_INTEGER, _POINTER, *sizes[:2], _POINTER)
    return Kernels(
        tile,
        function("affine", *sizes, *[_POINTER] * 2, _INTEGER, *[_POINTER] * 6, _FLOAT),
        function("pack", *sizes[:2], _POINTER, *sizes[:2], _FLOAT, _POINTER),
        function("accumulate", *sizes, *[_POINTER] * 3, *extra, *extra),
        {phi: function(f"forward_{phi}", *forward, *readout) for phi in COMPILED},
        {phi: function(f"adjoint_{phi}", *adjoint) for phi in COMPILED},
        {cell: function(f"{cell}_loop", *gated, *[_POINTER] * len(arrays_of(cell))) for cell in CELLS},
        engine,
    )
