"""What a training leaves behind: its losses and gradient norms, and how the change of the weights unfolded.

Losses and gradient norms are kept for every epoch; singular values of W - W0 at some two hundred of them, as they
were *before* that epoch's update; eigenvalues of W and the weights themselves only when asked for. A rate network has
one matrix W that is looked at; other networks may have several, each with a record of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from rankscope.errors import InputError
from rankscope.linalg import leading_eigenvalues, leading_singular_values
from rankscope.validation import choice, integer

Status = Literal["finished", "stopped", "diverged", "exhausted"]


@dataclass(frozen=True, eq=False)
class MatrixHistory:
    """The record of one matrix, at the recorded epochs.

    Attributes
    ----------
    singular_values
        (records, k) leading singular values of W - W0.
    eigenvalues
        (records, k) eigenvalues of W with the largest real parts, or None where none were recorded.
    weights
        (records, rows, columns) W itself, or None unless it was asked for.
    """

    singular_values: NDArray[np.float64]
    eigenvalues: NDArray[np.complex128] | None
    weights: NDArray[np.float64] | NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class History:
    """The record of one training.

    Attributes
    ----------
    losses, gradient_norms
        (epochs,) as far as the training went. The loss of an epoch is that of its batch before its update;
        the norm is the Euclidean norm over all trained parameters, before clipping.
    recorded_epochs
        (records,) epochs at which the matrices were looked at, before the update.
    matrices
        What was seen of each recorded matrix, by its name in the network.
    singular_values
        (records, k) leading singular values of the recurrent W - W0; of the first recorded matrix, if there are more.
    eigenvalues
        (records, k) eigenvalues of the same W with the largest real parts, or None where none were recorded.
    weights
        (records, N, N) the same W, or None unless it was asked for.
    status
        "finished"; "stopped" early as asked; "diverged" (the last loss or gradient is not finite, and the
        network keeps its weights from before that epoch); "exhausted" (the iterable of trials ended).
    learning_rate
        Of the optimizer; times the epoch it is the learning time.
    seconds
        Wall time spent training, over all continuations.
    """

    losses: NDArray[np.float64]
    gradient_norms: NDArray[np.float64]
    recorded_epochs: NDArray[np.int64]
    matrices: Mapping[str, MatrixHistory]
    status: Status
    learning_rate: float
    seconds: float

    def __repr__(self) -> str:
        ends = f"{self.losses[0]:.4g} to {self.losses[-1]:.4g}" if self.epochs else "none"
        records = f"{len(self.recorded_epochs)} records of {', '.join(self.matrices)}"
        return f"History({self.status}, {self.epochs} epochs, losses {ends}, {records})"

    @property
    def singular_values(self) -> NDArray[np.float64]:
        """Those of the first recorded matrix."""
        return self._first.singular_values

    @property
    def eigenvalues(self) -> NDArray[np.complex128] | None:
        """Those of the first recorded matrix."""
        return self._first.eigenvalues

    @property
    def weights(self) -> NDArray[np.float64] | NDArray[np.float32] | None:
        """Those of the first recorded matrix."""
        return self._first.weights

    @property
    def epochs(self) -> int:
        """Number of epochs that were run."""
        return len(self.losses)

    @property
    def diverged_epoch(self) -> int | None:
        """The epoch whose loss or gradient was not finite, or None."""
        return self.epochs - 1 if self.status == "diverged" else None

    def to_dataset(self, matrix: str | None = None) -> xr.Dataset:
        """Return the record as a Dataset over `epoch`, `record`, `leading_index` and `leading_eigenvalue`.

        Parameters
        ----------
        matrix
            Of which recorded matrix; by default the first.

        Raises
        ------
        InputError
            If no matrix of this name was recorded.
        """
        seen = self._first if matrix is None else self.matrices[choice("matrix", matrix, self.matrices)]
        variables: dict[str, tuple[tuple[str, ...], object, dict[str, str]]] = {
            "learning_rate": ((), self.learning_rate, {"long_name": "learning rate"}),
            "loss": (("epoch",), self.losses, {"long_name": "loss"}),
            "gradient_norm": (("epoch",), self.gradient_norms, {"long_name": "gradient norm"}),
            "singular_value_history": (
                ("record", "leading_index"),
                seen.singular_values,
                {"long_name": "singular value of the change of the recurrent weights"},
            ),
        }
        if seen.eigenvalues is not None:
            for part, word in (("real", "real"), ("imag", "imaginary")):
                variables[f"eigenvalue_{part}_history"] = (
                    ("record", "leading_eigenvalue"),
                    getattr(seen.eigenvalues, part),
                    {"long_name": f"{word} part of the eigenvalue of the recurrent weights"},
                )
        if seen.weights is not None:
            variables["recurrent_weights_history"] = (
                ("record", "postsynaptic", "presynaptic"),
                seen.weights,
                {"long_name": "recurrent weights"},
            )
        coordinates: dict[str, object] = {
            "epoch": np.arange(self.epochs),
            "recorded_epoch": ("record", self.recorded_epochs, {"long_name": "epoch of the record"}),
            "leading_index": np.arange(1, seen.singular_values.shape[1] + 1),
        }
        if seen.eigenvalues is not None:
            coordinates["leading_eigenvalue"] = np.arange(1, seen.eigenvalues.shape[1] + 1)
        attributes = {"status": self.status, "training_seconds": self.seconds}
        return xr.Dataset(variables, coordinates, attributes)

    @property
    def _first(self) -> MatrixHistory:
        return next(iter(self.matrices.values()))


@dataclass
class MatrixRecords:
    """What is seen of one matrix while its history grows."""

    initial: Tensor
    singular_values: list[Tensor] = field(default_factory=list)
    eigenvalues: list[Tensor] = field(default_factory=list)  # (k, 2): real and imaginary parts, which files can hold
    weights: list[Tensor] = field(default_factory=list)

    @property
    def is_square(self) -> bool:
        """Whether the matrix has eigenvalues."""
        return self.initial.shape[0] == self.initial.shape[1]


@dataclass
class Records:
    """A history while it grows."""

    matrices: dict[str, MatrixRecords]
    schedule: frozenset[int]
    singular_count: int
    keep_weights: bool
    eigenvalue_count: int = 0
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    recorded_epochs: list[int] = field(default_factory=list)

    def look_at(self, epoch: int, matrices: Mapping[str, Tensor]) -> None:
        """Record the matrices as they are now, if this is one of the epochs to record."""
        if epoch not in self.schedule:
            return
        self.recorded_epochs.append(epoch)
        for name, seen in self.matrices.items():
            now = matrices[name].detach()
            change = now - seen.initial
            # The sum of finite numbers may overflow, but mostly it settles the matter, in a tenth of the time.
            if bool(torch.isfinite(change.sum())) or bool(torch.isfinite(change).all()):
                leading = leading_singular_values(change, self.singular_count).cpu()
            else:
                # Weights that are not finite: the loss of this epoch is about to say so.
                leading = torch.full((min(self.singular_count, *change.shape),), torch.nan, dtype=change.dtype)
            seen.singular_values.append(leading)
            if self.eigenvalue_count and seen.is_square:
                seen.eigenvalues.append(torch.view_as_real(leading_eigenvalues(now, self.eigenvalue_count)))
            if self.keep_weights:
                seen.weights.append(now.cpu().clone())

    def forget_from(self, epoch: int) -> None:
        """Drop looks at this epoch and later ones, which an interruption cut short."""
        while self.recorded_epochs and self.recorded_epochs[-1] >= epoch:
            self.recorded_epochs.pop()
        for seen in self.matrices.values():
            for rows in (seen.singular_values, seen.eigenvalues, seen.weights):
                del rows[len(self.recorded_epochs) :]

    def finish(self, status: Status, learning_rate: float, seconds: float) -> History:
        """Return the record as arrays."""
        return History(
            losses=np.array(self.losses, dtype=np.float64),
            gradient_norms=np.array(self.gradient_norms, dtype=np.float64),
            recorded_epochs=np.array(self.recorded_epochs, dtype=np.int64),
            matrices={name: self._seen(seen) for name, seen in self.matrices.items()},
            status=status,
            learning_rate=learning_rate,
            seconds=seconds,
        )

    def _seen(self, seen: MatrixRecords) -> MatrixHistory:
        k = min(self.singular_count, *seen.initial.shape)
        return MatrixHistory(
            singular_values=(
                torch.stack(seen.singular_values).double().numpy() if seen.singular_values else np.empty((0, k))
            ),
            eigenvalues=torch.view_as_complex(torch.stack(seen.eigenvalues)).numpy() if seen.eigenvalues else None,
            weights=torch.stack(seen.weights).numpy() if seen.weights else None,
        )


def record_schedule(epochs: int, wanted: int | Sequence[int] | None, hidden_size: int = 256) -> frozenset[int]:
    """Return the epochs to record: the given ones, or so many evenly spaced ones.

    None means 200, but no more than every seventh epoch (every tenth above 256 units, where singular values grow dearer
    faster than epochs do), which keeps the recording below a tenth of the training time.

    Raises
    ------
    InputError
        If a number of records is negative, or an epoch is outside the training.
    """
    if wanted is None:
        spacing = 7 if hidden_size <= 256 else 10
        wanted = min(200, -(-epochs // spacing))
    given: object = wanted
    if isinstance(given, Iterable) and not isinstance(given, str):
        chosen = [integer("recorded_epochs", epoch) for epoch in given]
        outside = [epoch for epoch in chosen if not 0 <= epoch < epochs]
        if outside:
            raise InputError(f"recorded_epochs must lie within 0 and {epochs - 1}, got {outside[0]}")
        return frozenset(chosen)
    count = min(integer("recorded_epochs", wanted, minimum=0), epochs)
    return frozenset(np.linspace(0, epochs - 1, count).round().astype(int).tolist()) if count else frozenset()
