r"""LoHa and LoKr (Yeh et al. 2023, LyCORIS), by the formulas of PEFT 0.21.

LoHa   $\Delta W = s\,(A_1 B_1) \odot (A_2 B_2)$, of convolutions with a core $T_n$ (r, r, k, k) each
LoKr   $\Delta W = s\,W_1 \otimes W_2$, each whole or the product of two factors, $W_2$ also with a core
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rankscope.checkpoints.adapters.update import Factors, Update, product
from rankscope.checkpoints.source import Source, Unreadable

LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


class LoHa(Update):
    """An elementwise product of two products."""

    def __init__(self, file: Source, pieces: Mapping[str, str], scale: float) -> None:
        super().__init__(file, pieces, scale)
        if missing := [name for name in LOHA if name not in pieces]:
            raise Unreadable(f"the adapter has no {missing[0]} of its four factors")
        shapes = [self.piece_shape(name) for name in LOHA]
        if any(len(shape) != 2 or 0 in shape for shape in shapes):
            raise Unreadable(f"the factors do not fit together: {shapes}")
        self._cores = "hada_t1" in pieces and "hada_t2" in pieces
        a1, b1, a2, b2 = shapes
        if self._cores:
            cores = [self.piece_shape(name) for name in ("hada_t1", "hada_t2")]
            fits = all(len(t) == 4 and t[:2] == (a[0], b[0]) for t, a, b in zip(cores, (a1, a2), (b1, b2), strict=True))
            fits = fits and a1[1] == a2[1] and b1[1] == b2[1] and cores[0][2:] == cores[1][2:]
            shape = (a1[1], b1[1], *cores[0][2:])
        else:
            fits = a1[1] == b1[0] and a2[1] == b2[0] and a1[0] == a2[0] and b1[1] == b2[1]
            shape = (a1[0], b1[1])
        if not fits:
            raise Unreadable(f"the factors do not fit together: {shapes}")
        self.shape = shape
        self.rank = a1[0] if self._cores else a1[1]

    def factors(self, W0: Tensor | None = None, expert: int | None = None) -> Factors:
        """Return the change; the elementwise product of ranks r and q is a product of rank r q."""
        a1, b1, a2, b2 = (self.piece(name) for name in LOHA)
        if self._cores:
            self.allocates(max(self.rank, self.shape[0]), *self.shape[1:])
            one, two = (
                torch.einsum("ijkl,jq,ip->pqkl", self.piece(t), b, a)
                for t, a, b in (("hada_t1", a1, b1), ("hada_t2", a2, b2))
            )
            return product((one * two * self.scale).flatten(1))
        inner, smaller = a1.shape[1] * a2.shape[1], min(len(a1), b1.shape[1])
        if inner >= smaller:
            self.allocates(*self.shape)
            return product((a1 @ b1) * (a2 @ b2) * self.scale)
        B = (a1[:, :, None] * a2[:, None, :]).flatten(1)
        return Factors(B * self.scale, (b1[:, None, :] * b2[None, :, :]).flatten(0, 1))


class LoKr(Update):
    """A Kronecker product."""

    def __init__(self, file: Source, pieces: Mapping[str, str], scale: float) -> None:
        super().__init__(file, pieces, scale)
        first = self._size("lokr_w1", None)
        second = self._size("lokr_w2", "lokr_t2")
        if len(first) != 2:
            raise Unreadable(f"the factors do not fit together: the first is {first}")
        self.shape = (first[0] * second[0], first[1] * second[1], *second[2:])

    def _size(self, name: str, core: str | None) -> tuple[int, ...]:
        """Return the shape of one of the two matrices, which is whole or in factors."""
        if name in self.pieces:
            shape = self.piece_shape(name)
            if len(shape) < 2 or len(shape) > 4 or 0 in shape:
                raise Unreadable(f"{name} has the shape {shape}")
            return shape
        if f"{name}_a" not in self.pieces or f"{name}_b" not in self.pieces:
            raise Unreadable(f"the adapter has no {name}, and not both factors of it")
        a, b = self.piece_shape(f"{name}_a"), self.piece_shape(f"{name}_b")
        t = self.piece_shape(core) if core in self.pieces and core is not None else None
        fits = len(a) == len(b) == 2 and 0 not in (*a, *b)
        if fits and t is None and a[1] == b[0]:
            return a[0], b[1]
        if fits and t is not None and len(t) == 4 and t[:2] == (a[0], b[0]):
            return (a[1], b[1], *t[2:])
        raise Unreadable(f"the factors of {name} do not fit together: {a}, {b}")

    def factors(self, W0: Tensor | None = None, expert: int | None = None) -> Factors:
        """Return the change; of a second matrix in two factors, as a product with as few columns."""
        one = self._whole("lokr_w1")
        rows, columns = self.shape[0], math.prod(self.shape[1:])
        if "lokr_w2" not in self.pieces and "lokr_t2" not in self.pieces:
            a, b = self.piece("lokr_w2_a"), self.piece("lokr_w2_b")
            inner = one.shape[1] * a.shape[1]
            if inner < min(rows, columns):
                self.allocates(max(rows, columns), inner)
                eye = torch.eye(one.shape[1], dtype=torch.float64)
                return Factors(torch.kron(one, a) * self.scale, torch.kron(eye, b))
        rank = self.piece_shape("lokr_t2")[0] if "lokr_t2" in self.pieces else 1
        self.allocates(max(rank, rows), columns)
        two = self._whole("lokr_w2")
        if two.ndim == 4:
            one = one[:, :, None, None]
        one, two = one.contiguous(), two.contiguous()  # torch.kron views its arguments
        # PEFT takes the same product for a kernel of one dimension, where torch.kron pairs other dimensions.
        return product((torch.kron(one, two) * self.scale).reshape(rows, columns))

    def _whole(self, name: str) -> Tensor:
        if name in self.pieces:
            return self.piece(name)
        a, b = self.piece(f"{name}_a"), self.piece(f"{name}_b")
        if name == "lokr_w2" and "lokr_t2" in self.pieces:
            return torch.einsum("ijkl,ip,jr->prkl", self.piece("lokr_t2"), a, b)
        return a @ b


class Difference(Update):
    """A change that is stored as a whole, (out, in, ...)."""

    def __init__(self, file: Source, pieces: Mapping[str, str]) -> None:
        super().__init__(file, pieces, 1.0)
        self.shape = self.piece_shape("diff")
        if len(self.shape) < 2 or 0 in self.shape:
            raise Unreadable(f"its difference has the shape {self.shape}, and is no matrix")

    def factors(self, W0: Tensor | None = None, expert: int | None = None) -> Factors:
        """Return the change and an identity."""
        self.allocates(*self.shape)
        return product(self.piece("diff").flatten(1))


def lycoris_rank(file: Source, pieces: Mapping[str, str]) -> int | None:
    """Return the rank of a LoHa or LoKr change; None of a LoKr change without factors."""
    for name in ("hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
        if name in pieces and file.entries[pieces[name]].shape:
            return file.entries[pieces[name]].shape[0]
    return None
