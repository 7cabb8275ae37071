"""The time loops of a rate network, forward and adjoint, as LLVM assembly (text): one call each for all steps.

    forward    h[t] = leak h[t-1] + u[t] V^T + x[t] W^T,   x[t+1] = phi(h[t]),   out[t] = x[t+1] R^T
    adjoint    delta[t] = phi'(x[t+1]) (u[t] V^T + delta[t+1] W^T) + leak delta[t+1]

u[t] are the few channels of the input (adjoint: of the readout's gradient). The readout of a step is computed while its
rates are still in the cache.
"""

from __future__ import annotations

from rankscope.networks.kernels.tile import Tile, at_row, down


def read_out_tile(tile: Tile, rows: int) -> str:
    """Return out[row, c] = sum_k x[row, k] w[c, k] for a few rows and any number of channels c.

    x and w have rows of `depth` floats, a multiple of the lanes; those of out are `out_row` floats apart.
    """
    V = f"<{tile.lanes} x float>"
    code = [
        f"define internal void @read_out_tile{rows}(i64 %depth, i64 %channels, ptr %x, ptr %w, ptr %out, i64 %out_row)",
        "    alwaysinline #0 {",
        "entry:",
    ]
    for row in range(rows):
        code += [*at_row(row, "x", "%x", "%depth", str(row)), *at_row(row, "out", "%out", "%out_row", str(row))]
    code += [
        "  br label %channel",
        "channel:",
        "  %c = phi i64 [0, %entry], [%next_c, %store]",
        "  %w_offset = mul i64 %c, %depth",
        "  %w_c = getelementptr float, ptr %w, i64 %w_offset",
        "  br label %along",
        "along:",
        "  %k = phi i64 [0, %channel], [%next_k, %along]",
        *(f"  %so_far{row} = phi {V} [zeroinitializer, %channel], [%sum{row}, %along]" for row in range(rows)),
        "  %w_at = getelementptr float, ptr %w_c, i64 %k",
        f"  %w_k = load {V}, ptr %w_at, align 4",
    ]
    for row in range(rows):
        code += [
            f"  %x_at{row} = getelementptr float, ptr %x{row}, i64 %k",
            f"  %x_k{row} = load {V}, ptr %x_at{row}, align 4",
            f"  %sum{row} = call {V} @llvm.fma.v{tile.lanes}f32({V} %x_k{row}, {V} %w_k, {V} %so_far{row})",
        ]
    code += [
        f"  %next_k = add i64 %k, {tile.lanes}",
        "  %whole = icmp uge i64 %next_k, %depth",
        "  br i1 %whole, label %store, label %along",
        "store:",
    ]
    for row in range(rows):
        code += [
            # Pairwise; strictly from left to right would take as many steps as there are lanes.
            f"  %total{row} = call reassoc float @llvm.vector.reduce.fadd.v{tile.lanes}f32(float 0.0, {V} %sum{row})",
            f"  %at{row} = getelementptr float, ptr %out{row}, i64 %c",
            f"  store float %total{row}, ptr %at{row}, align 4",
        ]
    return "\n".join(
        [
            *code,
            "  %next_c = add i64 %c, 1",
            "  %all = icmp uge i64 %next_c, %channels",
            "  br i1 %all, label %exit, label %channel",
            "exit:",
            "  ret void",
            "}",
        ]
    )


def read_out(tile: Tile) -> str:
    """Return out = x w^T for any number of rows, by the tiles above."""

    def block(height: int) -> list[str]:
        return [
            *at_row(height, "x", "%x", f"%row{height}", "%columns"),
            *at_row(height, "out", "%out", f"%row{height}", "%out_row"),
            f"  call void @read_out_tile{height}(i64 %columns, i64 %channels, ptr %x{height}, ptr %w,",
            f"    ptr %out{height}, i64 %out_row)",
        ]

    return "\n".join(
        [
            "define internal void @read_out(i64 %rows, i64 %columns, i64 %channels, ptr %x, ptr %w, ptr %out,",
            "    i64 %out_row) #0 {",
            "entry:",
            *down(tile, "%rows", "entry", block, "exit"),
            "exit:",
            "  ret void",
            "}",
        ]
    )


def forward(phi: str) -> str:
    """Return the forward loop for t = 0, ..., steps - 1.

    h[t] is stored at states + t * states_step (a step of 0 keeps the last one only), x[t] at rates + (t & kept) * the
    size of a step (`kept` is -1 to keep all, 1 to alternate between two buffers), out[t] at out + t * out_step.
    """
    return f"""
define void @forward_{phi}(i64 %steps, i64 %rows, i64 %columns, ptr %panels, i64 %channels, ptr %u, ptr %v,
    ptr %initial, ptr %states, i64 %states_step, ptr %rates, i64 %kept, float %leak, i64 %out_channels, ptr %w,
    ptr %out, i64 %out_row, i64 %out_step) #0 {{
entry:
  %size = mul i64 %rows, %columns
  %u_size = mul i64 %rows, %channels
  br label %step
step:
  %t = phi i64 [0, %entry], [%next_t, %step]
  %before = phi ptr [%initial, %entry], [%now, %step]
  %next_t = add i64 %t, 1
  %place = and i64 %t, %kept
  %offset = mul i64 %place, %size
  %x = getelementptr float, ptr %rates, i64 %offset
  %next_place = and i64 %next_t, %kept
  %next_offset = mul i64 %next_place, %size
  %next_x = getelementptr float, ptr %rates, i64 %next_offset
  %u_offset = mul i64 %t, %u_size
  %u_now = getelementptr float, ptr %u, i64 %u_offset
  %states_offset = mul i64 %t, %states_step
  %now = getelementptr float, ptr %states, i64 %states_offset
  call void @forward_{phi}_step(i64 %rows, i64 %columns, i64 %columns, ptr %x, ptr %panels, i64 %channels,
    ptr %u_now, ptr %v, ptr %before, ptr %before, ptr %next_x, ptr %now, float %leak)
  %out_offset = mul i64 %t, %out_step
  %out_now = getelementptr float, ptr %out, i64 %out_offset
  call void @read_out(i64 %rows, i64 %columns, i64 %out_channels, ptr %next_x, ptr %w, ptr %out_now, i64 %out_row)
  %more = icmp slt i64 %next_t, %steps
  br i1 %more, label %step, label %exit
exit:
  ret void
}}"""


def adjoint(phi: str) -> str:
    """Return the adjoint loop for t = steps - 2, ..., 0."""
    return f"""
define void @adjoint_{phi}(i64 %steps, i64 %rows, i64 %columns, ptr %panels, i64 %channels, ptr %u, ptr %v,
    ptr %rates, ptr %delta, float %leak) #0 {{
entry:
  %size = mul i64 %rows, %columns
  %u_size = mul i64 %rows, %channels
  %last = sub i64 %steps, 1
  %any = icmp sgt i64 %last, 0
  br i1 %any, label %step, label %exit
step:
  %t = phi i64 [%last, %entry], [%now_t, %step]
  %now_t = sub i64 %t, 1
  %later_offset = mul i64 %t, %size
  %now_offset = mul i64 %now_t, %size
  %u_offset = mul i64 %now_t, %u_size
  %u_now = getelementptr float, ptr %u, i64 %u_offset
  %later = getelementptr float, ptr %delta, i64 %later_offset
  %now = getelementptr float, ptr %delta, i64 %now_offset
  %rates_now = getelementptr float, ptr %rates, i64 %now_offset
  call void @adjoint_{phi}_step(i64 %rows, i64 %columns, i64 %columns, ptr %later, ptr %panels, i64 %channels,
    ptr %u_now, ptr %v, ptr %now, ptr %later, ptr %rates_now, ptr %now, float %leak)
  %more = icmp sgt i64 %now_t, 0
  br i1 %more, label %step, label %exit
exit:
  ret void
}}"""
