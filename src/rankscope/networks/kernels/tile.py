"""Tiles of a matrix product in the language of LLVM, as text, and the walks over a matrix, tile by tile.

This is the textbook register-tiled product: a tile of the output, rows x (vectors x lanes), is held in vector
registers while the depth of the product is walked, so that each loaded number takes part in many
multiplications. A tile may begin with `leak * state` and end with a slope; that is how the leak of the units
and the adjoint of the nonlinearity come at no cost.
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


def tile_of_output(kernel: str, tile: Tile, rows: int) -> str:
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
            *at_row(row, "a", "%a", "%a_row", str(row)),
            *at_row(row, "u", "%u", "%channels", str(row)),
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


def at_row(label: int, name: str, base: str, stride: str, row: str) -> list[str]:
    """Compute the address %{name}{label} = base + stride * row, in floats."""
    return [
        f"  %{name}_offset{label} = mul i64 {stride}, {row}",
        f"  %{name}{label} = getelementptr float, ptr {base}, i64 %{name}_offset{label}",
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


def tile_by_tile(tile: Tile, rows: str, begin: list[str], block: Callable[[int], list[str]]) -> list[str]:
    """Return the walk over an output of so many `rows` and %columns, down one panel after the other.

    Parameters
    ----------
    begin
        What is computed for a panel, which begins at %column.
    block
        height -> what is done with a tile of that height, which begins at %row{height}.
    """
    return [
        "  br label %panel",
        "panel:",
        "  %column = phi i64 [0, %entry], [%next_column, %panel_done]",
        *begin,
        *down(tile, rows, "panel", block, "panel_done"),
        "panel_done:",
        f"  %next_column = add i64 %column, {tile.columns}",
        "  %all = icmp uge i64 %next_column, %columns",
        "  br i1 %all, label %exit, label %panel",
        "exit:",
        "  ret void",
    ]


def down(tile: Tile, rows: str, before: str, block: Callable[[int], list[str]], after_all: str) -> list[str]:
    """Return the walk from block `before` down so many rows, by full tiles and then by lower ones, to `after_all`."""
    heights = tile.heights
    code = [f"  br label %test{heights[0]}"]
    previous, row_before = before, "0"
    for index, height in enumerate(heights):
        after = f"test{heights[index + 1]}" if index + 1 < len(heights) else after_all
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
    return code
