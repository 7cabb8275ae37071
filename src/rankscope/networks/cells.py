"""Cells of gated networks: one step of plain RNN, GRU and LSTM, and its derivative, without the matrix products.

With a = W_ih x + b_ih (for the plain RNN and the LSTM, + W_hh h + b_hh) and, for the GRU, q = W_hh h + b_hh:

    rnn    h' = tanh(a)
    gru    r = sigmoid(a_r + q_r),  z = sigmoid(a_z + q_z),  n = tanh(a_n + r q_n),  h' = (1 - z) n + z h
    lstm   i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o),  g = tanh(a_g),  c' = f c + i g,  h' = o tanh(c')

as in torch's documentation of nn.RNN, nn.GRU and nn.LSTM. The functions write into the arrays they are given, (rows,
gates N) and (rows, N): the first call of each pair turns `gates` from a into the values of the gates, the second
computes the gradients from those. `kernels/cells.py` compiles the same functions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def lstm_forward(gates: Tensor, before: Tensor, after: Tensor, bent: Tensor, h: Tensor) -> None:
    """Write the gates, c' into `after`, tanh(c') into `bent`, and h'; `before` is c."""
    i, f, g, o = gates.chunk(4, 1)
    for gate in (i, f, o):
        gate.sigmoid_()
    g.tanh_()
    torch.mul(f, before, out=after).addcmul_(i, g)
    torch.tanh(after, out=bent)
    torch.mul(o, bent, out=h)


def lstm_backward(gates: Tensor, before: Tensor, bent: Tensor, dh: Tensor, dc: Tensor, dgates: Tensor) -> None:
    """Write the gradient of a into `dgates`, and turn `dc` from the gradient of c' (apart from h') into that of c."""
    i, f, g, o = gates.chunk(4, 1)
    di, df, dg, do = dgates.chunk(4, 1)
    dc.add_(dh * o * (1 - bent * bent))
    torch.mul(dc * g, i - i * i, out=di)
    torch.mul(dc * before, f - f * f, out=df)
    torch.mul(dc * i, 1 - g * g, out=dg)
    torch.mul(dh * bent, o - o * o, out=do)
    dc.mul_(f)


def gru_forward(gates: Tensor, recurrent: Tensor, before: Tensor, h: Tensor) -> None:
    """Write the gates and h'; `recurrent` is q, `before` is h."""
    (r, z, n), (q_r, q_z, q_n) = gates.chunk(3, 1), recurrent.chunk(3, 1)
    r.add_(q_r).sigmoid_()
    z.add_(q_z).sigmoid_()
    n.addcmul_(r, q_n).tanh_()
    torch.lerp(n, before, z, out=h)


def gru_backward(
    gates: Tensor, recurrent: Tensor, before: Tensor, dh: Tensor, carry: Tensor, dgates: Tensor, drecurrent: Tensor
) -> None:
    """Write the gradients of a and q, and that of h apart from q into `carry`."""
    (r, z, n), (dr, dz, dn) = gates.chunk(3, 1), dgates.chunk(3, 1)
    torch.mul(dh, z, out=carry)
    torch.mul(dh - carry, 1 - n * n, out=dn)
    torch.mul(dh * (before - n), z - z * z, out=dz)
    torch.mul(dn * recurrent.chunk(3, 1)[2], r - r * r, out=dr)
    drecurrent.copy_(dgates)
    drecurrent.chunk(3, 1)[2].mul_(r)


def rnn_forward(gates: Tensor, h: Tensor) -> None:
    """Write h'."""
    torch.tanh(gates, out=h)


def rnn_backward(h: Tensor, dh: Tensor, dgates: Tensor) -> None:
    """Write the gradient of a; `h` is h'."""
    torch.mul(dh, 1 - h * h, out=dgates)


CELLS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (lstm_forward, lstm_backward, gru_forward, gru_backward, rnn_forward, rnn_backward)
}

ARGUMENTS: dict[str, dict[str, tuple[str, str]]] = {
    "lstm_forward": {
        "gates": ("gates", "now"),
        "before": ("cells", "before"),
        "after": ("cells", "now"),
        "bent": ("bent", "now"),
        "h": ("states", "now"),
    },
    "lstm_backward": {
        "gates": ("gates", "now"),
        "before": ("cells", "before"),
        "bent": ("bent", "now"),
        "dh": ("dstates", "now"),
        "dc": ("carried", "always"),
        "dgates": ("dgates", "now"),
    },
    "gru_forward": {
        "gates": ("gates", "now"),
        "recurrent": ("recurrent", "now"),
        "before": ("states", "before"),
        "h": ("states", "now"),
    },
    "gru_backward": {
        "gates": ("gates", "now"),
        "recurrent": ("recurrent", "now"),
        "before": ("states", "before"),
        "dh": ("dstates", "now"),
        "carry": ("carried", "always"),
        "dgates": ("dgates", "now"),
        "drecurrent": ("drecurrent", "now"),
    },
    "rnn_forward": {"gates": ("gates", "now"), "h": ("states", "now")},
    "rnn_backward": {"h": ("states", "now"), "dh": ("dstates", "now"), "dgates": ("dgates", "now")},
}
"""Function -> its arguments in order, each with the array of the layer that it belongs to, and which rows of it: those
of the step ("now"), of the step before, or the first ones in every step ("always")."""

STACKED = ("gates", "recurrent", "dgates", "drecurrent")
"""Arrays of the layer that are (rows, gates N); the others are (rows, N)."""


def product_of(kind: str) -> tuple[str, str]:
    """Return the arrays that the products of a step forward are added to, and that those of a step back start from."""
    return ("recurrent", "drecurrent") if kind == "gru" else ("gates", "dgates")
