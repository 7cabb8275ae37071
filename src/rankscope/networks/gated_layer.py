"""A layer of a gated network over sequences of different lengths, differentiated by hand.

The sequences are packed: sorted from the longest to the shortest, the rows of step t are those of the sequences that
are longer than t, one step after the other. The product with the inputs and each weight gradient is one matrix product
over all rows; a step is one product with the recurrent weights and one call of a cell (`cells.py`).
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rankscope.networks.kernels.dispatch import affine, cell, inner_product, linear


class LayerWeights(NamedTuple):
    """The weights of a layer, as torch names them: (gates N, in), (gates N, N), (gates N,) and (gates N,)."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor


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
        count, units = sizes[0], w_hh.shape[1]
        start = [x.new_zeros(count, units) if state is None else state.contiguous() for state in (h, c)]
        kept = _Kept(kind, _rows(sizes), *start)
        states = _run(kept, x, LayerWeights(w_ih, w_hh, b_ih, b_hh))
        ctx.kept = kept
        ctx.save_for_backward(x, w_ih, w_hh, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w_ih, w_hh, states = ctx.saved_tensors
        needs_x, needs_w_ih, needs_w_hh, needs_b_ih, needs_b_hh, needs_h, needs_c = ctx.needs_input_grad[2:]
        d = _run_back(ctx.kept, w_hh, states, grad)
        return (
            None,
            None,
            linear(d.gates, w_ih.t()) if needs_x else None,
            inner_product(d.gates, x) if needs_w_ih else None,
            inner_product(d.recurrent, ctx.kept.before(states)) if needs_w_hh else None,
            d.gates.sum(0) if needs_b_ih else None,
            d.recurrent.sum(0) if needs_b_hh else None,
            d.h if needs_h else None,
            d.c if needs_c else None,
        )


class _Kept:
    """What the backward pass needs of the forward pass.

    Attributes
    ----------
    rows
        The rows of each step.
    h, c
        Initial states, (sequences, N).
    gates
        Values of the gates, (rows, gates N).
    recurrent
        W_hh h + b_hh of a GRU, (rows, 3 N).
    cells, bent
        c and tanh(c) of an LSTM, (rows, N).
    """

    gates: Tensor
    recurrent: Tensor
    cells: Tensor
    bent: Tensor

    def __init__(self, kind: str, rows: list[slice], h: Tensor, c: Tensor) -> None:
        self.kind, self.rows, self.h, self.c = kind, rows, h, c

    def before(self, states: Tensor) -> Tensor:
        """Return the states that each step starts from, (rows, N)."""
        return torch.cat([self.h, *(_previous(states, self.h, self.rows, t) for t in range(1, len(self.rows)))])


class _Gradients(NamedTuple):
    """Gradients with respect to a, q (the same for plain RNN and LSTM; see `cells.py`) and the initial states."""

    gates: Tensor
    recurrent: Tensor
    h: Tensor
    c: Tensor


def _rows(sizes: list[int]) -> list[slice]:
    ends = itertools.accumulate(sizes)
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _previous(states: Tensor, initial: Tensor, rows: list[slice], t: int) -> Tensor:
    """Return the states before step t, of the sequences that step t has."""
    size = rows[t].stop - rows[t].start
    return states[rows[t - 1].start :][:size] if t else initial[:size]


def _run(kept: _Kept, x: Tensor, weights: LayerWeights) -> Tensor:
    """Return the states (rows, N), and fill `kept`."""
    gru, lstm = kept.kind == "gru", kept.kind == "lstm"
    bias = weights.bias_ih if gru else weights.bias_ih + weights.bias_hh
    gates = kept.gates = linear(x, weights.weight_ih, bias)
    h = gates.new_empty(len(x), weights.weight_hh.shape[1])
    if lstm:
        kept.cells, kept.bent = torch.empty_like(h), torch.empty_like(h)
    if gru:
        kept.recurrent = weights.bias_hh.expand(len(x), -1).contiguous()
    products = kept.recurrent if gru else gates
    step, product = cell(f"{kept.kind}_forward", h), affine(weights.weight_hh, len(kept.h))
    for t, rows in enumerate(kept.rows):
        before = _previous(h, kept.h, kept.rows, t)
        product(before, products[rows])
        if lstm:
            c = _previous(kept.cells, kept.c, kept.rows, t)
            step(gates[rows], c, kept.cells[rows], kept.bent[rows], h[rows])
        elif gru:
            step(gates[rows], kept.recurrent[rows], before, h[rows])
        else:
            step(gates[rows], h[rows])
    return h


def _run_back(kept: _Kept, w_hh: Tensor, states: Tensor, grad: Tensor) -> _Gradients:
    """Return the gradients, given the states and the gradient with respect to them, (rows, N)."""
    gru, lstm = kept.kind == "gru", kept.kind == "lstm"
    dh, dgates = grad.clone(memory_format=torch.contiguous_format), torch.empty_like(kept.gates)
    drecurrent = torch.empty_like(kept.gates) if gru else dgates
    first, dc, carry = (torch.zeros_like(kept.h) for _ in range(3))
    step, product = cell(f"{kept.kind}_backward", states), affine(w_hh.t(), len(kept.h))
    for t in reversed(range(len(kept.rows))):
        rows = kept.rows[t]
        before, size = _previous(states, kept.h, kept.rows, t), rows.stop - rows.start
        if lstm:
            c = _previous(kept.cells, kept.c, kept.rows, t)
            step(kept.gates[rows], c, kept.bent[rows], dh[rows], dc[:size], dgates[rows])
        elif gru:
            args = kept.gates[rows], kept.recurrent[rows], before, dh[rows], carry[:size]
            step(*args, dgates[rows], drecurrent[rows])
        else:
            step(states[rows], dh[rows], dgates[rows])
        earlier = _previous(dh, first, kept.rows, t)
        product(drecurrent[rows], earlier, *(carry[:size], 1.0) if gru else ())
    return _Gradients(dgates, drecurrent, first, dc)
