"""The time loop's matrix kernels in the language of LLVM, as text.

All are the textbook register-tiled product: a tile of the output, rows x (vectors x lanes), is held in vector
registers while the depth of the product is walked, so that each loaded number takes part in many
multiplications. A tile may begin with `leak * state` and end with a slope; that is how the leak of the units
and the adjoint of the nonlinearity come at no cost. Nothing is compiled here; `native.py` does that.
"""

from __future__ import annotations

from dataclasses import dataclass


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

    @property
    def heights(self) -> list[int]:
        """Rows of the tile and of those that do what is left over: half as many, and half of that, down to one."""
        return [self.rows >> halvings for halvings in range(self.rows.bit_length())]


SLOPES = ("tanh", "relu", "identity")
"""Nonlinearities whose slope is plain arithmetic on their output, so that the adjoint loop can have it built in."""

# So many rows of `left` and `right` at a time: what a tile reads of them then stays in the first cache.
DEPTH_AT_ONCE = 32


def module(tile: Tile) -> str:
    """Return all kernels as LLVM assembly: "affine", "accumulate", and "adjoint_" + each of `SLOPES`."""
    vector = f"<{tile.lanes} x float>"
    bits = 32 * tile.lanes
    return "\n".join(
        [
            *(_tile("affine", tile, rows) for rows in tile.heights),
            _walk("affine", tile),
            _tile("accumulate", tile, tile.rows),
            _accumulate(tile),
            *(_tile(f"adjoint_{slope}", tile, rows) for slope in SLOPES for rows in tile.heights),
            *(_walk(f"adjoint_{slope}", tile) for slope in SLOPES),
            *(_adjoint(slope) for slope in SLOPES),
            f"declare {vector} @llvm.fma.v{tile.lanes}f32({vector}, {vector}, {vector})",
            # Without these LLVM may cut 512-bit vectors in two on processors that it believes to prefer that.
            f'attributes #0 = {{ nounwind "prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}" }}',
        ]
    )


def _tile(kernel: str, tile: Tile, rows: int) -> str:
    """Return one tile of the output as a function. With p = addend + sum_k a[row, k] b[k, column],

        accumulate    out = p
        affine        out = p + leak * state
        adjoint       out = slope * p + leak * state, the slope computed from the rates

    a[row, k] is at a + row * a_row + k * a_step, b[k, :] at b + k * b_step; addend, state, rates and out share the row
    stride c_row. All strides are in floats.
    """
    V, lanes = f"<{tile.lanes} x float>", tile.lanes
    cells = [(row, v) for row in range(rows) for v in range(tile.vectors)]
    splat = f"shufflevector {V} %{{0}}, {V} poison, <{lanes} x i32> zeroinitializer"
    fma = f"call {V} @llvm.fma.v{lanes}f32"
    code = [
        f"define internal void @{kernel}_tile{rows}(i64 %depth, ptr %a, i64 %a_row, i64 %a_step, ptr %b, i64 %b_step,",
        "    ptr %addend, ptr %state, ptr %rates, ptr %out, i64 %c_row, float %leak) alwaysinline #0 {",
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
        code += [f"  %at{row}_{v} = add i64 %c_offset{row}, {v * lanes}", *_load("addend", row, v, V)]
        if kernel == "affine":
            code += [*_load("state", row, v, V), _leak("first", "addend", row, v, V, fma)]
    first = "first" if kernel == "affine" else "addend"
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
        result = "more"
        if kernel.startswith("adjoint_"):
            result = "result"
            code += _sloped(kernel.removeprefix("adjoint_"), row, v, V)
            code += [*_load("state", row, v, V), _leak(result, "sloped", row, v, V, fma)]
        code += [
            f"  %out_at{row}_{v} = getelementptr float, ptr %out, i64 %at{row}_{v}",
            f"  store {V} %{result}{row}_{v}, ptr %out_at{row}_{v}, align 4",
        ]
    return "\n".join([*code, "  ret void", "}"])


def _load(name: str, row: int, v: int, V: str) -> list[str]:
    """Load a vector of the argument `name` into %name{row}_{v}."""
    return [
        f"  %{name}_at{row}_{v} = getelementptr float, ptr %{name}, i64 %at{row}_{v}",
        f"  %{name}{row}_{v} = load {V}, ptr %{name}_at{row}_{v}, align 4",
    ]


def _leak(result: str, start: str, row: int, v: int, V: str, fma: str) -> str:
    """Compute %result = %start + leak * %state."""
    return f"  %{result}{row}_{v} = {fma}({V} %leaks, {V} %state{row}_{v}, {V} %{start}{row}_{v})"


def _sloped(slope: str, row: int, v: int, V: str) -> list[str]:
    """Compute %sloped = phi'(x) * %more from the rate phi(x)."""
    at = f"{row}_{v}"
    if slope == "identity":
        return [f"  %sloped{at} = fadd {V} %more{at}, zeroinitializer"]
    if slope == "relu":
        return [
            *_load("rates", row, v, V),
            f"  %active{at} = fcmp ogt {V} %rates{at}, zeroinitializer",
            f"  %sloped{at} = select {_booleans(V)} %active{at}, {V} %more{at}, {V} zeroinitializer",
        ]
    return [  # tanh: (1 - r^2) p
        *_load("rates", row, v, V),
        f"  %square{at} = fmul {V} %rates{at}, %rates{at}",
        f"  %bent{at} = fmul {V} %square{at}, %more{at}",
        f"  %sloped{at} = fsub {V} %more{at}, %bent{at}",
    ]


def _booleans(V: str) -> str:
    return V.replace("float", "i1")


def _walk(kernel: str, tile: Tile) -> str:
    """Return the walk over the output of a kernel, panel by panel: one of weights stays in the first cache."""
    heights = tile.heights
    name = "affine" if kernel == "affine" else f"{kernel}_step"
    code = [
        f"define void @{name}(i64 %rows, i64 %columns, i64 %depth, ptr %x, ptr %panels, ptr %addend, ptr %state,",
        "    ptr %rates, ptr %out, float %leak) #0 {",
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
            f"  %rates{height} = getelementptr float, ptr %rates, i64 %c_offset{height}",
            f"  %out{height} = getelementptr float, ptr %out, i64 %c_offset{height}",
            f"  call void @{kernel}_tile{height}(i64 %depth, ptr %x{height}, i64 %depth, i64 1,",
            f"    ptr %weights, i64 {tile.columns}, ptr %addend{height}, ptr %state{height}, ptr %rates{height},",
            f"    ptr %out{height}, i64 %columns, float %leak)",
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


def _accumulate(tile: Tile) -> str:
    """Return the walk over the output of `accumulate`, once for every few rows of the inputs."""
    return f"""
define void @accumulate(i64 %depth, i64 %rows, i64 %columns, ptr %left, ptr %right, ptr %out) #0 {{
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
    ptr %c, ptr %c, ptr %c, ptr %c, i64 %columns, float 0.0)
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


def _adjoint(slope: str) -> str:
    """Return the walk backwards in time: delta[t] = slope(rates[t]) * (delta[t] + delta[t+1] W) + leak * delta[t+1]."""
    return f"""
define void @adjoint_{slope}(i64 %steps, i64 %rows, i64 %columns, ptr %panels, ptr %rates, ptr %delta,
    float %leak) #0 {{
entry:
  %size = mul i64 %rows, %columns
  %last = sub i64 %steps, 1
  %any = icmp sgt i64 %last, 0
  br i1 %any, label %step, label %exit
step:
  %t = phi i64 [%last, %entry], [%now_t, %step]
  %now_t = sub i64 %t, 1
  %later_offset = mul i64 %t, %size
  %now_offset = mul i64 %now_t, %size
  %later = getelementptr float, ptr %delta, i64 %later_offset
  %now = getelementptr float, ptr %delta, i64 %now_offset
  %rates_now = getelementptr float, ptr %rates, i64 %now_offset
  call void @adjoint_{slope}_step(i64 %rows, i64 %columns, i64 %columns, ptr %later, ptr %panels, ptr %now,
    ptr %later, ptr %rates_now, ptr %now, float %leak)
  %more = icmp sgt i64 %now_t, 0
  br i1 %more, label %step, label %exit
exit:
  ret void
}}"""
