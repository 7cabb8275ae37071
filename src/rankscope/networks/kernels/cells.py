"""Gated cells as LLVM assembly (text): everything of a step but the matrix products, in one pass over memory.

The functions have the arguments of those in `rankscope.networks.cells`, which define them: arrays (rows, gates N) or
(rows, N), contiguous float32. A cell is written as a list of operations on whole vectors; `_Pass` writes the loop.
"""

from __future__ import annotations

from rankscope.networks.cells import ARGUMENTS, STACKED
from rankscope.networks.gates import GATES
from rankscope.networks.kernels.tile import (
    TANH_DENOMINATOR,
    TANH_LARGEST,
    TANH_NUMERATOR,
    Tile,
    clip,
    polynomial,
    splat,
)


def blocks(cell: str, array: str) -> int:
    """Return the number of blocks of N columns in an array of `rankscope.networks.cells`."""
    return len(GATES[cell.partition("_")[0]]) if array in STACKED else 1


def cells(tile: Tile) -> list[str]:
    """Return all cells as LLVM functions (rows, N, arrays...); N is a multiple of the lanes of the tile."""
    return [_lstm_forward(tile), _lstm_backward(tile), _gru_forward(tile), _gru_backward(tile), *_rnn(tile)]


def _lstm_forward(tile: Tile) -> str:
    p = _Pass("lstm_forward", tile)
    i, f, o = (p.sigmoid(p.load("gates", block)) for block in (0, 1, 3))
    g = p.tanh(p.load("gates", 2))
    c = p.fma(f, p.load("before"), p.mul(i, g))
    bent = p.tanh(c)
    for block, gate in enumerate((i, f, g, o)):
        p.store("gates", gate, block)
    p.store("after", c)
    p.store("bent", bent)
    p.store("h", p.mul(o, bent))
    return p.function()


def _lstm_backward(tile: Tile) -> str:
    p = _Pass("lstm_backward", tile)
    i, f, g, o = (p.load("gates", block) for block in range(4))
    bent, dh = p.load("bent"), p.load("dh")
    dc = p.fma(p.mul(dh, o), p.slope_of_tanh(bent), p.load("dc"))
    p.store("dgates", p.mul(p.mul(dc, g), p.slope_of_sigmoid(i)), 0)
    p.store("dgates", p.mul(p.mul(dc, p.load("before")), p.slope_of_sigmoid(f)), 1)
    p.store("dgates", p.mul(p.mul(dc, i), p.slope_of_tanh(g)), 2)
    p.store("dgates", p.mul(p.mul(dh, bent), p.slope_of_sigmoid(o)), 3)
    p.store("dc", p.mul(dc, f))
    return p.function()


def _gru_forward(tile: Tile) -> str:
    p = _Pass("gru_forward", tile)
    r, z = (p.sigmoid(p.add(p.load("gates", block), p.load("recurrent", block))) for block in (0, 1))
    n = p.tanh(p.fma(r, p.load("recurrent", 2), p.load("gates", 2)))
    for block, gate in enumerate((r, z, n)):
        p.store("gates", gate, block)
    p.store("h", p.fma(z, p.sub(p.load("before"), n), n))
    return p.function()


def _gru_backward(tile: Tile) -> str:
    p = _Pass("gru_backward", tile)
    r, z, n = (p.load("gates", block) for block in range(3))
    dh = p.load("dh")
    carry = p.mul(dh, z)
    dn = p.mul(p.sub(dh, carry), p.slope_of_tanh(n))
    dz = p.mul(p.mul(dh, p.sub(p.load("before"), n)), p.slope_of_sigmoid(z))
    dr = p.mul(p.mul(dn, p.load("recurrent", 2)), p.slope_of_sigmoid(r))
    for name, last in (("dgates", dn), ("drecurrent", p.mul(dn, r))):
        for block, gate in enumerate((dr, dz, last)):
            p.store(name, gate, block)
    p.store("carry", carry)
    return p.function()


def _rnn(tile: Tile) -> list[str]:
    p, q = _Pass("rnn_forward", tile), _Pass("rnn_backward", tile)
    p.store("h", p.tanh(p.load("gates")))
    q.store("dgates", q.mul(q.load("dh"), q.slope_of_tanh(q.load("h"))))
    return [p.function(), q.function()]


class _Pass:
    """A function under construction that treats every entry of its arrays alike; values are names of LLVM vectors."""

    def __init__(self, name: str, tile: Tile) -> None:
        self._name, self._lanes, self._vector = name, tile.lanes, f"<{tile.lanes} x float>"
        self._blocks = {argument: blocks(name, array) for argument, (array, _) in ARGUMENTS[name].items()}
        self._code: list[str] = []
        self._count = 0

    def load(self, array: str, block: int = 0) -> str:
        return self._new(f"load {self._vector}, ptr {self._address(array, block)}, align 4")

    def store(self, array: str, value: str, block: int = 0) -> None:
        self._code.append(f"  store {self._vector} {value}, ptr {self._address(array, block)}, align 4")

    def add(self, a: str, b: str) -> str:
        return self._new(f"fadd {self._vector} {a}, {b}")

    def sub(self, a: str, b: str) -> str:
        return self._new(f"fsub {self._vector} {a}, {b}")

    def mul(self, a: str, b: str) -> str:
        return self._new(f"fmul {self._vector} {a}, {b}")

    def fma(self, a: str, b: str, c: str) -> str:
        V = self._vector
        return self._new(f"call {V} @llvm.fma.v{self._lanes}f32({V} {a}, {V} {b}, {V} {c})")

    def tanh(self, x: str) -> str:
        """Return tanh(x); see `TANH_NUMERATOR`."""
        at = self._label()
        self._code += clip(f"%x{at}", x, TANH_LARGEST, self._lanes)
        square = self.mul(f"%x{at}", f"%x{at}")
        self._code += polynomial(f"%numerator{at}", square, TANH_NUMERATOR, self._lanes)
        self._code += polynomial(f"%denominator{at}", square, TANH_DENOMINATOR, self._lanes)
        quotient = self._new(f"fdiv {self._vector} {self.mul(f'%x{at}', f'%numerator{at}')}, %denominator{at}")
        self._code += clip(f"%tanh{at}", quotient, 1.0, self._lanes)
        return f"%tanh{at}"

    def sigmoid(self, x: str) -> str:
        """Return (1 + tanh(x / 2)) / 2."""
        half = splat(0.5, self._lanes)
        return self.fma(half, self.tanh(self.mul(x, half)), half)

    def slope_of_tanh(self, y: str) -> str:
        """Return the derivative of tanh where its value is y."""
        return self.sub(splat(1.0, self._lanes), self.mul(y, y))

    def slope_of_sigmoid(self, y: str) -> str:
        """Return the derivative of the sigmoid where its value is y."""
        return self.sub(y, self.mul(y, y))

    def function(self) -> str:
        """Return the function: a loop over rows and, in each, over vectors of columns."""
        arrays = list(self._blocks)
        code = [
            f"define void @{self._name}(i64 %rows, i64 %units, {', '.join(f'ptr %{array}' for array in arrays)}) #0 {{",
            "entry:",
            "  br label %row",
            "row:",
            "  %k = phi i64 [0, %entry], [%next_k, %row_done]",
            "  %start = mul i64 %k, %units",
        ]
        for array, blocks in self._blocks.items():
            code += [
                f"  %{array}_start = mul i64 %start, {blocks}",
                f"  %{array}_row = getelementptr float, ptr %{array}, i64 %{array}_start",
            ]
        code += ["  br label %columns", "columns:", "  %j = phi i64 [0, %row], [%next_j, %columns]"]
        for block in range(1, max(self._blocks.values())):
            code += [f"  %offset{block} = mul i64 %units, {block}", f"  %j{block} = add i64 %j, %offset{block}"]
        return "\n".join(
            [
                *code,
                *self._code,
                f"  %next_j = add i64 %j, {self._lanes}",
                "  %row_full = icmp uge i64 %next_j, %units",
                "  br i1 %row_full, label %row_done, label %columns",
                "row_done:",
                "  %next_k = add i64 %k, 1",
                "  %all = icmp uge i64 %next_k, %rows",
                "  br i1 %all, label %exit, label %row",
                "exit:",
                "  ret void",
                "}",
            ]
        )

    def _address(self, array: str, block: int) -> str:
        return self._new(f"getelementptr float, ptr %{array}_row, i64 %j{block or ''}")

    def _new(self, operation: str) -> str:
        name = f"%value{self._label()}"
        self._code.append(f"  {name} = {operation}")
        return name

    def _label(self) -> int:
        self._count += 1
        return self._count
