"""Changes of the matrices of a network, by name: whole matrices, or gates of recurrent weights in brackets.

torch stacks the weights of all gates of a layer in `weight_ih_l0` and `weight_hh_l0`. A gate is a block of rows, with
its name in brackets: ``"rnn.weight_hh_l0[z]"``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rankscope.errors import InputError
from rankscope.lowrank.change import Change
from rankscope.networks.gates import gates_by_count
from rankscope.networks.protocol import Network, effective_parameters, matrices_of, recurrent_names
from rankscope.validation import choice

BRACKETS = re.compile(r"(.+)\[([^\[\]]+)\]")
"""A matrix and one of its gates."""

_RECURRENT = re.compile(r"(.*?\.?)weight_(ih|hh)((?:_l\d+)?(?:_reverse)?)")


class Block(NamedTuple):
    """A matrix of a network, or the rows of one of its gates."""

    matrix: str
    rows: slice = slice(None)
    gate: str | None = None

    @property
    def name(self) -> str:
        """Name of the matrix, with the gate in brackets."""
        return self.matrix if self.gate is None else f"{self.matrix}[{self.gate}]"


def change(
    before: Network | Tensor | ArrayLike, after: Network | Tensor | ArrayLike, matrices: Iterable[str] | None = None
) -> Change:
    """Return the change of one weight matrix.

    Parameters
    ----------
    before, after
        Two networks, or two matrices of one shape.
    matrices
        Name of the matrix of the networks, as in `train`; by default the recurrent weights.

    Raises
    ------
    InputError
        If shapes differ, a matrix holds values that are not finite, or several matrices are named.
    """
    if isinstance(before, Network) and isinstance(after, Network):
        found = blocks_of(after, matrices)
        if len(found) > 1:
            raise InputError(
                f"matrices must name one matrix, got {[block.name for block in found]}; "
                "rankscope.lowrank.changes returns the change of each"
            )
        return changes_of(before, after, found)[found[0].name]
    return Change(_matrix("before", before), _matrix("after", after))


def changes(
    before: Network, after: Network, matrices: Iterable[str] | None = None, gates: bool = False
) -> dict[str, Change]:
    """Return the changes of several weight matrices of a network, by name.

    Parameters
    ----------
    before, after
        The network before and after learning.
    matrices
        Names or patterns, as in `train`, and gates of recurrent weights in brackets: ``"rnn.weight_hh_l0[z]"``
        (r, z, n of a GRU, i, f, g, o of an LSTM), or ``"rnn.weight_hh_l0[*]"`` for each. By default the recurrent
        weights.
    gates
        Add the gates of each matrix.

    Raises
    ------
    InputError
        If the networks do not fit together, a name is unknown, or a matrix holds values that are not finite.
    """
    return changes_of(before, after, blocks_of(after, matrices, gates))


def gates_of(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, slice]:
    """Return the rows of each gate of a matrix; empty for a matrix with one gate or of another layer.

    The number of gates follows from the shapes of the network's other weights.
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


def blocks_of(network: Network, matrices: Iterable[str] | None = None, gates: bool = False) -> list[Block]:
    """Return the matrices and gates that `matrices` names, in the order of the network."""
    if isinstance(matrices, str):
        raise InputError(f"matrices must be a list of names, got the text {matrices!r}; write [{matrices!r}]")
    patterns = None if matrices is None else list(matrices)
    whole = None if patterns is None else [pattern for pattern in patterns if not BRACKETS.fullmatch(pattern)]
    names = set() if patterns and not whole else set(recurrent_names(network, whole))
    shapes = {name: tuple(weights.shape) for name, weights in effective_parameters(network).items()}
    every = {
        name: [Block(name, rows, gate) for gate, rows in gates_of(name, shapes).items()]
        for name, shape in shapes.items()
        if len(shape) == 2
    }
    chosen = {block.name for name in names if gates for block in every.get(name, ())}
    known = [block.name for blocks in every.values() for block in blocks]
    for pattern in patterns or ():
        bracket = BRACKETS.fullmatch(pattern)
        if bracket is None:
            continue
        fitting = {
            block.name
            for blocks in every.values()
            for block in blocks
            if fnmatch.fnmatchcase(block.matrix, bracket[1]) and fnmatch.fnmatchcase(str(block.gate), bracket[2])
        }
        if not known:
            raise InputError(f"matrices must name matrices, got {pattern!r}, but no matrix has gates")
        chosen |= fitting or {choice("matrices", pattern, known)}
    blocks = [block for name, gated in every.items() for block in (Block(name), *gated)]
    blocks += [Block(name) for name in sorted(names - every.keys())]  # computed by the network
    return [block for block in blocks if block.name in chosen or (block.gate is None and block.matrix in names)]


def changes_of(before: Network, after: Network, blocks: Iterable[Block]) -> dict[str, Change]:
    """Return the changes of these matrices and gates, by name."""
    if before is after:
        raise InputError("before must be the network before learning (network.snapshot()), got the one after learning")
    found = {}
    for block in blocks:
        W0, W = _matrix_of("before", before, block.matrix), _matrix_of("after", after, block.matrix)
        if W0.shape != W.shape:
            raise InputError(
                f"after must have the shape of before, got {block.matrix!r} of {tuple(W0.shape)} and {tuple(W.shape)}"
            )
        # Copies, as a network may go on learning.
        found[block.name] = Change(W0[block.rows].clone(), W[block.rows].clone())
    return found


@torch.no_grad()
def _matrix_of(which: str, network: Network, name: str) -> Tensor:
    try:
        return matrices_of(network, [name])[name].detach()
    except InputError as error:
        raise InputError(f"{which} must have the matrix {name!r}: {error}") from error


def _matrix(name: str, value: Network | Tensor | ArrayLike) -> Tensor:
    if isinstance(value, Network):
        found = blocks_of(value)
        if len(found) > 1:
            raise InputError(f"{name} must be one matrix, got a network with {[block.name for block in found]}")
        return _matrix_of(name, value, found[0].name).clone()
    try:
        matrix = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(np.asarray(value, dtype=None))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a network or a matrix of numbers, got {type(value).__name__}") from error
    if matrix.ndim != 2 or matrix.is_complex():
        raise InputError(f"{name} must be a network or a matrix, got shape {tuple(matrix.shape)}")
    return matrix
