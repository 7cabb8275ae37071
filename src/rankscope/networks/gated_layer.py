"""A layer of a gated network over sequences of different lengths, differentiated by hand.

The sequences are packed: sorted from the longest to the shortest, the rows of step t are those of the sequences that
are longer than t, one step after the other. The product with the inputs and each weight gradient is one matrix product
over all rows. A step is one product with the recurrent weights and one call of a cell (`cells.py`); where the kernels
fit, all steps are one call (`kernels/gated_loop.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rankscope.networks.cells import ARGUMENTS, CELLS, product_of
from rankscope.networks.kernels.dispatch import affine, gated_loop, inner_product, linear
from rankscope.networks.kernels.gated_loop import INITIAL


class LayerWeights(NamedTuple):
    """The weights of a layer, as torch names them: (gates N, in), (gates N, N), (gates N,) and (gates N,)."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor


class LayerProducts(NamedTuple):
    """The factors of a layer's gradients: gates^T inputs is that of `weight_ih`, recurrent^T states of `weight_hh`.

    Attributes
    ----------
    gates, recurrent
        Gradients with respect to W_ih x + b_ih and W_hh h + b_hh, (rows, gates N).
    inputs, states
        (rows, in) inputs, and (rows, N) states that each step starts from.
    """

    gates: Tensor
    recurrent: Tensor
    inputs: Tensor
    states: Tensor


_collected: ContextVar[list[LayerProducts] | None] = ContextVar("_collected", default=None)


@contextmanager
def collected_products() -> Iterator[list[LayerProducts]]:
    """Collect the factors of the gradients of each layer in a backward pass within a `with` block, last layer first."""
    found: list[LayerProducts] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def gated_layer(
    kind: str, x: Tensor, weights: LayerWeights, sizes: list[int], h: Tensor | None = None, c: Tensor | None = None
) -> Tensor:
    """Return the states of a layer, (rows, N), packed like its inputs.

    Parameters
    ----------
    kind
        "rnn", "gru" or "lstm".
    x
        Packed inputs, (rows, in).
    sizes
        Number of sequences in each step, which does not increase.
    h, c
        Initial states, (sequences, N); zero by default. `c` is that of an LSTM.
    """
    found: Tensor = _GatedLayer.apply(kind, sizes, x, *weights, h, c)  # type: ignore[no-untyped-call]
    return found


class _GatedLayer(torch.autograd.Function):
    """The layer as one operation of autograd."""

    @staticmethod
    def forward(
        ctx: Any, kind: str, sizes: list[int], x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor,
        h: Tensor | None, c: Tensor | None,
    ) -> Tensor:  # fmt: skip
        gru, units = kind == "gru", w_hh.shape[1]
        arrays = {"gates": linear(x, w_ih, b_ih if gru else b_ih + b_hh)}
        arrays["states"] = x.new_empty(len(x), units)
        for name, state in (("initial_states", h), ("initial_cells", c)):
            arrays[name] = x.new_zeros(sizes[0], units) if state is None else state.contiguous()
        if kind == "lstm":
            arrays |= {name: torch.empty_like(arrays["states"]) for name in ("cells", "bent")}
        if gru:
            arrays["recurrent"] = b_hh.expand(len(x), -1).contiguous()
        run_steps(f"{kind}_forward", sizes, w_hh, arrays)
        states = arrays.pop("states")
        ctx.kind, ctx.sizes, ctx.kept = kind, sizes, arrays
        ctx.save_for_backward(x, w_ih, w_hh, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w_ih, w_hh, states = ctx.saved_tensors
        needs_x, needs_w_ih, needs_w_hh, needs_b_ih, needs_b_hh, needs_h, needs_c = ctx.needs_input_grad[2:]
        arrays: dict[str, Tensor] = ctx.kept | {"states": states}
        arrays["dstates"] = grad.clone(memory_format=torch.contiguous_format)
        arrays["dgates"] = torch.empty_like(arrays["gates"])
        if ctx.kind == "gru":
            arrays["drecurrent"] = torch.empty_like(arrays["gates"])
        for name in ("carried", "initial_dstates"):
            arrays[name] = torch.zeros_like(arrays["initial_states"])
        run_steps(f"{ctx.kind}_backward", ctx.sizes, w_hh.t(), arrays)
        dgates, drecurrent = arrays["dgates"], arrays[product_of(ctx.kind)[1]]
        collected = _collected.get()
        if collected is not None:
            collected.append(LayerProducts(dgates, drecurrent, x, _before_each_step(ctx.sizes, arrays)))
        return (
            None,
            None,
            linear(dgates, w_ih.t()) if needs_x else None,
            inner_product(dgates, x) if needs_w_ih else None,
            inner_product(drecurrent, _before_each_step(ctx.sizes, arrays)) if needs_w_hh else None,
            dgates.sum(0) if needs_b_ih else None,
            drecurrent.sum(0) if needs_b_hh else None,
            arrays["initial_dstates"] if needs_h else None,
            arrays["carried"] if needs_c else None,
        )


def run_steps(cell: str, sizes: list[int], weight: Tensor, arrays: dict[str, Tensor]) -> None:
    """Run all steps forward or back.

    Parameters
    ----------
    weight
        Recurrent weights (gates N, N), for steps back their transpose.
    arrays
        Those of `cells.ARGUMENTS`, and the initial ones of `kernels.gated_loop`.
    """
    loop = gated_loop(cell, weight)
    if loop is not None:
        loop.run(torch.tensor(sizes), arrays)
        return
    kind, _, direction = cell.partition("_")
    product, rows = affine(weight, sizes[0]), _rows(sizes)
    products = product_of(kind)[direction == "backward"]

    def part(t: int, array: str, when: str) -> Tensor:
        size = sizes[t]
        if when == "now":
            return arrays[array][rows[t]]
        if when == "always" or t == 0:
            return arrays[array if when == "always" else INITIAL[array]][:size]
        return arrays[array][rows[t - 1].start :][:size]

    def step(t: int) -> None:
        CELLS[cell](*(part(t, *argument) for argument in ARGUMENTS[cell].values()))

    if direction == "forward":
        for t in range(len(sizes)):
            product(part(t, "states", "before"), part(t, products, "now"))
            step(t)
    else:
        for t in reversed(range(len(sizes))):
            step(t)
            carried = (part(t, "carried", "always"), 1.0) if kind == "gru" else ()
            product(part(t, products, "now"), part(t, "dstates", "before"), *carried)


def _rows(sizes: list[int]) -> list[slice]:
    ends = itertools.accumulate(sizes)
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _before_each_step(sizes: list[int], arrays: dict[str, Tensor]) -> Tensor:
    """Return the states that each step starts from, (rows, N)."""
    if sizes[-1] == sizes[0]:
        return torch.cat([arrays["initial_states"], arrays["states"][: -sizes[0]]])
    starts = [rows.start for rows in _rows(sizes)]
    later = [arrays["states"][start:][:size] for start, size in zip(starts, sizes[1:], strict=False)]
    return torch.cat([arrays["initial_states"], *later])
