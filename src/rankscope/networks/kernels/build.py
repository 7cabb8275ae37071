"""Matrix kernels compiled for this processor when they are first needed.

A step of a 256-unit network multiplies a (32, 256) by a (256, 256) matrix, which takes a modern core 16
microseconds. General libraries spend another 10 to 25 on the call: they check, plan, pack the weights again,
and cannot add the leak on the way. So the two products of the time loop are written here in the language of
LLVM, as the textbook register-tiled loops they are, and compiled in memory by llvmlite; no C compiler is
needed. With tiles of rows x columns held in vector registers,

    affine       out = addend + leak * state + x W^T      (W^T packed into panels as wide as a tile)
    driven       out = leak * state + u V^T + x W^T       (u and V: the few channels of the input)
    read_out     out = x R^T                              (R: the few channels of the readout)
    adjoint      delta[t] = phi'(rates[t]) * (u[t] V^T + delta[t+1] W^T) + leak * delta[t+1],  for t = T-2, ..., 0
    accumulate   out = out + left^T right

All are float32, single-threaded, and return the same bits for the same numbers. `products.py` decides when
they are used.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from rankscope.networks.kernels.gemm import module
from rankscope.networks.kernels.tile import SLOPES, Tile
from rankscope.networks.kernels.time_loop import WALK

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
        self._columns, self._depth = weight.shape
        self._panels = _panels(weight, kernels.tile.columns)
        self._packed = self._panels.data_ptr()
        self._call = kernels.affine

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


class DrivenKernel(AffineKernel):
    """The walks through time of a network with recurrent weights `weight` that hears a few channels through `channels`.

    Parameters
    ----------
    weight
        (N, N) float32 matrix W.
    channels
        (N, C) float32 matrix V.
    """

    def __init__(self, weight: Tensor, channels: Tensor) -> None:
        super().__init__(weight)
        kernels = compiled()
        assert kernels is not None
        self._channels = channels.shape[1]
        self._channel_panels = _panels(channels, kernels.tile.columns)
        self._driven_at, self._read_out_at, self._adjoint = kernels.driven_at, kernels.read_out_at, kernels.adjoint

    def walk_forward(
        self, x: Tensor, u: Tensor, states: Tensor, state: Tensor, leak: float, after: Callable[[int], object],
        readout: Tensor, out: Tensor,
    ) -> None:  # fmt: skip
        """Go through time and read out on the way.

        For t = 0, ..., T-1: states[t] = leak * state + u[t] V^T + x[t] W^T, which is the state then; `after(t)`, which
        fills x[t+1]; out[:, t] = x[t+1] readout^T.

        Parameters
        ----------
        x, u, states, state, readout
            (T + 1, M, N), (T, M, C), (T, M, N), (M, N) and (D, N), contiguous.
        out
            (M, T, D), of which rows and steps may lie anywhere, but channels side by side.
        """
        steps, rows, columns = states.shape
        told: dict[str, int] = {
            "rows": rows,
            "columns": columns,
            "x": x.data_ptr(),
            "panels": self._packed,
            "channels": self._channels,
            "u": u.data_ptr(),
            "v": self._channel_panels.data_ptr(),
            "states": states.data_ptr(),
            "before": state.data_ptr(),
            "leak": ctypes.c_uint32.from_buffer(ctypes.c_float(leak)).value,
            "out_channels": len(readout),
            "w": readout.data_ptr(),
            "out": out.data_ptr(),
            "out_row": out.stride(0),
            "out_step": out.stride(1),
        }
        table = (_INTEGER * len(WALK))(*(told[name] for name in WALK))
        call, where = self._driven_at, ctypes.addressof(table)
        for t in range(steps):
            call(where, t)
            after(t)
        self._read_out_at(where, steps)

    def walk_back(self, slope: str, delta: Tensor, u: Tensor, rates: Tensor, leak: float) -> None:
        """Fill delta[T-2], ..., delta[0] from delta[T-1]; `slope` is one of `SLOPES`.

        delta and rates are (T, M, N), u (T, M, C), contiguous.
        """
        steps, rows, columns = delta.shape
        self._adjoint[slope](
            steps,
            rows,
            columns,
            self._packed,
            self._channels,
            u.data_ptr(),
            self._channel_panels.data_ptr(),
            rates.data_ptr(),
            delta.data_ptr(),
            leak,
        )


def _panels(weight: Tensor, width: int) -> Tensor:
    """Return the transpose of `weight` (N, K) as (N / width, K, width): its columns, panel by panel."""
    columns, depth = weight.shape
    # By strides, so that it is one copy also where `weight` is a transpose already.
    down, along = weight.stride()
    return weight.as_strided((columns // width, depth, width), (width * down, along, down)).contiguous()


class Beside(NamedTuple):
    """A few channels (rows, C) beside a tall matrix (rows, N), and where their product (C, N) is to be added."""

    channels: Tensor
    total: Tensor


def accumulate(
    out: Tensor, left: Tensor, right: Tensor, beside_left: Beside | None = None, beside_right: Beside | None = None
) -> None:
    """Add left^T right to `out` (a, b), for contiguous float32 left (rows, a) and right (rows, b).

    What is beside left or right is multiplied with it at the same time, for next to nothing: channels^T left.
    """
    kernels = compiled()
    assert kernels is not None
    pieces: list[int] = []
    for beside in (beside_left, beside_right):
        if beside is None:
            pieces += [0, out.data_ptr(), out.data_ptr()]
        else:
            pieces += [beside.channels.shape[1], beside.channels.data_ptr(), beside.total.data_ptr()]
    kernels.accumulate(*left.shape, right.shape[1], left.data_ptr(), right.data_ptr(), out.data_ptr(), *pieces)


def supports(columns: int) -> bool:
    """Whether the kernels exist here and their tiles divide `columns`."""
    kernels = compiled()
    return kernels is not None and columns % kernels.tile.columns == 0


@dataclass(frozen=True)
class Kernels:
    """The compiled functions, and what keeps their machine code alive."""

    tile: Tile
    affine: Any
    driven_at: Any
    read_out_at: Any
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
    step = ctypes.CFUNCTYPE(None, *[_INTEGER] * 3, *[_POINTER] * 2, _INTEGER, *[_POINTER] * 6, ctypes.c_float)
    step_of_walk = ctypes.CFUNCTYPE(None, _POINTER, _INTEGER)
    beside = (_INTEGER, _POINTER, _POINTER)
    accumulating = ctypes.CFUNCTYPE(None, *[_INTEGER] * 3, *[_POINTER] * 3, *beside, *beside)
    adjoint = ctypes.CFUNCTYPE(None, *[_INTEGER] * 3, _POINTER, _INTEGER, *[_POINTER] * 4, ctypes.c_float)
    return Kernels(
        tile,
        step(engine.get_function_address("affine")),
        step_of_walk(engine.get_function_address("driven_at")),
        step_of_walk(engine.get_function_address("read_out_at")),
        accumulating(engine.get_function_address("accumulate")),
        {slope: adjoint(engine.get_function_address(f"adjoint_{slope}")) for slope in SLOPES},
        engine,
    )
