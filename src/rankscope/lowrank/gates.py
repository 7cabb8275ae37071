"""Gates of recurrent weights: blocks of rows of a stacked matrix, by torch's names and order.

torch stacks the weights of all gates of a layer in `weight_ih_l0` and `weight_hh_l0`. A gate is named in brackets:
``"rnn.weight_hh_l0[z]"``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rankscope.networks.gates import gates_by_count

BRACKETS = re.compile(r"(.+)\[([^\[\]]+)\]")
"""A matrix and one of its gates."""

_RECURRENT = re.compile(r"(.*?\.?)weight_(ih|hh)((?:_l\d+)?(?:_reverse)?)")


def gates_of(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, slice]:
    """Return the rows of each gate of a matrix; empty for a matrix with one gate or of another layer.

    Parameters
    ----------
    name
        Name of the matrix.
    shapes
        Shapes of all weights of the network by name: the number of gates follows from those of `weight_hh`.
    """
    found = _RECURRENT.fullmatch(name)
    if not found:
        return {}
    prefix, _, layer = found.groups()
    # With a projection (torch's proj_size) the hidden size is no longer the number of columns of weight_hh.
    sizes = [shapes[key] for key in (f"{prefix}weight_hr{layer}", f"{prefix}weight_hh{layer}") if key in shapes]
    rows = shapes[name][0]
    if not sizes or len(sizes[0]) != 2 or not sizes[0][1] or rows % sizes[0][1]:
        return {}
    hidden = sizes[0][1]
    gates = gates_by_count(rows // hidden)
    return {gate.letter: slice(i * hidden, (i + 1) * hidden) for i, gate in enumerate(gates)}
