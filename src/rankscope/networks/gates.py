"""Gates of torch's recurrent layers: their order in the stacked weights, their letters and their names.

`weight_ih_l0` is (gates N, inputs) and `weight_hh_l0` (gates N, N), with the gates one below the other in the order of
this table (torch's documentation of nn.RNN, nn.GRU and nn.LSTM).
"""

from __future__ import annotations

from typing import NamedTuple


class Gate(NamedTuple):
    """One block of rows of the stacked weights."""

    letter: str
    name: str


GATES: dict[str, tuple[Gate, ...]] = {
    "rnn": (Gate("h", "hidden"),),
    "gru": (Gate("r", "reset"), Gate("z", "update"), Gate("n", "new")),
    "lstm": (Gate("i", "input"), Gate("f", "forget"), Gate("g", "cell"), Gate("o", "output")),
}
"""Gates of each kind of layer."""


def gates_by_count(count: int) -> tuple[Gate, ...]:
    """Return the gates of the kind of layer that stacks `count` blocks; none for a count that no gated kind has."""
    return next((gates for gates in GATES.values() if len(gates) == count > 1), ())
