"""All kernels of the time loop in the language of LLVM, as one module of text: products, and walks through time.

Nothing is compiled here; `native.py` does that.
"""

from __future__ import annotations

from rankscope.networks.kernels.tile import SLOPES, Tile, at_row, tile_by_tile, tile_of_output
from rankscope.networks.kernels.time_loop import adjoint, driven_at, read_out_at, read_out_tile

# So many rows of `left` and `right` at a time: what a tile reads of them then stays in the first cache.
DEPTH_AT_ONCE = 48


def module(tile: Tile) -> str:
    """Return all kernels as LLVM assembly.

    These are "affine", "driven_at", "read_out_at", "accumulate", and "adjoint_" + each of `SLOPES`.
    """
    vector = f"<{tile.lanes} x float>"
    bits = 32 * tile.lanes
    walked = ["affine", "driven", *(f"adjoint_{slope}" for slope in SLOPES)]
    return "\n".join(
        [
            *(tile_of_output(kernel, tile, rows) for kernel in walked for rows in tile.heights),
            *(_walk(kernel, tile) for kernel in walked),
            *(tile_of_output("accumulate", tile, rows) for rows in tile.heights),
            _accumulate_few(tile),
            _accumulate(tile),
            *(read_out_tile(tile, rows) for rows in tile.heights),
            read_out_at(tile),
            driven_at(),
            *(adjoint(slope) for slope in SLOPES),
            f"declare {vector} @llvm.fma.v{tile.lanes}f32({vector}, {vector}, {vector})",
            f"declare float @llvm.vector.reduce.fadd.v{tile.lanes}f32(float, {vector})",
            # Without these LLVM may cut 512-bit vectors in two on processors that it believes to prefer that.
            f'attributes #0 = {{ nounwind "prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}" }}',
        ]
    )


def _walk(kernel: str, tile: Tile) -> str:
    """Return the walk over the output of a kernel, panel by panel: one of weights stays in the first cache."""
    name = f"{kernel}_step" if kernel.startswith("adjoint_") else kernel
    begin = [
        f"  %number = udiv i64 %column, {tile.columns}",
        "  %panel_offset = mul i64 %number, %panel_size",
        "  %weights = getelementptr float, ptr %panels, i64 %panel_offset",
        "  %v_panel_offset = mul i64 %number, %v_panel_size",
        "  %v_weights = getelementptr float, ptr %v, i64 %v_panel_offset",
    ]

    def block(height: int) -> list[str]:
        return [
            *at_row(height, "x", "%x", f"%row{height}", "%depth"),
            *at_row(height, "u", "%u", f"%row{height}", "%channels"),
            f"  %c_row_offset{height} = mul i64 %row{height}, %columns",
            f"  %c_offset{height} = add i64 %c_row_offset{height}, %column",
            f"  %addend{height} = getelementptr float, ptr %addend, i64 %c_offset{height}",
            f"  %state{height} = getelementptr float, ptr %state, i64 %c_offset{height}",
            f"  %rates{height} = getelementptr float, ptr %rates, i64 %c_offset{height}",
            f"  %out{height} = getelementptr float, ptr %out, i64 %c_offset{height}",
            f"  call void @{kernel}_tile{height}(i64 %depth, ptr %x{height}, i64 %depth, i64 1,",
            f"    ptr %weights, i64 {tile.columns}, i64 %channels, ptr %u{height}, ptr %v_weights,",
            f"    ptr %addend{height}, ptr %state{height}, ptr %rates{height}, ptr %out{height},",
            "    i64 %columns, float %leak)",
        ]

    return "\n".join(
        [
            f"define void @{name}(i64 %rows, i64 %columns, i64 %depth, ptr %x, ptr %panels, i64 %channels, ptr %u,",
            "    ptr %v, ptr %addend, ptr %state, ptr %rates, ptr %out, float %leak) #0 {",
            "entry:",
            f"  %panel_size = mul i64 %depth, {tile.columns}",
            f"  %v_panel_size = mul i64 %channels, {tile.columns}",
            *tile_by_tile(tile, "%rows", begin, block),
            "}",
        ]
    )


def _accumulate_few(tile: Tile) -> str:
    """Return out[c, :] += sum_k u[k, c] right[k, :] for any number of channels c, none included."""

    def block(height: int) -> list[str]:
        return [
            f"  %a{height} = getelementptr float, ptr %u, i64 %row{height}",
            f"  %c_row{height} = mul i64 %row{height}, %columns",
            f"  %c_offset{height} = add i64 %c_row{height}, %column",
            f"  %c{height} = getelementptr float, ptr %out, i64 %c_offset{height}",
            f"  call void @accumulate_tile{height}(i64 %depth, ptr %a{height}, i64 1, i64 %channels, ptr %b,",
            f"    i64 %columns, i64 0, ptr %b, ptr %b, ptr %c{height}, ptr %c{height}, ptr %c{height}, ptr %c{height},",
            "    i64 %columns, float 0.0)",
        ]

    return "\n".join(
        [
            "define internal void @accumulate_few(i64 %depth, i64 %channels, i64 %columns, ptr %u, ptr %right,",
            "    ptr %out) #0 {",
            "entry:",
            *tile_by_tile(tile, "%channels", ["  %b = getelementptr float, ptr %right, i64 %column"], block),
            "}",
        ]
    )


def _accumulate(tile: Tile) -> str:
    """Return the walk over the output of `accumulate`, once for every few rows of the inputs.

    While these are in the cache, the few channels beside each are multiplied with it as well.
    """
    return f"""
define void @accumulate(i64 %depth, i64 %rows, i64 %columns, ptr %left, ptr %right, ptr %out,
    i64 %channels_left, ptr %beside_left, ptr %out_left, i64 %channels_right, ptr %beside_right, ptr %out_right) #0 {{
entry:
  br label %slice
slice:
  %k = phi i64 [0, %entry], [%k_end, %slice_done]
  %remaining = sub i64 %depth, %k
  %short = icmp ult i64 %remaining, {DEPTH_AT_ONCE}
  %deep = select i1 %short, i64 %remaining, i64 {DEPTH_AT_ONCE}
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
    i64 0, ptr %a, ptr %b, ptr %c, ptr %c, ptr %c, ptr %c, i64 %columns, float 0.0)
  %next_row = add i64 %row, {tile.rows}
  %rows_done = icmp uge i64 %next_row, %rows
  br i1 %rows_done, label %panel_done, label %block
panel_done:
  %next_column = add i64 %column, {tile.columns}
  %columns_done = icmp uge i64 %next_column, %columns
  br i1 %columns_done, label %slice_done, label %panel
slice_done:
  %beside_left_offset = mul i64 %k, %channels_left
  %beside_left_k = getelementptr float, ptr %beside_left, i64 %beside_left_offset
  call void @accumulate_few(i64 %deep, i64 %channels_left, i64 %rows, ptr %beside_left_k, ptr %left_k, ptr %out_left)
  %beside_right_offset = mul i64 %k, %channels_right
  %beside_right_k = getelementptr float, ptr %beside_right, i64 %beside_right_offset
  call void @accumulate_few(i64 %deep, i64 %channels_right, i64 %columns, ptr %beside_right_k, ptr %right_k,
    ptr %out_right)
  %k_end = add i64 %k, %deep
  %done = icmp uge i64 %k_end, %depth
  br i1 %done, label %exit, label %slice
exit:
  ret void
}}"""
