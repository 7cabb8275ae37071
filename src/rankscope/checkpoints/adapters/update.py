"""Interface of a change of one weight, as the tensors of an adapter describe it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from rankscope.checkpoints.dequantize import by
from rankscope.checkpoints.source import Source, Unreadable

LARGEST_DENSE = 2**28
LARGEST_WITHOUT_BASE = 2**24
"""Entries of a change that is not kept as a product: 2 GB in double precision, 128 MB without a base of that size."""


class Factors(NamedTuple):
    """A change as a product: B (rows, r), including the scale, times A (r, columns), in double precision."""

    B: Tensor
    A: Tensor
    rounding: float = (
        0.0  # singular values below this may come from rounding that the type of the factors does not show
    )


class Update(ABC):
    """Change of one weight, or of a stack of weights.

    Parameters
    ----------
    file
        The adapter's tensors.
    pieces
        Names in the file of the tensors of this change, by what they are, such as ``lora_A``.
    scale
        Factor of the product.

    Attributes
    ----------
    shape
        Of the weight; of one that is known only without its kernel, the unfolded matrix.
    dtype
        Type that the tensors are stored in.
    experts
        Number of matrices in a stack (experts, ...), None for a single weight.
    turned
        Whether a weight is stored (in, out), where both are possible; None where there is no choice.
    needs_base
        Reason why there is no change without the base, None if there is.
    """

    needs_base: str | None = None
    fitted = False  # the shape is that of the base
    experts: int | None = None
    turned: bool | None = None
    shape: tuple[int, ...]

    def __init__(self, file: Source, pieces: Mapping[str, str], scale: float) -> None:
        self.file, self.pieces, self.scale = file, pieces, scale
        if not pieces:
            raise Unreadable("the adapter has no factors of it")
        types = {file.entries[name].dtype for name in pieces.values()}
        for kind in types:
            if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
                raise Unreadable(f"the factors are of type {kind}, not numbers")
        # The coarsest type decides about rounding.
        self.dtype = max((k for k in types if isinstance(k, torch.dtype)), key=lambda k: torch.finfo(k).eps)

    def piece(self, name: str) -> Tensor:
        """Return one of the tensors, in double precision."""
        tensor = self.file.tensor(self.pieces[name]).double()
        self.file.release()
        return tensor

    def piece_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one of the tensors."""
        return self.file.entries[self.pieces[name]].shape

    def fit(self, shape: tuple[int, ...]) -> str | None:
        """Take the shape of the base's weight; return the reason why the change does not fit it, or None."""
        rows, columns = self.shape[0], math.prod(self.shape[1:])
        if (shape[0], math.prod(shape[1:])) != (rows, columns):
            return f"its shape is {by(shape)} in the base and {by(self.shape)} in the adapter"
        self.shape, self.fitted = shape, True
        return None

    @property
    def square(self) -> bool:
        """Whether the shape does not show which way the weight is stored."""
        return self.turned is not None and self.shape[-1] == self.shape[-2]

    def turn(self, turned: bool) -> None:
        """Take a weight as stored (in, out), or not."""
        self.turned = turned

    def allocates(self, *shape: int) -> None:
        """Raise `Unreadable` if a tensor of that shape is too large to be made."""
        if math.prod(shape) > (LARGEST_DENSE if self.fitted else LARGEST_WITHOUT_BASE):
            way_out = "" if self.fitted else "; give the base, if it is of that size"
            raise Unreadable(f"its change needs {by(shape)} entries, as it is no product of small factors{way_out}")

    @abstractmethod
    def factors(self, W0: Tensor | None = None, expert: int | None = None) -> Factors:
        """Return the change of a matrix (of one expert).

        Parameters
        ----------
        W0
            The base's weight as a matrix; needed where `needs_base` is not None.
        expert
            Place in a stack.

        Raises
        ------
        Unreadable
            If the tensors cannot be read or combined.
        """


def product(dW: Tensor, rounding: float = 0.0) -> Factors:
    """Return a matrix as the product of itself and the smaller identity."""
    rows, columns = dW.shape
    if columns <= rows:
        return Factors(dW, torch.eye(columns, dtype=dW.dtype), rounding)
    return Factors(torch.eye(rows, dtype=dW.dtype), dW, rounding)
