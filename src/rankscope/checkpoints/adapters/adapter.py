"""An adapter as a checkpoint: the changes of weights that are known without a base, or from it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from rankscope.checkpoints.adapters.update import Factors, Update
from rankscope.checkpoints.source import Entry, Source, Unreadable

AMBIGUOUS = "a square matrix, of which it is not known whether it is stored (out, in) or (in, out)"
COPIED = (
    "the adapter has its own copy of this weight of the base, which is not that of BEFORE (a resized vocabulary, for "
    "example); compare the merged models"
)


class Adapter(Source):
    """Changes of weights; `entries` are the weights that are changed, with their shapes.

    Attributes
    ----------
    replaced
        Weights that are stored as a whole (PEFT's `modules_to_save`), and their names in the file.
    skipped
        Weights whose change cannot be computed, and the reason.
    unfit
        Weights whose change does not fit the base that was given to `fit`, and the reason.
    """

    note: str | None = None  # what a reader of a table of these changes has to know

    def __init__(self, file: Source, label: str) -> None:
        self.label = label
        self._file = file
        self._updates: dict[str, Update] = {}
        self._copies: dict[str, str] = {}
        self.replaced: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.unfit: dict[str, str] = {}

    @property
    def entries(self) -> Mapping[str, Entry]:  # type: ignore[override]
        """Weights that are changed or replaced."""
        changed = {name: Entry(update.shape, update.dtype) for name, update in self._updates.items()}
        return changed | {name: self._file.entries[stored] for name, stored in self.replaced.items()}

    def resolve(self, base: Mapping[str, Entry]) -> None:
        """Find out which weights of a base are changed, where the adapter alone does not show it."""

    def alone(self) -> dict[str, str]:
        """Return the weights whose change is not known without a base, and the reason."""
        return {name: update.needs_base for name, update in self._updates.items() if update.needs_base}

    def fit(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
        """Take the shapes of the base's weights, by the adapter's names; return those that do not fit, with reasons."""
        known = {name: shape for name, shape in shapes.items() if name in self._updates}
        reasons = {name: reason for name, shape in known.items() if (reason := self._updates[name].fit(shape))}
        self.unfit = reasons | self._turn_squares([name for name in known if name not in reasons])
        return self.unfit

    def _turn_squares(self, names: list[str]) -> dict[str, str]:
        """Take square weights as stored like others of the same kind; return those for which this is not known."""
        ways: dict[str | None, set[bool | None]] = {}
        for name in names:
            update = self._updates[name]
            if update.turned is not None and not update.square:
                for kind in (_kind(name, update), None if update.experts is None else "experts"):
                    ways.setdefault(kind, set()).add(update.turned)
        reasons = {}
        for name in names:
            update = self._updates[name]
            if not update.square:
                continue
            alike = ways.get(_kind(name, update), set())
            if update.experts is None and not alike:
                alike = ways.get(None, {update.turned})
            if len(alike) == 1:
                update.turn(bool(*alike))
            else:
                reasons[name] = AMBIGUOUS
        return reasons

    def is_update(self, name: str) -> bool:
        """Return whether a weight is changed, and not replaced as a whole."""
        return name in self._updates

    def experts(self, name: str) -> int | None:
        """Return the number of matrices in a stack that is changed, None of a single weight."""
        return self._updates[name].experts

    def factors(self, name: str, W0: Tensor | None = None, expert: int | None = None) -> Factors:
        """Return the factors of the change of `name`, in double precision.

        Parameters
        ----------
        W0
            The base's weight as a matrix, where there is one.
        expert
            Place in a stack of matrices.

        Raises
        ------
        Unreadable
            If they need the base or cannot be computed.
        """
        update = self._updates[name]
        if update.needs_base and W0 is None:
            raise Unreadable(update.needs_base)
        if W0 is not None and name in self._copies:
            copy = self._file.tensor(self._copies[name])
            if copy.shape != W0.shape or not torch.equal(W0.to(copy.dtype), copy):
                raise Unreadable(COPIED)
        try:
            found = update.factors(W0, expert)
        except (RuntimeError, ValueError) as error:
            raise Unreadable(f"its factors cannot be combined: {error!s:.200}") from error
        shape = update.shape if expert is None else update.shape[1:]
        rows, columns = shape[0], math.prod(shape[1:])
        if found.B.shape[1:] != found.A.shape[:1] or (found.B.shape[0], found.A.shape[-1]) != (rows, columns):
            raise Unreadable(
                f"its factors {tuple(found.B.shape)}, {tuple(found.A.shape)} do not give the shape {shape}"
            )
        return found

    def update(self, name: str) -> Update:
        """Return the change of a weight that is not replaced as a whole."""
        return self._updates[name]

    def reference_norm(self, name: str, expert: int | None, rows: slice, columns: slice) -> float | None:
        """Return what norms are relative to where there is no base; None for an adapter alone."""
        return None

    def dtype(self, name: str) -> torch.dtype:
        """Return the type that the tensors of a change are stored in."""
        return self._updates[name].dtype

    def changed(self, name: str, W0: Tensor) -> Tensor:
        """Return a weight of the base with the change, in double precision; `fit` was given its shape."""
        update = self._updates[name]
        matrices = W0 if update.experts else W0.reshape(1, W0.shape[0], -1)
        changed = [
            matrix.double() + product.B @ product.A
            for expert, matrix in enumerate(matrices)
            for product in [self.factors(name, matrix, expert if update.experts else None)]
        ]
        return torch.stack(changed).reshape(W0.shape)

    def tensor(self, name: str) -> Tensor:
        """Return a weight that is stored whole."""
        return self._file.tensor(self.replaced[name])

    def release(self) -> None:
        """Close the file."""
        self._file.release()

    def _add(self, name: str, update: Update) -> None:
        """Add a change; two of the same weight are left out."""
        if name in self._updates or name in self.skipped:
            self._skip([name], "the adapter has two changes of it")
        else:
            self._updates[name] = update

    def _skip(self, names: Iterable[str], reason: str) -> None:
        for name in names:
            self._updates.pop(name, None)
            self.skipped[name] = reason


def _kind(name: str, update: Update) -> str:
    """Return what weights have in common that are stored the same way: stacks the module, others the last name."""
    if update.experts is None:
        return name.removesuffix(".weight").rpartition(".")[2]
    return re.sub(r"\d+", "", name.rpartition(".")[0])
