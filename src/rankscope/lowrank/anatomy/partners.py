r"""Partners of the directions of a change: the subspaces that a network's other weights span.

With the input vectors M (N, in), the output vectors w (out, N) and W0, all partners of a rate network lie in the space
of its units, for u (postsynaptic) and v (presynaptic) alike: the spans of M and $w^T$, their images under one step,
$W_0 M$ and $W_0^T w^T$, and for a linear network whose W0 has a spectral radius below 1 those under the resolvent
$R = (1 - W_0)^{-1}$, $R M$ and $R^T w^T$. The linear theory has $u_1 \propto R^T w^T$ and $v_1 \propto R M$ at small
learning time (Schuessler et al. 2020).

In a layer with gates, u lies in the space of one gate's arguments and v in that of the states. The inputs beside u are
the input weights of that gate, those beside v the ones that write into the state (gate n of a GRU, g of an LSTM), and
$W_0$ is the block of the gate.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rankscope.lowrank.anatomy.subspaces import basis
from rankscope.lowrank.matrices import Block, gates_of
from rankscope.networks.gated import GatedRNN
from rankscope.networks.nonlinearities import name_of
from rankscope.networks.protocol import Network, effective_parameters
from rankscope.networks.rate import RateRNN

Array = NDArray[np.float64]

PARTNERS = ("inputs", "outputs", "W0 inputs", "W0^T outputs")
ACTIVE = ("activity", "adjoints")
"""Partners that a forward and a backward pass give: leading principal components, see `shares.py`."""

RESOLVED = ("R inputs", "R^T outputs")
"""Further partners of a linear network."""

POWERS = 6
"""Squarings of W0 that are tried to show that it is stable."""

WRITES = {"rnn": None, "gru": "n", "lstm": "g"}
"""The gate through which inputs are written into the state."""


class Sides(NamedTuple):
    """Orthonormal bases of a partner beside u, (n, d), and beside v, (m, d)."""

    left: Array
    right: Array


def partners(network: Network, W0: Array, block: Block) -> dict[str, Sides]:
    """Return the partners of a matrix or gate, by name; none where the roles of the weights are not known.

    Parameters
    ----------
    network
        The network whose input and output vectors are taken.
    W0
        The matrix or the block of the gate before learning, (n, m).
    block
        Which one it is.
    """
    if isinstance(network, RateRNN) and block.matrix == "recurrent_weights":
        weights = network.weights
        M, w = _array(weights.input), _array(weights.output).T
        found = _images(W0, M, M, w)
        if name_of(network.dynamics.nonlinearity) == "identity" and _is_stable(W0):
            resolved = np.eye(len(W0)) - W0
            for name, vectors in zip(RESOLVED, (_solved(resolved, M), _solved(resolved.T, w)), strict=True):
                found[name] = _same(vectors)
        return found
    layer = re.fullmatch(r"rnn\.weight_hh_l(\d+)", block.matrix)
    if not isinstance(network, GatedRNN) or layer is None:
        return {}
    parameters = effective_parameters(network)
    name = f"rnn.weight_ih_l{layer[1]}"
    from_inputs = _array(parameters[name])
    gates = gates_of(name, {key: tuple(value.shape) for key, value in parameters.items()})
    writes = WRITES[network.kind]
    M_state = from_inputs if writes is None else from_inputs[gates[writes]]
    is_last = int(layer[1]) == network.rnn.num_layers - 1
    outputs = _array(parameters["readout.weight"]).T if is_last else None
    if len(W0) != W0.shape[1]:
        return {}  # all gates together
    return _images(W0, from_inputs[block.rows], M_state, outputs)


def given(vectors: NDArray[Any], shape: tuple[int, int]) -> Sides:
    """Return a partner that the user gives, vectors (N, d); empty on a side of another size."""
    left, right = (basis(vectors) if len(vectors) == size else np.empty((size, 0)) for size in shape)
    return Sides(left, right)


def _images(W0: Array, M_left: Array, M_right: Array, w: Array | None) -> dict[str, Sides]:
    found = {"inputs": Sides(basis(M_left), basis(M_right))}
    if w is not None:
        found["outputs"] = _same(w)
    if W0.any():
        found["W0 inputs"] = _same(W0 @ M_right)
        if w is not None:
            found["W0^T outputs"] = _same(W0.T @ w)
    return found


def _same(vectors: Array) -> Sides:
    found = basis(vectors)
    return Sides(found, found)


def _is_stable(W0: Array) -> bool:
    """Return whether the spectral radius is below 1."""
    # It is at most |W0^p|^(1/p). A few products settle most cases; eigenvalues take ten times as long.
    power = W0
    for _ in range(POWERS):
        if np.linalg.norm(power) < 1:
            return True
        power = power @ power
        if not np.isfinite(power).all():
            return False
    return bool(torch.linalg.eigvals(torch.from_numpy(W0)).abs().max() < 1)


def _solved(matrix: Array, vectors: Array) -> Array:
    return np.asarray(np.linalg.solve(matrix, vectors), dtype=np.float64)


def _array(weights: torch.Tensor) -> Array:
    found: Array = weights.detach().cpu().double().numpy()
    return found
