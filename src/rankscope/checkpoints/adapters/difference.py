"""Two adapters of one base against each other: dW2 - dW1 of each weight, as factors of rank r1 + r2."""

from __future__ import annotations

import torch
from torch import Tensor

from rankscope.checkpoints.adapters.adapter import AMBIGUOUS, Adapter
from rankscope.checkpoints.adapters.lora import joined
from rankscope.checkpoints.adapters.update import Factors, Update
from rankscope.checkpoints.names import match
from rankscope.checkpoints.source import Unreadable

NOTE = "changes from the first adapter to the second; columns relative to W0 are relative to the first adapter's change"
REPLACED = "replaced as a whole; compare the merged models"


class Difference(Update):
    """The change from one adapter to another; one of the two may leave the weight as it is."""

    def __init__(self, first: Update | None, second: Update | None) -> None:
        one, *others = [update for update in (first, second) if update is not None]
        for other in others:
            if one.experts != other.experts:
                raise Unreadable("a stack of experts in one of the two adapters only")
            if reason := other.fit(one.shape):
                raise Unreadable(reason.replace("in the base", "in the first adapter"))
            if one.square and other.square and one.turned != other.turned:
                raise Unreadable(AMBIGUOUS)
        self.first, self.second = first, second
        self.shape, self.experts = one.shape, one.experts
        self.dtype = max((one.dtype, *(other.dtype for other in others)), key=lambda kind: torch.finfo(kind).eps)

    def factors(self, W0: Tensor | None = None, expert: int | None = None) -> Factors:
        """Return B and A of dW2 - dW1; exactly zero for equal factors."""
        found = [None if one is None else one.factors(None, expert) for one in (self.first, self.second)]
        first, second = found
        if first is None or second is None:
            only = first or second
            assert only is not None
            return only if first is None else only._replace(B=-only.B)
        if all(
            one.shape == two.shape and torch.equal(one, two) for one, two in zip(first[:2], second[:2], strict=True)
        ):
            return Factors(torch.zeros_like(first.B), first.A)
        # The rounding of the factors is that of both changes, which may be much larger than their difference.
        eps = torch.finfo(self.dtype).eps
        level = eps * sum(
            float(torch.linalg.matrix_norm(one.B) * torch.linalg.matrix_norm(one.A)) for one in found if one
        )
        difference = joined([second, first._replace(B=-first.B)])
        return difference._replace(rounding=max(difference.rounding, level))

    def reference(self, expert: int | None) -> Factors | None:
        """Return the change of the first adapter, None if it does not change the weight."""
        return None if self.first is None else self.first.factors(None, expert)


class AdapterDifference(Adapter):
    """What changes from one adapter to another one of the same base; changes that need the base are left out."""

    note = NOTE

    def __init__(self, first: Adapter, second: Adapter) -> None:
        super().__init__(second, second.label)
        self._both = (first, second)
        for adapter in self._both:
            reasons = adapter.skipped | adapter.alone() | dict.fromkeys(adapter.replaced, REPLACED)
            self.skipped |= {name: f"in {adapter.label}: {reason}" for name, reason in reasons.items()}
        for mine, theirs in match(first.entries, second.entries).pairs:
            name = theirs or mine or ""
            if mine in self.skipped or theirs in self.skipped:
                continue
            try:
                old = None if mine is None else first.update(mine)
                self._updates[name] = Difference(old, None if theirs is None else second.update(theirs))
            except Unreadable as error:
                self.skipped[name] = str(error)

    def reference_norm(self, name: str, expert: int | None, rows: slice, columns: slice) -> float | None:
        """Return the norm of the change of the first adapter, or of a block of it."""
        update = self._updates[name]
        assert isinstance(update, Difference)
        change = update.reference(expert)
        if change is None:
            return None
        B, A = change.B[rows], change.A[:, columns]
        return float(((B.t() @ B) * (A @ A.t())).sum().clamp_min(0).sqrt())

    def release(self) -> None:
        """Close the files of both."""
        for adapter in self._both:
            adapter.release()
