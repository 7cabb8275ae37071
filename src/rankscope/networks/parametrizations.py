"""Constraints on weights, for `torch.nn.utils.parametrize.register_parametrization(network, name, constraint)`.

    Dale       W_ij = |V_ij| s_j: every unit is excitatory (s_j = 1) or inhibitory (s_j = -1)
    Sparse     W = M V, elementwise: connections with M_ij = 0 do not exist
    LowRank    W = L R with L (rows, rank) and R (rank, columns)

Training changes V, L and R; everything that is measured is the effective weight W (`networks.matrices_of`). A weight
that is already constrained keeps its value.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from rankscope.errors import InputError
from rankscope.validation import integer


class Dale(nn.Module):
    """Dale's law: the outgoing weights of a unit have one sign.

    Parameters
    ----------
    signs
        (presynaptic units,), 1 for excitatory and -1 for inhibitory units. Signs of the given weights are replaced,
        magnitudes are kept.

    Raises
    ------
    InputError
        If the signs are not a vector of 1 and -1.
    """

    signs: Tensor

    def __init__(self, signs: ArrayLike) -> None:
        super().__init__()
        values = np.asarray(signs)
        if values.ndim != 1 or not np.isin(values, (-1, 1)).all():
            raise InputError(f"signs must be a vector of 1 and -1, got shape {values.shape} with {np.unique(values)}")
        self.register_buffer("signs", torch.as_tensor(values, dtype=torch.float64))

    def forward(self, magnitudes: Tensor) -> Tensor:
        """Return the effective weights."""
        _check_shape("signs", (self.signs.shape[0],), magnitudes.shape[-1:])
        return magnitudes.abs() * self.signs.to(magnitudes)

    def right_inverse(self, weights: Tensor) -> Tensor:
        """Return the parameter for given weights."""
        return weights.abs()


class Sparse(nn.Module):
    """A fixed set of connections.

    Parameters
    ----------
    mask
        (postsynaptic, presynaptic), nonzero where a connection exists.
    """

    mask: Tensor

    def __init__(self, mask: ArrayLike) -> None:
        super().__init__()
        self.register_buffer("mask", torch.as_tensor(np.asarray(mask) != 0))

    def forward(self, weights: Tensor) -> Tensor:
        """Return the effective weights."""
        _check_shape("mask", self.mask.shape, weights.shape)
        return weights * self.mask.to(weights)

    def right_inverse(self, weights: Tensor) -> Tensor:
        """Return the parameter for given weights."""
        return weights


class LowRank(nn.Module):
    """A matrix of low rank.

    Parameters
    ----------
    rank
        Number of directions. The given weights are truncated to this rank by their singular value decomposition.

    Raises
    ------
    InputError
        If the rank is not a whole number >= 1.
    """

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = integer("rank", rank, minimum=1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the effective weights."""
        return left @ right

    def right_inverse(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the parameters for given weights."""
        U, s, Vt = torch.linalg.svd(weights, full_matrices=False)
        root = s[: self.rank].sqrt()
        return (U[:, : self.rank] * root).contiguous(), (root[:, None] * Vt[: self.rank]).contiguous()


def _check_shape(name: str, given: torch.Size | tuple[int, ...], expected: torch.Size) -> None:
    if tuple(given) != tuple(expected):
        raise InputError(f"{name} must have shape {tuple(expected)} like the weights, got {tuple(given)}")
