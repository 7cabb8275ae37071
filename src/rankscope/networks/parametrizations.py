"""Constraints on weights, for `torch.nn.utils.parametrize.register_parametrization(network, name, constraint)`.

    Dale       W_ij = abs(V_ij) s_j: every unit is excitatory (s_j = 1) or inhibitory (s_j = -1)
    Sparse     W = M V, elementwise: connections with M_ij = 0 do not exist
    LowRank    W = W0 + m n^T with m (rows, rank) and n (columns, rank): learning has that many directions
    Scaled     W = V / gamma: on output weights, divides the outputs, from lazy (small gamma) to rich learning

Training changes V, m and n; everything that is measured is the effective weight W (`networks.matrices_of`). Several
constraints of one weight are applied in the order in which they are registered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from rankscope.errors import InputError
from rankscope.networks.initialization import balanced, dale_signs
from rankscope.validation import RngLike, choice, generator, integer, number


class Dale(nn.Module):
    """Dale's law: the outgoing weights of a unit have one sign.

    Parameters
    ----------
    signs
        (presynaptic units,), 1 for excitatory and -1 for inhibitory units; or the fraction of excitatory units, which
        are then the first ones.
    balanced
        Scale the weights that the constraint is registered on, so that each row sums to zero and the eigenvalues keep
        their radius (see `initialization.balanced`). Otherwise magnitudes are kept, and signs replaced.

    Raises
    ------
    InputError
        If the signs are not a vector of 1 and -1, or the fraction is not between 0 and 1.
    """

    signs: Tensor | None

    def __init__(self, signs: ArrayLike | float = 0.8, balanced: bool = False) -> None:
        super().__init__()
        self.balanced = balanced
        self.fraction: float | None = None
        if isinstance(signs, int | float):
            self.fraction = number("signs", signs, above=0, below=1)
            self.register_buffer("signs", None)
            return
        values = np.asarray(signs)
        if values.ndim != 1 or not np.isin(values, (-1, 1)).all():
            raise InputError(f"signs must be a vector of 1 and -1, got shape {values.shape} with {np.unique(values)}")
        self.register_buffer("signs", torch.as_tensor(values, dtype=torch.float64))

    def forward(self, magnitudes: Tensor) -> Tensor:
        """Return the effective weights."""
        signs = self._signs_of(magnitudes)
        # |magnitudes|, with the slope 1 at 0 instead of 0: otherwise weights of zero, of gain 0, would never learn.
        return magnitudes * torch.where(magnitudes < 0, -signs, signs)

    def right_inverse(self, weights: Tensor) -> Tensor:
        """Return the parameter for given weights."""
        signs = self._signs_of(weights)
        if not self.balanced:
            return weights.abs()
        self.balanced = False  # weights that are assigned later are kept
        W, s = weights.detach().double().cpu().numpy(), signs.double().cpu().numpy()
        return torch.as_tensor(np.abs(balanced(W, s))).to(weights)

    def _signs_of(self, weights: Tensor) -> Tensor:
        if self.signs is None:
            assert self.fraction is not None
            self.signs = torch.as_tensor(dale_signs(self.fraction, weights.shape[-1]), device=weights.device)
        _check_shape("signs", self.signs.shape, weights.shape[-1:])
        if self.signs.dtype != weights.dtype:
            self.signs = self.signs.to(weights)
        return self.signs


class Sparse(nn.Module):
    """A fixed set of connections.

    Parameters
    ----------
    mask
        (postsynaptic, presynaptic), nonzero where a connection exists; or the fraction of connections, drawn by `rng`.
    rng
        Seed or Generator.

    Raises
    ------
    InputError
        If the fraction is not above 0 and at most 1.
    """

    mask: Tensor | None

    def __init__(self, mask: ArrayLike | float, rng: RngLike = 0) -> None:
        super().__init__()
        self.density: float | None = None
        if isinstance(mask, int | float):
            self.density = number("mask", mask, above=0, maximum=1)
            self._rng = generator(rng)
            self.register_buffer("mask", None)
            return
        self.register_buffer("mask", torch.as_tensor(np.asarray(mask) != 0))

    def forward(self, weights: Tensor) -> Tensor:
        """Return the effective weights."""
        if self.mask is None:
            assert self.density is not None
            drawn = self._rng.random(tuple(weights.shape)) < self.density
            self.mask = torch.as_tensor(drawn, device=weights.device)
        _check_shape("mask", self.mask.shape, weights.shape)
        if self.mask.dtype != weights.dtype:
            self.mask = self.mask.to(weights)  # a product with booleans takes twice as long
        return weights * self.mask

    def right_inverse(self, weights: Tensor) -> Tensor:
        """Return the parameter for given weights."""
        return weights


class LowRank(nn.Module):
    """Learning in a few directions.

    Parameters
    ----------
    rank
        Number of directions.
    around
        "initial": W = W0 + m n^T, where W0, the weights that the constraint is registered on, stays as it is. "zero":
        W = m n^T, with the best approximation of the given weights.
    rng
        Seed or Generator of m and n.
    spread
        Standard deviations of the normal entries that m and n start from, times the square root of the number of
        columns. With 0 for m, W starts at W0, and its change has exactly `rank` directions; otherwise up to twice as
        many, as m n^T is not zero at the beginning. Not both may be 0, as neither could learn.

    Raises
    ------
    InputError
        If the rank is not a whole number >= 1, or `spread` is no pair of numbers >= 0, one of them above.
    """

    initial: Tensor | None

    def __init__(
        self,
        rank: int,
        around: Literal["initial", "zero"] = "initial",
        rng: RngLike = 0,
        spread: Sequence[float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        self.rank = integer("rank", rank, minimum=1)
        given: Any = spread
        if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 2:
            raise InputError(f"spread must be two numbers, of m and of n, got {spread!r}")
        self.spread = tuple(number("spread", one, minimum=0) for one in spread)
        if not any(self.spread):
            raise InputError(f"spread must be above 0 for m or for n, or neither could learn, got {spread!r}")
        self.around = choice("around", around, ("initial", "zero"))
        self._rng = generator(rng)
        self.register_buffer("initial", None)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the effective weights."""
        return left @ right.t() if self.initial is None else torch.addmm(self.initial, left, right.t())

    def right_inverse(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the parameters for given weights."""
        rows, columns = weights.shape
        if self.around == "initial":
            self.initial = weights.detach().clone()
            of_m, of_n = self.spread
            right = self._rng.standard_normal((columns, self.rank)) * of_n / math.sqrt(columns)
            if not of_m:
                return weights.new_zeros(rows, self.rank), torch.as_tensor(right).to(weights)
            left = self._rng.standard_normal((rows, self.rank)) * of_m / math.sqrt(columns)
            return torch.as_tensor(left).to(weights), torch.as_tensor(right).to(weights)
        U, s, Vt = torch.linalg.svd(weights, full_matrices=False)
        root = s[: self.rank].sqrt()
        return (U[:, : self.rank] * root).contiguous(), (Vt[: self.rank].t() * root).contiguous()


class Scaled(nn.Module):
    """Weights that are divided by a constant.

    On the output weights: the larger gamma, the further all other weights have to move for the same change of the
    outputs, which leads from lazy to rich learning (Chizat et al. 2019; Bordelon & Pehlevan 2022).

    Parameters
    ----------
    gamma
        The divisor, > 0. The weights that the constraint is registered on keep their value.

    Raises
    ------
    InputError
        If it is not a finite number > 0.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = number("gamma", gamma, above=0)

    def forward(self, parameter: Tensor) -> Tensor:
        """Return the effective weights."""
        return parameter / self.gamma

    def right_inverse(self, weights: Tensor) -> Tensor:
        """Return the parameter for given weights."""
        return weights * self.gamma


def gamma_of(network: object) -> float:
    """Return what the outputs of a network are divided by: the product over `Scaled` of its output weights, or 1."""
    named = getattr(network, "parametrizations", {}).items()
    scaled = (one for name, constraints in named if name == "output_weights" for one in constraints)
    return math.prod(one.gamma for one in scaled if isinstance(one, Scaled))


def constrain(
    network: nn.Module,
    dale: float | None,
    mask: NDArray[np.bool_] | None,
    rank: int | None,
    gamma: float | None,
    rng: RngLike,
    spread: Sequence[float] = (0.0, 1.0),
) -> None:
    """Register the constraints that are not None: W = s |M (W0 + m n^T)|, which W satisfies, and W_out = V / gamma.

    The output weights are divided by gamma first, so that V has their values.
    """
    name = "recurrent_weights"
    if rank is not None:
        register_parametrization(network, name, LowRank(rank, rng=rng, spread=spread))
    if mask is not None:
        register_parametrization(network, name, Sparse(mask))
    if dale is not None:
        register_parametrization(network, name, Dale(dale))
    if gamma is not None:
        scaled = Scaled(gamma)
        with torch.no_grad():
            network.output_weights.div_(scaled.gamma)  # type: ignore[operator]
        register_parametrization(network, "output_weights", scaled)


def _check_shape(name: str, given: torch.Size | tuple[int, ...], expected: torch.Size) -> None:
    if tuple(given) != tuple(expected):
        raise InputError(f"{name} must have shape {tuple(expected)} like the weights, got {tuple(given)}")
