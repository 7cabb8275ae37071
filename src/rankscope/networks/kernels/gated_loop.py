"""Time loops of gated layers over packed sequences as LLVM assembly (text): all products and cells in one call.

For t = 0, 1, ...:     products[t] += states[t-1] W^T,   cell forward
for t = T-1, ..., 0:   cell backward,   dstates[t-1] += drecurrent[t] W (+ carried)

The rows of step t follow those of step t - 1; before the first step stand the initial states. `cells.ARGUMENTS` of
`rankscope.networks` says which rows of which array each cell receives.
"""

from __future__ import annotations

from rankscope.networks.cells import ARGUMENTS, product_of
from rankscope.networks.kernels.cells import blocks

INITIAL = {"states": "initial_states", "cells": "initial_cells", "dstates": "initial_dstates"}
"""Array -> the array (sequences, N) that stands before its first step."""


def arrays_of(cell: str) -> list[str]:
    """Return the arrays of a loop in the order of its arguments."""
    kind, _, direction = cell.partition("_")
    used = dict.fromkeys(array for array, _ in ARGUMENTS[cell].values())
    used |= dict.fromkeys(["states"] if direction == "forward" else ["dstates"])
    used |= dict.fromkeys([product_of(kind)[direction == "backward"]])
    return [*used, *(INITIAL[array] for array in used if array in INITIAL)]


def gated_loop(cell: str) -> str:
    """Return the loop of a cell: LLVM function (steps, sizes, rows, N, panels, arrays...)."""
    kind, _, direction = cell.partition("_")
    forward, gates = direction == "forward", blocks(cell, "gates")
    product = product_of(kind)[not forward]
    code = [
        f"define void @{cell}_loop(i64 %steps, ptr %sizes, i64 %count, i64 %units, ptr %panels,",
        f"    {', '.join(f'ptr %{array}' for array in arrays_of(cell))}) #0 {{",
        "entry:",
        f"  %stacked = mul i64 %units, {gates}",
        "  %last = sub i64 %steps, 1",
        "  br label %step",
        "step:",
    ]
    if forward:
        code += [
            "  %t = phi i64 [0, %entry], [%next_t, %step]",
            "  %start = phi i64 [0, %entry], [%end, %step]",
            "  %earlier = phi i64 [0, %entry], [%start, %step]",
            "  %is_first = icmp eq i64 %t, 0",
            *_load_size("size", "%t"),
            "  %end = add i64 %start, %size",
        ]
    else:
        code += [
            "  %t = phi i64 [%last, %entry], [%t_before, %step]",
            "  %end = phi i64 [%count, %entry], [%start, %step]",
            "  %is_first = icmp eq i64 %t, 0",
            *_load_size("size", "%t"),
            "  %start = sub i64 %end, %size",
            "  %t_before = sub i64 %t, 1",
            "  %t_there = select i1 %is_first, i64 0, i64 %t_before",
            *_load_size("size_before", "%t_there"),
            "  %earlier = sub i64 %start, %size_before",
        ]
    rows = {*ARGUMENTS[cell].values(), (product, "now"), ("states" if forward else "dstates", "before")}
    for array, when in sorted(rows):
        code += _address(cell, array, when)
    x, target = ("%states_before", f"%{product}_now") if forward else (f"%{product}_now", "%dstates_before")
    columns, depth = ("%stacked", "%units") if forward else ("%units", "%stacked")
    state, leak = ("%carried", "1.0") if kind == "gru" and not forward else (target, "0.0")
    multiply = [
        f"  call void @affine(i64 %size, i64 {columns}, i64 {depth}, ptr {x}, ptr %panels, i64 0, ptr {x}, ptr {x},",
        f"    ptr {target}, ptr {state}, ptr {target}, ptr {target}, float {leak})",
    ]
    given = ", ".join(f"ptr {_name(array, when)}" for array, when in ARGUMENTS[cell].values())
    step = [f"  call void @{cell}(i64 %size, i64 %units, {given})"]
    code += [*multiply, *step] if forward else [*step, *multiply]
    if forward:
        code += ["  %next_t = add i64 %t, 1", "  %done = icmp eq i64 %next_t, %steps"]
    else:
        code += ["  %done = icmp eq i64 %t, 0"]
    return "\n".join([*code, "  br i1 %done, label %exit, label %step", "exit:", "  ret void", "}"])


def _load_size(name: str, t: str) -> list[str]:
    return [f"  %{name}_at = getelementptr i64, ptr %sizes, i64 {t}", f"  %{name} = load i64, ptr %{name}_at, align 8"]


def _name(array: str, when: str) -> str:
    return f"%{array}" if when == "always" else f"%{array}_{when}"


def _address(cell: str, array: str, when: str) -> list[str]:
    """Compute the address of the rows of an array in this step, or in the step before."""
    if when == "always":
        return []
    at, row = f"%{array}_{when}", "%start" if when == "now" else "%earlier"
    code = [
        f"  {at}_row = mul i64 {row}, {blocks(cell, array)}",
        f"  {at}_offset = mul i64 {at}_row, %units",
    ]
    if when == "now":
        return [*code, f"  {at} = getelementptr float, ptr %{array}, i64 {at}_offset"]
    return [
        *code,
        f"  {at}_there = getelementptr float, ptr %{array}, i64 {at}_offset",
        f"  {at} = select i1 %is_first, ptr %{INITIAL[array]}, ptr {at}_there",
    ]
