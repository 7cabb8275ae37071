r"""DoRA (Liu et al. 2024): $W = m\,V / |V|$ with $V = W_0 + s B A$, so that the change depends on the base.

The norm is over the inputs of each output (rows of a linear layer or convolution, columns if the weight is stored
(in, out)), and of an embedding over the rows of each dimension (`DoraLinearVariant`, `DoraEmbeddingVariant`,
`_DoraConvNdVariant` in PEFT 0.21).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rankscope.checkpoints.adapters.initial import WithoutInitial
from rankscope.checkpoints.adapters.lora import LowRank
from rankscope.checkpoints.adapters.update import Factors, Update, product
from rankscope.checkpoints.source import Unreadable

MAGNITUDE = "lora_magnitude_vector"
NEEDS_BASE = (
    "DoRA: the factors and magnitudes give a change only with the weights that they rescale; give the base as BEFORE"
)


class Dora(Update):
    """A low-rank change whose rows or columns are rescaled to learned magnitudes."""

    needs_base = NEEDS_BASE

    def __init__(self, inner: LowRank | WithoutInitial, embedding: bool, pieces: dict[str, str]) -> None:
        super().__init__(inner.file, pieces, inner.scale)
        self._inner, self._embedding = inner, embedding

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of the weight."""
        return self._inner.shape

    @property
    def turned(self) -> bool | None:  # type: ignore[override]
        """Whether the weight is stored (in, out)."""
        return self._inner.turned

    def turn(self, turned: bool) -> None:
        """Take the weight as stored (in, out), or not."""
        self._inner.turn(turned)

    @property
    def _by_column(self) -> bool:
        return self._embedding or bool(self.turned)

    def fit(self, shape: tuple[int, ...]) -> str | None:
        """Take the shape of the base's weight."""
        reason = self._inner.fit(shape)
        size = shape[1] if self._by_column else shape[0]
        if reason is None and math.prod(self.piece_shape(MAGNITUDE)) != size:
            return f"DoRA: it has magnitudes {self.piece_shape(MAGNITUDE)} for a weight of {shape}"
        return reason

    def factors(self, W0: Tensor | None = None, expert: int | None = None) -> Factors:
        """Return the change as a whole matrix, and the level of the rounding of the magnitudes."""
        assert W0 is not None
        self.fitted = True
        self.allocates(*self.shape)
        W = W0.double()
        B, A, _ = self._inner.factors(W0)
        V, m = torch.addmm(W, B, A), self.piece(MAGNITUDE).flatten()
        along = 0 if self._by_column else 1
        norm = torch.linalg.vector_norm(V, dim=along)
        if not bool((norm > 0).all()):
            raise Unreadable("DoRA: a row of the base with the factors is zero, and cannot be rescaled")
        after = V * (m / norm).unsqueeze(along)
        # Each magnitude is off by a relative error delta of root mean square eps / sqrt(12). diag(delta) W has no
        # singular value far above |W| sqrt(2 log 2n) eps / sqrt(12), by the matrix Khintchine inequality (Tropp 2012,
        # Theorem 1.5).
        eps = torch.finfo(self.dtype).eps
        level = float(torch.linalg.matrix_norm(after, 2)) * eps / math.sqrt(12) * math.sqrt(2 * math.log(2 * len(m)))
        return product(after - W, level)
