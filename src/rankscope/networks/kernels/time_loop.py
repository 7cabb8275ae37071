"""The walks through time of a network, forward and back, in the language of LLVM, as text.

Forward, a step is one call, because what follows it, the nonlinearity, is not written here; it reads out of the step
before on its way. The whole way back is one call.
"""

from __future__ import annotations

from rankscope.networks.kernels.tile import Tile, at_row, down

WALK = {
    **dict.fromkeys(("rows", "columns"), "i64"),
    **dict.fromkeys(("x", "panels"), "ptr"),
    "channels": "i64",
    **dict.fromkeys(("u", "v", "states", "before"), "ptr"),
    "leak": "float",
    "out_channels": "i64",
    **dict.fromkeys(("w", "out"), "ptr"),
    **dict.fromkeys(("out_row", "out_step"), "i64"),
}
"""What the walk forward in time is told once for all steps, eight bytes each, and what these are.

A call from Python costs a tenth of a microsecond for every argument, and there is a call for every step.
"""


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
        code += [
            *at_row(row, "x", "%x", "%depth", str(row)),
            *at_row(row, "out", "%out", "%out_row", str(row)),
        ]
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


def _told(*names: str) -> list[str]:
    """Load some of `WALK` from the table."""
    code = []
    for place, (name, kind) in enumerate(WALK.items()):
        if name in names:
            code += [
                f"  %{name}_at = getelementptr i64, ptr %table, i64 {place}",
                f"  %{name} = load {kind}, ptr %{name}_at, align 8",
            ]
    return code


def read_out_at(tile: Tile) -> str:
    """Return the readout before step t: out[t-1] from x[t]."""

    def block(height: int) -> list[str]:
        return [
            *at_row(height, "x", "%x_t", f"%row{height}", "%columns"),
            *at_row(height, "out", "%out_t", f"%row{height}", "%out_row"),
            f"  call void @read_out_tile{height}(i64 %columns, i64 %out_channels, ptr %x{height}, ptr %w,",
            f"    ptr %out{height}, i64 %out_row)",
        ]

    return "\n".join(
        [
            "define void @read_out_at(ptr %table, i64 %t) #0 {",
            "entry:",
            *_told("rows", "columns", "x", "out_channels", "w", "out", "out_row", "out_step"),
            "  %size = mul i64 %rows, %columns",
            "  %offset = mul i64 %t, %size",
            "  %x_t = getelementptr float, ptr %x, i64 %offset",
            "  %before = sub i64 %t, 1",
            "  %out_offset = mul i64 %before, %out_step",
            "  %out_t = getelementptr float, ptr %out, i64 %out_offset",
            *down(tile, "%rows", "entry", block, "exit"),
            "exit:",
            "  ret void",
            "}",
        ]
    )


def driven_at() -> str:
    """Return step t of the walk forward in time: states[t] from states[t-1].

    As it reads x[t], which is in the cache then, it reads out[t-1] out of it first.
    """
    return "\n".join(
        [
            "define void @driven_at(ptr %table, i64 %t) #0 {",
            "entry:",
            "  %first = icmp eq i64 %t, 0",
            "  br i1 %first, label %step, label %said",
            "said:",
            "  call void @read_out_at(ptr %table, i64 %t)",
            "  br label %step",
            "step:",
            *_told("rows", "columns", "x", "panels", "channels", "u", "v", "states", "before", "leak"),
            "  %size = mul i64 %rows, %columns",
            "  %offset = mul i64 %t, %size",
            "  %x_t = getelementptr float, ptr %x, i64 %offset",
            "  %now = getelementptr float, ptr %states, i64 %offset",
            "  %u_size = mul i64 %rows, %channels",
            "  %u_offset = mul i64 %t, %u_size",
            "  %u_t = getelementptr float, ptr %u, i64 %u_offset",
            "  %back = sub i64 0, %size",
            "  %earlier = getelementptr float, ptr %now, i64 %back",
            "  %state = select i1 %first, ptr %before, ptr %earlier",
            "  call void @driven(i64 %rows, i64 %columns, i64 %columns, ptr %x_t, ptr %panels, i64 %channels,",
            "    ptr %u_t, ptr %v, ptr %state, ptr %state, ptr %state, ptr %now, float %leak)",
            "  ret void",
            "}",
        ]
    )


def adjoint(slope: str) -> str:
    """Return the walk backwards in time, for t = T-2, ..., 0:

    delta[t] = slope(rates[t]) * (u[t] V + delta[t+1] W) + leak * delta[t+1].
    """
    return f"""
define void @adjoint_{slope}(i64 %steps, i64 %rows, i64 %columns, ptr %panels, i64 %channels, ptr %u, ptr %v,
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
  call void @adjoint_{slope}_step(i64 %rows, i64 %columns, i64 %columns, ptr %later, ptr %panels, i64 %channels,
    ptr %u_now, ptr %v, ptr %now, ptr %later, ptr %rates_now, ptr %now, float %leak)
  %more = icmp sgt i64 %now_t, 0
  br i1 %more, label %step, label %exit
exit:
  ret void
}}"""
