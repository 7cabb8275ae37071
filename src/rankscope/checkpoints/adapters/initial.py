r"""Adapters whose factors begin with a piece of the base, such as PiSSA: the change is $s B A - s B_0 A_0$.

PEFT subtracts $s B_0 A_0$ from the base when it makes such an adapter, and again when it loads one. The initial factors
are

    pissa    the r leading directions of W0, $s B_0 A_0 = U_r S_r V_r^T$ (Meng et al. 2024)
    olora    the first r columns of the QR decomposition, $B_0 = Q_r$, $A_0 = R_r$ (Büyükakyüz 2024)

so that the base gives them. Those of other kinds (`pissa_niter_N`, `corda`, `lora_ga`, `loftq`) depend on random
numbers or data, and are read from a folder of the initial adapter.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from rankscope.checkpoints.adapters.lora import LowRank, joined
from rankscope.checkpoints.adapters.update import Factors, Update
from rankscope.checkpoints.source import Unreadable

FROM_BASE = ("pissa", "olora")

ALIKE = 0.5
"""Cosine between trained and initial product below which they do not belong together."""


class WithoutInitial(Update):
    """Factors minus the initial ones, which are computed from the base or given."""

    def __init__(self, trained: LowRank, kind: str, start: LowRank | None = None) -> None:
        super().__init__(trained.file, trained.pieces, trained.scale)
        self._trained, self._kind, self._start = trained, kind, start
        self._known: tuple[Tensor, Factors] | None = None
        if start is None:
            if kind not in FROM_BASE:
                raise Unreadable(
                    f"the factors hold a piece of the base (init_lora_weights {kind!r:.50}), and the initial factors "
                    "are not there; save the adapter with path_initial_model_for_weight_conversion, or put the folder "
                    "of the initial adapter, named like 'pissa_init', beside it"
                )
            self.needs_base = (
                f"the factors hold a piece of the base (init_lora_weights {kind!r}); give the base as BEFORE, from "
                "which the initial factors follow"
            )

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of the weight."""
        return self._trained.shape

    @property
    def turned(self) -> bool | None:  # type: ignore[override]
        """Whether the weight is stored (in, out)."""
        return self._trained.turned

    def turn(self, turned: bool) -> None:
        """Take the weight as stored (in, out), or not."""
        self._trained.turn(turned)
        if self._start is not None:
            self._start.turn(turned)

    def fit(self, shape: tuple[int, ...]) -> str | None:
        """Take the shape of the base's weight."""
        if self._start is not None:
            self._start.fit(shape)
        return self._trained.fit(shape)

    def factors(self, W0: Tensor | None = None, expert: int | None = None) -> Factors:
        """Return the difference as one product of rank 2 r."""
        trained = self._trained.factors()
        if self._start is not None:
            start = self._start.factors()
        else:
            assert W0 is not None
            if self._known is None or not torch.equal(self._known[0], W0):  # once for all heads of a weight
                self._known = W0, self._from_base(W0)
            start = self._known[1]
        cosine = _inner(trained, start) / max((_inner(trained, trained) * _inner(start, start)) ** 0.5, 1e-300)
        if not cosine > ALIKE:
            raise Unreadable(
                f"the initial factors ({self._kind}) have a cosine of {cosine:.2f} with the trained ones: BEFORE must "
                "be the model from which the adapter was made, not the residual model or another one"
            )
        return joined([trained, Factors(-start.B, start.A, start.rounding)])

    def _from_base(self, W0: Tensor) -> Factors:
        W, r = (W0.double().t() if self._trained.turned else W0.double()), self._trained.rank
        # PEFT stores the initial factors in the type of the base, and single precision at best.
        coarsest = max(torch.finfo(W0.dtype).eps if W0.dtype.is_floating_point else 0.0, torch.finfo(torch.float32).eps)
        if self._kind == "olora":
            if self._trained.turned:
                raise Unreadable("OLoRA of a weight that is stored (in, out) is not defined in PEFT")
            Q, R = torch.linalg.qr(W)
            return Factors(Q[:, :r] * self.scale, R[:r], coarsest * float(torch.linalg.matrix_norm(R[:r])))
        U, S, Vt = torch.linalg.svd(W, full_matrices=False)
        B, A = U[:, :r] * S[:r], Vt[:r]
        return Factors(*((A.t(), B.t()) if self._trained.turned else (B, A)), coarsest * float(S[0]))


def _inner(one: Factors, two: Factors) -> float:
    """Return the inner product of two changes."""
    return float(((one.B.t() @ two.B) * (one.A @ two.A.t())).sum())


def initial_folder(folder: Path, config: str, weights: str) -> Path | None:
    """Return the folder in `folder` or beside it that holds the initial adapter; None unless there is exactly one.

    PEFT's examples name it `pissa_init` and so on.
    """
    for place in (folder, folder.resolve().parent):
        try:
            found = sorted(
                one
                for one in place.iterdir()
                if one.name.endswith("_init") and (one / config).is_file() and (one / weights).is_file()
            )
        except OSError:
            continue
        if found:
            return found[0] if len(found) == 1 else None
    return None
