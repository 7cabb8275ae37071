"""Matrix products over whole matrices as LLVM assembly (text), and the module of all kernels.

    affine        out = addend + leak * state + x W^T, with W^T packed into panels as wide as a tile
    accumulate    out = out + left^T right, and the same for the few channels beside left and right

The loops over panels and tiles are here, the micro-kernels in `tile.py`, the time loops in `time_loop.py`; `build.py`
compiles the text.
"""

from __future__ import annotations

from rankscope.networks.cells import CELLS
from rankscope.networks.kernels.cells import cells
from rankscope.networks.kernels.gated_loop import gated_loop
from rankscope.networks.kernels.tile import COMPILED, Tile, at_row, tile_by_tile, tile_function
from rankscope.networks.kernels.time_loop import adjoint, forward, read_out, read_out_tile

# Rows of `left` and `right` in one slice, so that the operands of a tile stay in the first-level cache.
SLICE = 48


def module(tile: Tile) -> str:
    """Return all kernels as LLVM assembly: "affine", "pack", "accumulate", the time loops of `COMPILED`, the cells."""
    vector = f"<{tile.lanes} x float>"
    bits = 32 * tile.lanes
    by_panel = ["affine", *(f"{loop}_{phi}" for loop in ("forward", "adjoint") for phi in COMPILED)]
    return "\n".join(
        [
            *(tile_function(kernel, tile, rows) for kernel in (*by_panel, "accumulate") for rows in tile.heights),
            *(_over_panels(kernel, tile) for kernel in by_panel),
            _pack(tile),
            _accumulate_channels(tile),
            _accumulate(tile),
            *(read_out_tile(tile, rows) for rows in tile.heights),
            read_out(tile),
            *(forward(phi) for phi in COMPILED),
            *(adjoint(phi) for phi in COMPILED),
            *cells(tile),
            *(gated_loop(cell) for cell in CELLS),
            f"declare {vector} @llvm.fma.v{tile.lanes}f32({vector}, {vector}, {vector})",
            f"declare float @llvm.vector.reduce.fadd.v{tile.lanes}f32(float, {vector})",
            # Without these LLVM may split 512-bit vectors on processors for which it prefers narrower ones.
            f'attributes #0 = {{ nounwind "prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}" }}',
        ]
    )


def _over_panels(kernel: str, tile: Tile) -> str:
    """Return the loop over the output of a kernel, panel by panel, as a panel of weights fits the first-level cache."""
    name = kernel if kernel == "affine" else f"{kernel}_step"
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


def _pack(tile: Tile) -> str:
    """Return the loop that packs scale * w, w[column, k] at w + column * down + k * along, into panels."""
    return f"""
define void @pack(i64 %columns, i64 %depth, ptr %w, i64 %down, i64 %along, float %scale, ptr %panels) #0 {{
entry:
  br label %panel
panel:
  %column = phi i64 [0, %entry], [%next_column, %panel_done]
  %to_panel = phi ptr [%panels, %entry], [%to_next_panel, %panel_done]
  %panel_offset = mul i64 %column, %down
  %from_panel = getelementptr float, ptr %w, i64 %panel_offset
  br label %row
row:
  %k = phi i64 [0, %panel], [%next_k, %row_done]
  %to_row = phi ptr [%to_panel, %panel], [%to_next_row, %row_done]
  %row_offset = mul i64 %k, %along
  %from_row = getelementptr float, ptr %from_panel, i64 %row_offset
  br label %entries
entries:
  %j = phi i64 [0, %row], [%next_j, %entries]
  %offset = mul i64 %j, %down
  %from = getelementptr float, ptr %from_row, i64 %offset
  %entry_of_w = load float, ptr %from, align 4
  %scaled = fmul float %entry_of_w, %scale
  %to = getelementptr float, ptr %to_row, i64 %j
  store float %scaled, ptr %to, align 4
  %next_j = add i64 %j, 1
  %row_full = icmp eq i64 %next_j, {tile.columns}
  br i1 %row_full, label %row_done, label %entries
row_done:
  %next_k = add i64 %k, 1
  %to_next_row = getelementptr float, ptr %to_row, i64 {tile.columns}
  %panel_full = icmp eq i64 %next_k, %depth
  br i1 %panel_full, label %panel_done, label %row
panel_done:
  %to_next_panel = getelementptr float, ptr %to_row, i64 {tile.columns}
  %next_column = add i64 %column, {tile.columns}
  %all = icmp uge i64 %next_column, %columns
  br i1 %all, label %exit, label %panel
exit:
  ret void
}}"""


def _accumulate_channels(tile: Tile) -> str:
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
            "define internal void @accumulate_channels(i64 %depth, i64 %channels, i64 %columns, ptr %u, ptr %right,",
            "    ptr %out) #0 {",
            "entry:",
            *tile_by_tile(tile, "%channels", ["  %b = getelementptr float, ptr %right, i64 %column"], block),
            "}",
        ]
    )


def _accumulate(tile: Tile) -> str:
    """Return the loop over the output of `accumulate`, slice by slice of the rows of left and right.

    While a slice is in the cache, the channels beside left and right are multiplied with it as well.
    """
    return f"""
define void @accumulate(i64 %depth, i64 %rows, i64 %columns, ptr %left, ptr %right, ptr %out,
    i64 %channels_left, ptr %extra_left, ptr %out_left, i64 %channels_right, ptr %extra_right, ptr %out_right) #0 {{
entry:
  br label %slice
slice:
  %k = phi i64 [0, %entry], [%k_end, %slice_done]
  %remaining = sub i64 %depth, %k
  %short = icmp ult i64 %remaining, {SLICE}
  %deep = select i1 %short, i64 %remaining, i64 {SLICE}
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
  %extra_left_offset = mul i64 %k, %channels_left
  %extra_left_k = getelementptr float, ptr %extra_left, i64 %extra_left_offset
  call void @accumulate_channels(i64 %deep, i64 %channels_left, i64 %rows, ptr %extra_left_k, ptr %left_k,
    ptr %out_left)
  %extra_right_offset = mul i64 %k, %channels_right
  %extra_right_k = getelementptr float, ptr %extra_right, i64 %extra_right_offset
  call void @accumulate_channels(i64 %deep, i64 %channels_right, i64 %columns, ptr %extra_right_k, ptr %right_k,
    ptr %out_right)
  %k_end = add i64 %k, %deep
  %done = icmp uge i64 %k_end, %depth
  br i1 %done, label %exit, label %slice
exit:
  ret void
}}"""
