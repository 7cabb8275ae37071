"""Register-tiled matrix products as LLVM assembly (text): the micro-kernels, and loops over a matrix tile by tile.

With p = sum_k a[row, k] b[k, column] and, over the few channels, d = sum_c u[row, c] v[c, column], a tile computes

    accumulate    out = addend + p
    affine        out = addend + leak * state + p
    forward       out = leak * state + d + p,  rates = phi(out)
    adjoint       out = phi'(x) (d + p) + leak * state,  phi'(x) computed from the rates phi(x)

A tile of the output, rows x (vectors x lanes), stays in vector registers during the whole sum over k, so that each
loaded number takes part in many multiplications (Goto and van de Geijn 2008). The leak, the nonlinearity and its slope
are applied while the tile is still in registers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """Shape of the block of the output that stays in registers: `rows` x (`vectors` vectors of `lanes` floats)."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        """Width of the tile in floats."""
        return self.vectors * self.lanes

    @property
    def heights(self) -> list[int]:
        """Rows of the full tile and of the tiles for the remaining rows: half as many, a quarter, down to one."""
        return [self.rows >> halvings for halvings in range(self.rows.bit_length())]

    @property
    def entries(self) -> list[tuple[int, int]]:
        """Row and number of each vector of a full tile."""
        return [(row, v) for row in range(self.rows) for v in range(self.vectors)]


COMPILED = ("tanh", "relu", "identity")
"""Nonlinearities compiled into the kernels, with their slopes as functions of the rates."""

TANH_NUMERATOR = (1.394553628e-8, 2.102733560e-5, 3.520756727e-3, 1.340216100e-1, 1.0)
TANH_DENOMINATOR = (8.015776984e-7, 3.326951409e-4, 2.597254514e-2, 4.673548340e-1, 1.0)
"""tanh(x) = x P(x^2) / Q(x^2), a minimax approximation of relative error 1e-7 (Eigen's `ptanh_float`). As evaluated in
float32, it is within 6 units in the last place of the exact value."""
TANH_LARGEST = 8.9
"""Arguments beyond are clipped: tanh is 1 to rounding."""


def tile_function(kernel: str, tile: Tile, rows: int) -> str:
    """Return the micro-kernel of `rows` rows as an LLVM function.

    a[row, k] is at a + row * a_row + k * a_step, b[k, :] at b + k * b_step, u[row, c] at u + row * channels + c,
    v[c, :] at v + c * tile width; addend, state, rates and out share the row stride c_row. All strides are in floats.
    """
    V, lanes = f"<{tile.lanes} x float>", tile.lanes
    entries = [(row, v) for row, v in tile.entries if row < rows]
    name, _, phi = kernel.partition("_")
    code = [
        f"define internal void @{kernel}_tile{rows}(i64 %depth, ptr %a, i64 %a_row, i64 %a_step, ptr %b, i64 %b_step,",
        "    i64 %channels, ptr %u, ptr %v, ptr %addend, ptr %state, ptr %rates, ptr %out, i64 %c_row, float %leak)",
        "    alwaysinline #0 {",
        "entry:",
        f"  %leak0 = insertelement {V} poison, float %leak, i32 0",
        f"  %leaks = shufflevector {V} %leak0, {V} poison, <{lanes} x i32> zeroinitializer",
    ]
    for row in range(rows):
        code += [
            *at_row(row, "a", "%a", "%a_row", str(row)),
            *at_row(row, "u", "%u", "%channels", str(row)),
            f"  %c_offset{row} = mul i64 %c_row, {row}",
        ]
    for row, v in entries:
        code += [f"  %at{row}_{v} = add i64 %c_offset{row}, {v * lanes}"]
        if name in ("affine", "accumulate"):
            code += _load("addend", row, v, V)
        if name in ("affine", "forward"):
            code += _load("state", row, v, V)
        if name == "affine":
            code += [_add_leak("first", "addend", row, v, V, lanes)]
        if name == "forward":
            code += [f"  %first{row}_{v} = fmul {V} %leaks, %state{row}_{v}"]
    before, start = "entry", "%addend" if name == "accumulate" else "%first"
    if name in ("forward", "adjoint"):
        drive = _Product("drive", "%channels", "u", "1", "v", str(tile.columns))
        code += [*_multiply(drive, tile, rows, before, start if name == "forward" else None, "driven"), "driven:"]
        before, start = "driven", "%drive_sum"
    main = _Product("multiply", "%depth", "a", "%a_step", "b", "%b_step")
    code += [*_multiply(main, tile, rows, before, start, "store"), "store:"]
    for row, v in entries:
        result = f"%multiply_sum{row}_{v}"
        if name == "adjoint":
            code += [*_times_slope(phi, row, v, V), *_load("state", row, v, V)]
            code += [_add_leak("result", "sloped", row, v, V, lanes)]
            result = f"%result{row}_{v}"
        if name == "forward":
            code += [*_rate(phi, row, v, tile.lanes), *_store("rates", f"%rate{row}_{v}", row, v, V)]
        code += _store("out", result, row, v, V)
    return "\n".join([*code, "  ret void", "}"])


@dataclass(frozen=True)
class _Product:
    """A sum over k of left[row, k] right[k, column]: its label, the range of k, and the addresses of its factors."""

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
    entries = [(row, v) for row, v in tile.entries if row < rows]
    code = [f"  br label %{p}", f"{p}:", f"  %{p}_k = phi i64 [0, %{before}], [%{p}_next, %{p}]"]
    for row, v in entries:
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
    """Load a vector of the argument `name` into %{name}{row}_{v}."""
    return [
        f"  %{name}_at{row}_{v} = getelementptr float, ptr %{name}, i64 %at{row}_{v}",
        f"  %{name}{row}_{v} = load {V}, ptr %{name}_at{row}_{v}, align 4",
    ]


def _store(name: str, value: str, row: int, v: int, V: str) -> list[str]:
    """Store a vector into the argument `name`."""
    return [
        f"  %{name}_to{row}_{v} = getelementptr float, ptr %{name}, i64 %at{row}_{v}",
        f"  store {V} {value}, ptr %{name}_to{row}_{v}, align 4",
    ]


def _add_leak(result: str, start: str, row: int, v: int, V: str, lanes: int) -> str:
    """Compute %result = %start + leak * %state."""
    at = f"{row}_{v}"
    return f"  %{result}{at} = call {V} @llvm.fma.v{lanes}f32({V} %leaks, {V} %state{at}, {V} %{start}{at})"


def _rate(phi: str, row: int, v: int, lanes: int) -> list[str]:
    """Compute %rate = phi(%multiply_sum)."""
    V, B, at = f"<{lanes} x float>", f"<{lanes} x i1>", f"{row}_{v}"
    x = f"%multiply_sum{at}"
    if phi == "identity":
        return [f"  %rate{at} = fadd {V} {x}, zeroinitializer"]
    if phi == "relu":  # NaN compares false, and stays NaN
        return [
            f"  %negative{at} = fcmp olt {V} {x}, zeroinitializer",
            f"  %rate{at} = select {B} %negative{at}, {V} zeroinitializer, {V} {x}",
        ]
    code = [
        *clip(f"%x{at}", x, TANH_LARGEST, lanes),
        f"  %square{at} = fmul {V} %x{at}, %x{at}",
        *polynomial(f"%numerator{at}", f"%square{at}", TANH_NUMERATOR, lanes),
        *polynomial(f"%denominator{at}", f"%square{at}", TANH_DENOMINATOR, lanes),
        f"  %odd{at} = fmul {V} %x{at}, %numerator{at}",
        f"  %quotient{at} = fdiv {V} %odd{at}, %denominator{at}",
    ]
    return [*code, *clip(f"%rate{at}", f"%quotient{at}", 1.0, lanes)]


def clip(result: str, x: str, largest: float, lanes: int) -> list[str]:
    """Compute result = min(max(x, -largest), largest); NaN stays NaN, as it compares false."""
    V, B = f"<{lanes} x float>", f"<{lanes} x i1>"
    return [
        f"  {result}_high = fcmp ogt {V} {x}, {splat(largest, lanes)}",
        f"  {result}_upper = select {B} {result}_high, {V} {splat(largest, lanes)}, {V} {x}",
        f"  {result}_low = fcmp olt {V} {result}_upper, {splat(-largest, lanes)}",
        f"  {result} = select {B} {result}_low, {V} {splat(-largest, lanes)}, {V} {result}_upper",
    ]


def polynomial(result: str, x: str, coefficients: tuple[float, ...], lanes: int) -> list[str]:
    """Compute the polynomial with these coefficients, the highest power first, by Horner's rule."""
    V = f"<{lanes} x float>"
    code, so_far = [], splat(coefficients[0], lanes)
    for number, coefficient in enumerate(coefficients[1:], 1):
        name = result if number == len(coefficients) - 1 else f"{result}_{number}"
        code += [f"  {name} = call {V} @llvm.fma.v{lanes}f32({V} {so_far}, {V} {x}, {V} {splat(coefficient, lanes)})"]
        so_far = name
    return code


def splat(value: float, lanes: int) -> str:
    """Return a constant vector. LLVM writes a float32 as the bits of the equal double."""
    single = struct.unpack("<f", struct.pack("<f", value))[0]
    bits = struct.unpack("<Q", struct.pack("<d", single))[0]
    return f"<{', '.join([f'float 0x{bits:016X}'] * lanes)}>"


def _times_slope(phi: str, row: int, v: int, V: str) -> list[str]:
    """Compute %sloped = phi'(x) * %multiply_sum from the rate phi(x)."""
    at, B = f"{row}_{v}", V.replace("float", "i1")
    if phi == "identity":
        return [f"  %sloped{at} = fadd {V} %multiply_sum{at}, zeroinitializer"]
    if phi == "relu":
        return [
            *_load("rates", row, v, V),
            f"  %active{at} = fcmp ogt {V} %rates{at}, zeroinitializer",
            f"  %sloped{at} = select {B} %active{at}, {V} %multiply_sum{at}, {V} zeroinitializer",
        ]
    return [  # tanh: (1 - r^2) p
        *_load("rates", row, v, V),
        f"  %square{at} = fmul {V} %rates{at}, %rates{at}",
        f"  %bent{at} = fmul {V} %square{at}, %multiply_sum{at}",
        f"  %sloped{at} = fsub {V} %multiply_sum{at}, %bent{at}",
    ]


def tile_by_tile(tile: Tile, rows: str, begin: list[str], block: Callable[[int], list[str]]) -> list[str]:
    """Return the loop over an output of `rows` rows and %columns columns, one panel of tiles after the other.

    Parameters
    ----------
    begin
        Code at the start of the panel that begins at %column.
    block
        height -> code for a tile of that height, which begins at %row{height}.
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
    """Return the loop from block `before` over `rows` rows, by full tiles and then by lower ones, to `after_all`."""
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
