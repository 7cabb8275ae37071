"""Two matrix kernels compiled for this processor when they are first needed.

A step of a 256-unit network multiplies a (32, 256) by a (256, 256) matrix, which takes a modern core 16
microseconds. General libraries spend another 10 to 25 on the call: they check, plan, pack the weights again,
and cannot add the leak on the way. So the two products of the time loop are written here in the language of
LLVM, as the textbook register-tiled loops they are, and compiled in memory by llvmlite; no C compiler is
needed. With tiles of rows x columns held in vector registers,

    affine       out = addend + leak * state + x W^T      (W^T packed into panels as wide as a tile)
    accumulate   out = out + left^T right

Both are float32, single-threaded, and return the same bits for the same numbers. `products.py` decides when
they are used.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

from torch import Tensor

try:
    import llvmlite.binding as llvm
except ImportError:  # an installation without it is slower, not broken
    llvm = None

_POINTER, _INTEGER = ctypes.c_void_p, ctypes.c_int64


@dataclass(frozen=True)
class Tile:
    """The piece of the output that stays in registers: `rows` x (`vectors` vectors of `lanes` floats)."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        """Width of the tile in floats."""
        return self.vectors * self.lanes


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
            start,
            start if state is None else state.data_ptr(),
            result.data_ptr(),
            leak,
        )
        return result


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
    engine: Any


@functools.cache
def compiled() -> Kernels | None:
    """Compile both kernels for this processor, once a process; None where that is not possible."""
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
    """Compile both kernels with this tile."""
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
    module = llvm.parse_assembly(_module(tile))
    module.verify()
    engine = llvm.create_mcjit_compiler(module, target)
    engine.finalize_object()
    affine = ctypes.CFUNCTYPE(None, *[_INTEGER] * 3, *[_POINTER] * 5, ctypes.c_float)
    accumulating = ctypes.CFUNCTYPE(None, *[_INTEGER] * 3, *[_POINTER] * 3)
    return Kernels(
        tile,
        affine(engine.get_function_address("affine")),
        accumulating(engine.get_function_address("accumulate")),
        engine,
    )


def _module(tile: Tile) -> str:
    """Return both kernels as LLVM assembly."""
    # Rows that do not fill a tile are done by tiles of half the height, and half of that, down to single rows.
    heights = [tile.rows]
    while heights[-1] > 1:
        heights.append(heights[-1] // 2)
    vector = f"<{tile.lanes} x float>"
    bits = 32 * tile.lanes
    return "\n".join(
        [
            *(_tile("affine", tile, height, with_state=True) for height in heights),
            _tile("accumulate", tile, tile.rows, with_state=False),
            _affine(tile, heights),
            _accumulate(tile),
            f"declare {vector} @llvm.fma.v{tile.lanes}f32({vector}, {vector}, {vector})",
            # Without these LLVM may cut 512-bit vectors in two on processors that it believes to prefer that.
            f'attributes #0 = {{ nounwind "prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}" }}',
        ]
    )


def _tile(kernel: str, tile: Tile, rows: int, with_state: bool) -> str:
    """Return one tile of the output as a function: out = addend [+ leak * state] + sum_k a[row, k] b[k, column].

    a[row, k] is at a + row * a_row + k * a_step, b[k, :] at b + k * b_step; addend, state and out share the row
    stride c_row. All strides are in floats.
    """
    V, lanes = f"<{tile.lanes} x float>", tile.lanes
    cells = [(row, v) for row in range(rows) for v in range(tile.vectors)]
    splat = f"shufflevector {V} %{{0}}, {V} poison, <{lanes} x i32> zeroinitializer"
    fma = f"call {V} @llvm.fma.v{lanes}f32"
    code = [
        f"define internal void @{kernel}_tile{rows}(i64 %depth, ptr %a, i64 %a_row, i64 %a_step, ptr %b, i64 %b_step,",
        "    ptr %addend, ptr %state, ptr %out, i64 %c_row, float %leak) alwaysinline #0 {",
        "entry:",
        f"  %leak0 = insertelement {V} poison, float %leak, i32 0",
        f"  %leaks = {splat.format('leak0')}",
    ]
    for row in range(rows):
        code += [
            f"  %a_offset{row} = mul i64 %a_row, {row}",
            f"  %a{row} = getelementptr float, ptr %a, i64 %a_offset{row}",
            f"  %c_offset{row} = mul i64 %c_row, {row}",
        ]
    for row, v in cells:
        code += [
            f"  %at{row}_{v} = add i64 %c_offset{row}, {v * lanes}",
            f"  %addend_at{row}_{v} = getelementptr float, ptr %addend, i64 %at{row}_{v}",
            f"  %start{row}_{v} = load {V}, ptr %addend_at{row}_{v}, align 4",
        ]
        if with_state:
            code += [
                f"  %state_at{row}_{v} = getelementptr float, ptr %state, i64 %at{row}_{v}",
                f"  %state{row}_{v} = load {V}, ptr %state_at{row}_{v}, align 4",
                f"  %first{row}_{v} = {fma}({V} %leaks, {V} %state{row}_{v}, {V} %start{row}_{v})",
            ]
    first = "first" if with_state else "start"
    code += ["  br label %multiply", "multiply:", "  %k = phi i64 [0, %entry], [%next, %multiply]"]
    code += [f"  %sum{row}_{v} = phi {V} [%{first}{row}_{v}, %entry], [%more{row}_{v}, %multiply]" for row, v in cells]
    code += [
        "  %b_offset = mul i64 %k, %b_step",
        "  %b_k = getelementptr float, ptr %b, i64 %b_offset",
        "  %a_k = mul i64 %k, %a_step",
    ]
    for v in range(tile.vectors):
        code += [
            f"  %b_at{v} = getelementptr float, ptr %b_k, i64 {v * lanes}",
            f"  %b{v} = load {V}, ptr %b_at{v}, align 4",
        ]
    for row in range(rows):
        code += [
            f"  %a_at{row} = getelementptr float, ptr %a{row}, i64 %a_k",
            f"  %scalar{row} = load float, ptr %a_at{row}, align 4",
            f"  %single{row} = insertelement {V} poison, float %scalar{row}, i32 0",
            f"  %spread{row} = {splat.format(f'single{row}')}",
        ]
        code += [
            f"  %more{row}_{v} = {fma}({V} %spread{row}, {V} %b{v}, {V} %sum{row}_{v})" for v in range(tile.vectors)
        ]
    code += [
        "  %next = add i64 %k, 1",
        "  %done = icmp eq i64 %next, %depth",
        "  br i1 %done, label %store, label %multiply",
        "store:",
    ]
    for row, v in cells:
        code += [
            f"  %out_at{row}_{v} = getelementptr float, ptr %out, i64 %at{row}_{v}",
            f"  store {V} %more{row}_{v}, ptr %out_at{row}_{v}, align 4",
        ]
    return "\n".join([*code, "  ret void", "}"])


def _affine(tile: Tile, heights: list[int]) -> str:
    """Return the walk over the output of `affine`, panel by panel: one of weights stays in the first cache."""
    code = [
        "define void @affine(i64 %rows, i64 %columns, i64 %depth, ptr %x, ptr %panels, ptr %addend, ptr %state,",
        "    ptr %out, float %leak) #0 {",
        "entry:",
        f"  %panel_size = mul i64 %depth, {tile.columns}",
        "  br label %panel",
        "panel:",
        "  %column = phi i64 [0, %entry], [%next_column, %panel_done]",
        f"  %number = udiv i64 %column, {tile.columns}",
        "  %panel_offset = mul i64 %number, %panel_size",
        "  %weights = getelementptr float, ptr %panels, i64 %panel_offset",
        f"  br label %test{heights[0]}",
    ]
    previous, row_before = "panel", "0"
    for index, height in enumerate(heights):
        after = f"test{heights[index + 1]}" if index + 1 < len(heights) else "panel_done"
        code += [
            f"test{height}:",
            f"  %row{height} = phi i64 [{row_before}, %{previous}], [%end{height}, %block{height}]",
            f"  %end{height} = add i64 %row{height}, {height}",
            f"  %fits{height} = icmp ule i64 %end{height}, %rows",
            f"  br i1 %fits{height}, label %block{height}, label %{after}",
            f"block{height}:",
            f"  %x_offset{height} = mul i64 %row{height}, %depth",
            f"  %x{height} = getelementptr float, ptr %x, i64 %x_offset{height}",
            f"  %c_row_offset{height} = mul i64 %row{height}, %columns",
            f"  %c_offset{height} = add i64 %c_row_offset{height}, %column",
            f"  %addend{height} = getelementptr float, ptr %addend, i64 %c_offset{height}",
            f"  %state{height} = getelementptr float, ptr %state, i64 %c_offset{height}",
            f"  %out{height} = getelementptr float, ptr %out, i64 %c_offset{height}",
            f"  call void @affine_tile{height}(i64 %depth, ptr %x{height}, i64 %depth, i64 1,",
            f"    ptr %weights, i64 {tile.columns}, ptr %addend{height}, ptr %state{height}, ptr %out{height},",
            "    i64 %columns, float %leak)",
            f"  br label %test{height}",
        ]
        previous, row_before = f"test{height}", f"%row{height}"
    code += [
        "panel_done:",
        f"  %next_column = add i64 %column, {tile.columns}",
        "  %all = icmp uge i64 %next_column, %columns",
        "  br i1 %all, label %exit, label %panel",
        "exit:",
        "  ret void",
        "}",
    ]
    return "\n".join(code)


# So many rows of `left` and `right` at a time: what a tile reads of them then stays in the first cache.
_DEPTH_AT_ONCE = 32


def _accumulate(tile: Tile) -> str:
    """Return the walk over the output of `accumulate`, once for every few rows of the inputs."""
    return f"""
define void @accumulate(i64 %depth, i64 %rows, i64 %columns, ptr %left, ptr %right, ptr %out) #0 {{
entry:
  br label %slice
slice:
  %k = phi i64 [0, %entry], [%k_end, %slice_done]
  %remaining = sub i64 %depth, %k
  %short = icmp ult i64 %remaining, {_DEPTH_AT_ONCE}
  %deep = select i1 %short, i64 %remaining, i64 {_DEPTH_AT_ONCE}
  %left_offset = mul i64 %k, %rows
  %left_k = getelementptr float, ptr %left, i64 %left_offset
  %right_offset = mul i64 %k, %columns
  %right_k = getelementptr float, ptr %right, i64 %right_offset
  br label %panel
panel:
  %column = phi i64 [0, %slice], [%next_column, %panel_done]
  %b = getelementptr float, ptr %right_k, i64 %column
  br label %block
block:
  %row = phi i64 [0, %panel], [%next_row, %block]
  %a = getelementptr float, ptr %left_k, i64 %row
  %c_row_offset = mul i64 %row, %columns
  %c_offset = add i64 %c_row_offset, %column
  %c = getelementptr float, ptr %out, i64 %c_offset
  call void @accumulate_tile{tile.rows}(i64 %deep, ptr %a, i64 1, i64 %rows, ptr %b, i64 %columns,
    ptr %c, ptr %c, ptr %c, i64 %columns, float 0.0)
  %next_row = add i64 %row, {tile.rows}
  %rows_done = icmp uge i64 %next_row, %rows
  br i1 %rows_done, label %panel_done, label %block
panel_done:
  %next_column = add i64 %column, {tile.columns}
  %columns_done = icmp uge i64 %next_column, %columns
  br i1 %columns_done, label %slice_done, label %panel
slice_done:
  %k_end = add i64 %k, %deep
  %done = icmp uge i64 %k_end, %depth
  br i1 %done, label %exit, label %slice
exit:
  ret void
}}"""
