"""What a training leaves behind: its losses and gradient norms, and how the change of the weights unfolded.

Losses and gradient norms are kept for every epoch; singular values of W - W0 at some two hundred of them, as they
were *before* that epoch's update; eigenvalues of W and the weights themselves only when asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from rankscope.arguments import integer
from rankscope.errors import InputError
from rankscope.linalg import leading_eigenvalues, leading_singular_values

Status = Literal["finished", "stopped", "diverged", "exhausted"]


@dataclass(frozen=True, eq=False)
class History:
    """The record of one training.

    Attributes
    ----------
    losses, gradient_norms
        (epochs,) as far as the training went. The loss of an epoch is that of its batch before its update;
        the norm is the Euclidean norm over all trained parameters, before clipping.
    recorded_epochs
        (records,) epochs at which the next three were looked at, before the update.
    singular_values
        (records, k) leading singular values of the recurrent W - W0.
    eigenvalues
        (records, k) eigenvalues of the recurrent W with the largest real parts, or None where none were recorded.
    weights
        (records, N, N) recurrent weights, or None unless they were asked for.
    status
        "finished"; "stopped" early as asked; "diverged" (the last loss or gradient is not finite, and the
        network keeps its weights from before that epoch); "exhausted" (the iterable of trials ended).
    learning_rate
        Of the optimiser; times the epoch it is the learning time.
    seconds
        Wall time spent training, over all continuations.
    """

    losses: NDArray[np.float64]
    gradient_norms: NDArray[np.float64]
    recorded_epochs: NDArray[np.int64]
    singular_values: NDArray[np.float64]
    eigenvalues: NDArray[np.complex128] | None
    weights: NDArray[np.float64] | NDArray[np.float32] | None
    status: Status
    learning_rate: float
    seconds: float

    @property
    def epochs(self) -> int:
        """Number of epochs that were run."""
        return len(self.losses)

    @property
    def diverged_epoch(self) -> int | None:
        """The epoch whose loss or gradient was not finite, or None."""
        return self.epochs - 1 if self.status == "diverged" else None

    def to_dataset(self) -> xr.Dataset:
        """Return the record as a Dataset over `epoch`, `record`, `leading_index` and `leading_eigenvalue`."""
        variables: dict[str, tuple[tuple[str, ...], object, dict[str, str]]] = {
            "learning_rate": ((), self.learning_rate, {"long_name": "learning rate"}),
            "loss": (("epoch",), self.losses, {"long_name": "loss"}),
            "gradient_norm": (("epoch",), self.gradient_norms, {"long_name": "gradient norm"}),
            "singular_value_history": (
                ("record", "leading_index"),
                self.singular_values,
                {"long_name": "singular value of the change of the recurrent weights"},
            ),
        }
        if self.eigenvalues is not None:
            for part, word in (("real", "real"), ("imag", "imaginary")):
                variables[f"eigenvalue_{part}_history"] = (
                    ("record", "leading_eigenvalue"),
                    getattr(self.eigenvalues, part),
                    {"long_name": f"{word} part of the eigenvalue of the recurrent weights"},
                )
        if self.weights is not None:
            variables["recurrent_weights_history"] = (
                ("record", "postsynaptic", "presynaptic"),
                self.weights,
                {"long_name": "recurrent weights"},
            )
        coordinates: dict[str, object] = {
            "epoch": np.arange(self.epochs),
            "recorded_epoch": ("record", self.recorded_epochs, {"long_name": "epoch of the record"}),
            "leading_index": np.arange(1, self.singular_values.shape[1] + 1),
        }
        if self.eigenvalues is not None:
            coordinates["leading_eigenvalue"] = np.arange(1, self.eigenvalues.shape[1] + 1)
        attributes = {"status": self.status, "training_seconds": self.seconds}
        return xr.Dataset(variables, coordinates, attributes)


@dataclass
class Records:
    """A history while it grows."""

    initial: Tensor
    schedule: frozenset[int]
    singular_count: int
    keep_weights: bool
    eigenvalue_count: int = 0
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    recorded_epochs: list[int] = field(default_factory=list)
    singular_values: list[Tensor] = field(default_factory=list)
    eigenvalues: list[Tensor] = field(default_factory=list)  # (k, 2): real and imaginary parts, which files can hold
    weights: list[Tensor] = field(default_factory=list)

    def look_at(self, epoch: int, recurrent_weights: Tensor) -> None:
        """Record the recurrent weights if this is one of the epochs to record."""
        if epoch not in self.schedule:
            return
        now = recurrent_weights.detach()
        self.recorded_epochs.append(epoch)
        change = now - self.initial
        if bool(torch.isfinite(change).all()):
            leading = leading_singular_values(change, self.singular_count).cpu()
        else:
            # Weights that are not finite: the loss of this epoch is about to say so.
            leading = torch.full((min(self.singular_count, *change.shape),), torch.nan, dtype=change.dtype)
        self.singular_values.append(leading)
        if self.eigenvalue_count:
            self.eigenvalues.append(torch.view_as_real(leading_eigenvalues(now, self.eigenvalue_count)))
        if self.keep_weights:
            self.weights.append(now.cpu().clone())

    def forget_from(self, epoch: int) -> None:
        """Drop looks at this epoch and later ones, which an interruption cut short."""
        while self.recorded_epochs and self.recorded_epochs[-1] >= epoch:
            self.recorded_epochs.pop()
            for rows in (self.singular_values, self.eigenvalues, self.weights):
                if len(rows) > len(self.recorded_epochs):
                    rows.pop()

    def finish(self, status: Status, learning_rate: float, seconds: float) -> History:
        """Return the record as arrays."""
        k = min(self.singular_count, *self.initial.shape)
        return History(
            losses=np.array(self.losses, dtype=np.float64),
            gradient_norms=np.array(self.gradient_norms, dtype=np.float64),
            recorded_epochs=np.array(self.recorded_epochs, dtype=np.int64),
            singular_values=(
                torch.stack(self.singular_values).double().numpy() if self.singular_values else np.empty((0, k))
            ),
            eigenvalues=torch.view_as_complex(torch.stack(self.eigenvalues)).numpy() if self.eigenvalues else None,
            weights=torch.stack(self.weights).numpy() if self.weights else None,
            status=status,
            learning_rate=learning_rate,
            seconds=seconds,
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
