r"""LoRA (Hu et al. 2021): $\Delta W = s B A$ of linear layers, convolutions and embeddings; AdaLoRA; Tucker form.

linear        B (out, r), A (r, in)
convolution   B (out, r, 1, ...), A (r, in, k, ...); with a kernel in the middle M (r, r, k, ...), both are 1 x 1
embedding     B (dim, r), A (r, rows), and the weight is (rows, dim)
AdaLoRA       B diag(E) A with E (r, 1) (Zhang et al. 2023)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rankscope.checkpoints.adapters.update import Factors, Update
from rankscope.checkpoints.dequantize import by
from rankscope.checkpoints.source import Source, Unreadable

GROUPED = (
    "a convolution in groups: the adapter connects every group to all inputs, for which the base's weight has no place"
)


class LowRank(Update):
    """Two factors; `transposed` if the weight is stored (in, out)."""

    def __init__(self, file: Source, pieces: Mapping[str, str], scale: float, transposed: bool = False) -> None:
        super().__init__(file, pieces, scale)
        self.embedding = "lora_embedding_A" in pieces
        self.sides = ("lora_embedding_B", "lora_embedding_A") if self.embedding else ("lora_B", "lora_A")
        for side in self.sides:
            if side not in pieces:
                raise Unreadable(f"the adapter has only {next(iter(pieces))} of its two factors")
        B, A = (self.piece_shape(side) for side in self.sides)
        self.rank = A[0] if A else 0
        if len(A) > 2 and len(B) > 2 and B[1] and A[0] % B[1] == 0 and B[1] < A[0] and "lora_mid" not in pieces:
            raise Unreadable(GROUPED)
        kernel = self._kernel(A)
        if not _fit_together(A, B) or ("lora_E" in pieces and self.piece_shape("lora_E") != (self.rank, 1)):
            raise Unreadable(f"the factors do not fit together: B {B}, A {A}")
        self.turned = None if self.embedding or len(A) > 2 else transposed
        self._own = (B[0], A[1], *kernel)
        self.shape = self._own[::-1] if self.embedding or self.turned else self._own

    def fit(self, shape: tuple[int, ...]) -> str | None:
        """Take the shape of the base's weight, and from it whether the factors are transposed."""
        if self.turned is not None and len(shape) > 2:
            self.turned, self.shape = None, self._own  # a convolution, whose factors AdaLoRA stores unfolded
        reason = super().fit(shape)
        if reason is None or self.turned is None or shape != self.shape[::-1]:
            return reason
        # `fan_in_fan_out` holds for all layers, but PEFT sets it for each by the kind of the layer.
        self.turned, self.shape, self.fitted = not self.turned, shape, True
        return None

    def factors(self, W0: Tensor | None = None, expert: int | None = None) -> Factors:
        """Return B, including the scale, and A."""
        B, A = (self.piece(side).flatten(1) if side != "lora_A" else self._second() for side in self.sides)
        if "lora_E" in self.pieces:
            B = B * self.piece("lora_E").flatten()
        B = B * self.scale
        return Factors(A.t(), B.t()) if self.embedding or self.turned else Factors(B, A)

    def _kernel(self, A: tuple[int, ...]) -> tuple[int, ...]:
        if "lora_mid" not in self.pieces:
            return A[2:]
        M = self.piece_shape("lora_mid")
        if len(M) < 3 or M[:2] != (self.rank, self.rank) or math.prod(A[2:]) != 1:
            raise Unreadable(f"the factors do not fit together: the one in the middle {M}, A {A}")
        return M[2:]

    def _second(self) -> Tensor:
        A = self.piece("lora_A")
        if "lora_mid" not in self.pieces:
            return A.flatten(1)
        # LyCORIS, `rebuild_tucker`: sum_ij M[i, j, k] B[p, i] A[j, q].
        self.allocates(self.rank, *self.piece_shape("lora_A")[1:2], *self.piece_shape("lora_mid")[2:])
        M = self.piece("lora_mid").flatten(2)
        return torch.einsum("ijk,jq->iqk", M, A.flatten(1)).flatten(1)


def _fit_together(A: tuple[int, ...], B: tuple[int, ...]) -> bool:
    """Return whether B (out, rank), or (out, rank, 1, 1) of a convolution, and A (rank, in, ...) have a product."""
    return len(A) > 1 and len(B) > 1 and B[1] == A[0] and math.prod(B[2:]) == 1 and 0 not in (*A, *B)


def joined(updates: list[Factors]) -> Factors:
    """Return the sum of changes as one product."""
    return Factors(
        torch.cat([one.B for one in updates], dim=1),
        torch.cat([one.A for one in updates], dim=0),
        max(one.rounding for one in updates),
    )


class Experts(LowRank):
    r"""Factors for a stack of experts, or for a matrix that is a parameter of its own (PEFT's `target_parameters`).

    A (E r, in) holds the experts one after the other, the columns of B (out, E r) the directions one after the other
    with the experts side by side (`ParamWrapper.get_delta_weight` in PEFT 0.21):
    $\Delta W_e = s\,B[:, e::E]\,A[e r : (e + 1) r]$.
    """

    def __init__(self, file: Source, pieces: Mapping[str, str], scale: float, count: int) -> None:
        super().__init__(file, pieces, scale)
        if self.rank % count or len(self.shape) != 2:
            raise Unreadable(f"its {self.rank} rows of A are not those of {count} experts")
        self._count = count
        self.out, self.inputs = self.shape
        self.turned = False if count > 1 else None
        if count > 1:
            self.experts, self.shape = count, (count, self.out, self.inputs)

    def fit(self, shape: tuple[int, ...]) -> str | None:
        """Take the shape of the stack: (experts, out, in) or (experts, in, out)."""
        if self.experts is None:
            return super().fit(shape)
        ways = [way for way in (False, True) if shape == self._stack(way)]
        if not ways:
            return f"its shape is {by(shape)} in the base and {by(self.shape)} in the adapter"
        self.turned, self.shape = ways[0], shape
        return None

    def _stack(self, turned: bool) -> tuple[int, ...]:
        return (self._count, self.inputs, self.out) if turned else (self._count, self.out, self.inputs)

    def factors(self, W0: Tensor | None = None, expert: int | None = None) -> Factors:
        """Return the factors of one expert."""
        if self.experts is None:
            return super().factors()
        assert expert is not None
        r = self.rank // self._count
        B = self.piece("lora_B").flatten(1)[:, expert :: self._count] * self.scale
        A = self.piece("lora_A")[expert * r : (expert + 1) * r]
        return Factors(A.t(), B.t()) if self.turned else Factors(B, A)
