"""The time loop's matrix kernels in the language of LLVM, as text.

All are the textbook register-tiled product: a tile of the output, rows x (vectors x lanes), is held in vector
registers while the depth of the product is walked, so that each loaded number takes part in many
multiplications. A tile may begin with `leak * state` and end with a slope; that is how the leak of the units
and the adjoint of the nonlinearity come at no cost. Nothing is compiled here; `native.py` does that.
"""

from __future__ import annotations

from collections.abc import Callable
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
DEPTH_AT_ONCE = 48


def module(tile: Tile) -> str:
    """Return all kernels as LLVM assembly: "affine", "driven_at", "accumulate", "adjoint_" + each of `SLOPES`."""
    vector = f"<{tile.lanes} x float>"
    bits = 32 * tile.lanes
    walked = ["affine", "driven", *(f"adjoint_{slope}" for slope in SLOPES)]
    return "\n".join(
        [
            *(_tile(kernel, tile, rows) for kernel in walked for rows in tile.heights),
            *(_walk(kernel, tile) for kernel in walked),
            *(_tile("accumulate", tile, rows) for rows in tile.heights),
            _accumulate_few(tile),
            _accumulate(tile),
            _driven_at(),
            *(_adjoint(slope) for slope in SLOPES),
            f"declare {vector} @llvm.fma.v{tile.lanes}f32({vector}, {vector}, {vector})",
            # Without these LLVM may cut 512-bit vectors in two on processors that it believes to prefer that.
            f'attributes #0 = {{ nounwind "prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}" }}',
        ]
    )


def _tile(kernel: str, tile: Tile, rows: int) -> str:
    """Return one tile of the output as a function.

    With p = sum_k a[row, k] b[k, column] and, over the few channels, d = sum_c u[row, c] v[c, column],

        accumulate    out = addend + p
        affine        out = addend + leak * state + p
        driven        out = leak * state + d + p
        adjoint       out = slope * (d + p) + leak * state, the slope computed from the rates

    a[row, k] is at a + row * a_row + k * a_step, b[k, :] at b + k * b_step, u[row, c] at u + row * channels + c,
    v[c, :] at v + c * tile width; addend, state, rates and out share the row stride c_row. All strides are in floats.
    """
    V, lanes = f"<{tile.lanes} x float>", tile.lanes
    cells = [(row, v) for row in range(rows) for v in range(tile.vectors)]
    splat = f"shufflevector {V} %{{0}}, {V} poison, <{lanes} x i32> zeroinitializer"
    fma = f"call {V} @llvm.fma.v{lanes}f32"
    adjoint = kernel.startswith("adjoint_")
    code = [
        f"define internal void @{kernel}_tile{rows}(i64 %depth, ptr %a, i64 %a_row, i64 %a_step, ptr %b, i64 %b_step,",
        "    i64 %channels, ptr %u, ptr %v, ptr %addend, ptr %state, ptr %rates, ptr %out, i64 %c_row, float %leak)",
        "    alwaysinline #0 {",
        "entry:",
        f"  %leak0 = insertelement {V} poison, float %leak, i32 0",
        f"  %leaks = {splat.format('leak0')}",
    ]
    for row in range(rows):
        code += [
            f"  %a_offset{row} = mul i64 %a_row, {row}",
            f"  %a{row} = getelementptr float, ptr %a, i64 %a_offset{row}",
            f"  %u_offset{row} = mul i64 %channels, {row}",
            f"  %u{row} = getelementptr float, ptr %u, i64 %u_offset{row}",
            f"  %c_offset{row} = mul i64 %c_row, {row}",
        ]
    for row, v in cells:
        code += [f"  %at{row}_{v} = add i64 %c_offset{row}, {v * lanes}"]
        if kernel in ("affine", "accumulate"):
            code += _load("addend", row, v, V)
        if kernel in ("affine", "driven"):
            code += _load("state", row, v, V)
        if kernel == "affine":
            code += [_leak("first", "addend", row, v, V, fma)]
        if kernel == "driven":
            code += [f"  %first{row}_{v} = fmul {V} %leaks, %state{row}_{v}"]
    before, start = "entry", "%addend" if kernel == "accumulate" else "%first"
    if adjoint or kernel == "driven":
        # All starts are alike in an adjoint: zero, whatever the cell.
        drive = _Product("drive", "%channels", "u", "1", "v", str(tile.columns))
        code += [*_multiply(drive, tile, rows, before, None if adjoint else start, "heard"), "heard:"]
        before, start = "heard", "%drive_sum"
    code += _multiply(
        _Product("multiply", "%depth", "a", "%a_step", "b", "%b_step"), tile, rows, before, start, "store"
    )
    code += ["store:"]
    for row, v in cells:
        result = "multiply_sum"
        if adjoint:
            result = "result"
            code += _sloped(kernel.removeprefix("adjoint_"), row, v, V)
            code += [*_load("state", row, v, V), _leak(result, "sloped", row, v, V, fma)]
        code += [
            f"  %out_at{row}_{v} = getelementptr float, ptr %out, i64 %at{row}_{v}",
            f"  store {V} %{result}{row}_{v}, ptr %out_at{row}_{v}, align 4",
        ]
    return "\n".join([*code, "  ret void", "}"])


@dataclass(frozen=True)
class _Product:
    """A sum over k of left[row, k] right[k, column]: its label, how far k goes, and where its factors are."""

    label: str
    depth: str
    left: str
    left_step: str
    right: str
    right_step: str


def _multiply(product: _Product, tile: Tile, rows: int, before: str, start: str | None, after: str) -> list[str]:
    """Jump from block `before` into the loop of a product, which begins with `start` (or zero), and on to `after`.

    The results are %{label}_sum{row}_{v}.
    """
    V, lanes, p = f"<{tile.lanes} x float>", tile.lanes, product.label
    cells = [(row, v) for row in range(rows) for v in range(tile.vectors)]
    code = [f"  br label %{p}", f"{p}:", f"  %{p}_k = phi i64 [0, %{before}], [%{p}_next, %{p}]"]
    for row, v in cells:
        first = "zeroinitializer" if start is None else f"{start}{row}_{v}"
        code += [f"  %{p}_so_far{row}_{v} = phi {V} [{first}, %{before}], [%{p}_sum{row}_{v}, %{p}]"]
    code += [
        f"  %{p}_right_offset = mul i64 %{p}_k, {product.right_step}",
        f"  %{p}_right_k = getelementptr float, ptr %{product.right}, i64 %{p}_right_offset",
        f"  %{p}_left_k = mul i64 %{p}_k, {product.left_step}",
    ]
    for v in range(tile.vectors):
        code += [
            f"  %{p}_right_at{v} = getelementptr float, ptr %{p}_right_k, i64 {v * lanes}",
            f"  %{p}_right{v} = load {V}, ptr %{p}_right_at{v}, align 4",
        ]
    for row in range(rows):
        code += [
            f"  %{p}_left_at{row} = getelementptr float, ptr %{product.left}{row}, i64 %{p}_left_k",
            f"  %{p}_scalar{row} = load float, ptr %{p}_left_at{row}, align 4",
            f"  %{p}_single{row} = insertelement {V} poison, float %{p}_scalar{row}, i32 0",
            f"  %{p}_spread{row} = shufflevector {V} %{p}_single{row}, {V} poison, <{lanes} x i32> zeroinitializer",
        ]
        code += [
            f"  %{p}_sum{row}_{v} = call {V} @llvm.fma.v{lanes}f32"
            f"({V} %{p}_spread{row}, {V} %{p}_right{v}, {V} %{p}_so_far{row}_{v})"
            for v in range(tile.vectors)
        ]
    return [
        *code,
        f"  %{p}_next = add i64 %{p}_k, 1",
        f"  %{p}_done = icmp eq i64 %{p}_next, {product.depth}",
        f"  br i1 %{p}_done, label %{after}, label %{p}",
    ]


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
        return [f"  %sloped{at} = fadd {V} %multiply_sum{at}, zeroinitializer"]
    if slope == "relu":
        return [
            *_load("rates", row, v, V),
            f"  %active{at} = fcmp ogt {V} %rates{at}, zeroinitializer",
            f"  %sloped{at} = select {_booleans(V)} %active{at}, {V} %multiply_sum{at}, {V} zeroinitializer",
        ]
    return [  # tanh: (1 - r^2) p
        *_load("rates", row, v, V),
        f"  %square{at} = fmul {V} %rates{at}, %rates{at}",
        f"  %bent{at} = fmul {V} %square{at}, %multiply_sum{at}",
        f"  %sloped{at} = fsub {V} %multiply_sum{at}, %bent{at}",
    ]


def _booleans(V: str) -> str:
    return V.replace("float", "i1")


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
            f"  %x_offset{height} = mul i64 %row{height}, %depth",
            f"  %x{height} = getelementptr float, ptr %x, i64 %x_offset{height}",
            f"  %u_offset{height} = mul i64 %row{height}, %channels",
            f"  %u{height} = getelementptr float, ptr %u, i64 %u_offset{height}",
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
            *_tile_by_tile(tile, "%rows", begin, block),
            "}",
        ]
    )


def _tile_by_tile(tile: Tile, rows: str, begin: list[str], block: Callable[[int], list[str]]) -> list[str]:
    """Return the walk over an output of so many `rows` and %columns, down one panel after the other.

    Parameters
    ----------
    begin
        What is computed for a panel, which begins at %column.
    block
        height -> what is done with a tile of that height, which begins at %row{height}.
    """
    heights = tile.heights
    code = [
        "  br label %panel",
        "panel:",
        "  %column = phi i64 [0, %entry], [%next_column, %panel_done]",
        *begin,
        f"  br label %test{heights[0]}",
    ]
    previous, row_before = "panel", "0"
    for index, height in enumerate(heights):
        after = f"test{heights[index + 1]}" if index + 1 < len(heights) else "panel_done"
        code += [
            f"test{height}:",
            f"  %row{height} = phi i64 [{row_before}, %{previous}], [%end{height}, %block{height}]",
            f"  %end{height} = add i64 %row{height}, {height}",
            f"  %fits{height} = icmp ule i64 %end{height}, {rows}",
            f"  br i1 %fits{height}, label %block{height}, label %{after}",
            f"block{height}:",
            *block(height),
            f"  br label %test{height}",
        ]
        previous, row_before = f"test{height}", f"%row{height}"
    return [
        *code,
        "panel_done:",
        f"  %next_column = add i64 %column, {tile.columns}",
        "  %all = icmp uge i64 %next_column, %columns",
        "  br i1 %all, label %exit, label %panel",
        "exit:",
        "  ret void",
    ]


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
            *_tile_by_tile(tile, "%channels", ["  %b = getelementptr float, ptr %right, i64 %column"], block),
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


WALK = ("rows", "columns", "x", "panels", "channels", "u", "v", "states", "before", "leak")
"""What "driven_at" is told once for all steps: eight bytes each."""


def _driven_at() -> str:
    """Return step t of the walk forward in time, which finds its arguments in a table: states[t] from states[t-1].

    A call from Python costs a tenth of a microsecond for every argument, and there is a call for every step.
    """
    code = ["define void @driven_at(ptr %table, i64 %t) #0 {", "entry:"]
    kinds = {"rows": "i64", "columns": "i64", "channels": "i64", "leak": "float"}
    for place, name in enumerate(WALK):
        code += [
            f"  %{name}_at = getelementptr i64, ptr %table, i64 {place}",
            f"  %{name} = load {kinds.get(name, 'ptr')}, ptr %{name}_at, align 8",
        ]
    return "\n".join(
        [
            *code,
            "  %size = mul i64 %rows, %columns",
            "  %offset = mul i64 %t, %size",
            "  %x_t = getelementptr float, ptr %x, i64 %offset",
            "  %now = getelementptr float, ptr %states, i64 %offset",
            "  %u_size = mul i64 %rows, %channels",
            "  %u_offset = mul i64 %t, %u_size",
            "  %u_t = getelementptr float, ptr %u, i64 %u_offset",
            "  %first = icmp eq i64 %t, 0",
            "  %back = sub i64 0, %size",
            "  %earlier = getelementptr float, ptr %now, i64 %back",
            "  %state = select i1 %first, ptr %before, ptr %earlier",
            "  call void @driven(i64 %rows, i64 %columns, i64 %columns, ptr %x_t, ptr %panels, i64 %channels,",
            "    ptr %u_t, ptr %v, ptr %state, ptr %state, ptr %state, ptr %now, float %leak)",
            "  ret void",
            "}",
        ]
    )


def _adjoint(slope: str) -> str:
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
