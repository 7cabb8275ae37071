"""`History`: losses, gradient norms and validation of each epoch, and the spectrum of W - W0 at the recorded ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from rankscope.validation import choice

Status = Literal["finished", "stopped", "diverged", "exhausted"]


@dataclass(frozen=True, eq=False)
class MatrixHistory:
    """Record of one matrix at the recorded epochs.

    Attributes
    ----------
    singular_values
        (records, k) leading singular values of W - W0.
    eigenvalues
        (records, k) eigenvalues of W with the largest real parts, or None if not recorded.
    weights
        (records, rows, columns) W itself, or None if not recorded.
    """

    singular_values: NDArray[np.float64]
    eigenvalues: NDArray[np.complex128] | None
    weights: NDArray[np.float64] | NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class History:
    """Record of one training.

    Attributes
    ----------
    losses, gradient_norms
        (epochs,) Loss before the update and Euclidean norm of the gradient before clipping; means over the batches of
        an epoch where it has several.
    recorded_epochs
        (records,) Epochs at which the matrices were recorded, before the update.
    matrices
        Record of each matrix, by its name in the network.
    status
        "finished"; "stopped" (by `stop_below`, `stop_loss`, `patience` or a callback); "diverged" (the last loss or
        gradient is not finite; the network keeps the weights from before that update); "exhausted" (the iterable of
        trials ended).
    learning_rate
        Initial learning rate; epochs times learning rate is the learning time.
    seconds
        Wall time of the training, over all continuations.
    kept
        Number of completed epochs -> the network's `state_dict` after them, for those in `kept_epochs`.
    validation_losses, validation_accuracies
        (epochs,) After each epoch, NaN where there was no validation; empty for a task without validation data.
    """

    losses: NDArray[np.float64]
    gradient_norms: NDArray[np.float64]
    recorded_epochs: NDArray[np.int64]
    matrices: Mapping[str, MatrixHistory]
    status: Status
    learning_rate: float
    seconds: float
    validation_losses: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    validation_accuracies: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    kept: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)

    def __repr__(self) -> str:
        ends = f"{self.losses[0]:.4g} to {self.losses[-1]:.4g}" if self.epochs else "none"
        records = f"{len(self.recorded_epochs)} records of {', '.join(self.matrices)}"
        return f"History({self.status}, {self.epochs} epochs, losses {ends}, {records})"

    def _repr_html_(self) -> str:
        from rankscope.plot import loss as plot_loss
        from rankscope.plot.html import card

        rows = {
            "status": self.status,
            "epochs": self.epochs,
            "loss": f"{self.losses[0]:.4g} to {self.losses[-1]:.4g}" if self.epochs else "none",
            "learning rate": f"{self.learning_rate:g}",
            "recorded": f"{len(self.recorded_epochs)} epochs of {', '.join(self.matrices)}",
            "seconds": f"{self.seconds:.3g}",
        }
        return card("History", rows, [lambda ax: plot_loss(self, ax)] if self.epochs else [])

    @property
    def singular_values(self) -> NDArray[np.float64]:
        """(records, k) Leading singular values of W - W0 of the first recorded matrix."""
        return self._first.singular_values

    @property
    def eigenvalues(self) -> NDArray[np.complex128] | None:
        """(records, k) Leading eigenvalues of the first recorded matrix, or None if not recorded."""
        return self._first.eigenvalues

    @property
    def weights(self) -> NDArray[np.float64] | NDArray[np.float32] | None:
        """(records, rows, columns) The first recorded matrix, or None if not recorded."""
        return self._first.weights

    @property
    def epochs(self) -> int:
        """Number of epochs run."""
        return len(self.losses)

    @property
    def diverged_epoch(self) -> int | None:
        """Epoch whose loss or gradient was not finite, or None."""
        return self.epochs - 1 if self.status == "diverged" else None

    def to_dataset(self, matrix: str | None = None) -> xr.Dataset:
        """Return the record as a Dataset over `epoch`, `record`, `leading_index` and `leading_eigenvalue`.

        Parameters
        ----------
        matrix
            Name of a recorded matrix; the first by default.

        Raises
        ------
        InputError
            If no matrix of this name was recorded.
        """
        record = self._first if matrix is None else self.matrices[choice("matrix", matrix, self.matrices)]
        variables: dict[str, tuple[tuple[str, ...], object, dict[str, str]]] = {
            "learning_rate": ((), self.learning_rate, {"long_name": "learning rate"}),
            "loss": (("epoch",), self.losses, {"long_name": "loss"}),
            "gradient_norm": (("epoch",), self.gradient_norms, {"long_name": "gradient norm"}),
            "singular_value_history": (
                ("record", "leading_index"),
                record.singular_values,
                {"long_name": "singular value of the change of the recurrent weights"},
            ),
        }
        if self.validation_losses.size:
            variables |= {
                "validation_loss": (("epoch",), self.validation_losses, {"long_name": "validation loss"}),
                "validation_accuracy": (("epoch",), self.validation_accuracies, {"long_name": "validation accuracy"}),
                "status": ((), self.status, {"long_name": "how the training ended"}),
            }
        if record.eigenvalues is not None:
            for part, word in (("real", "real"), ("imag", "imaginary")):
                variables[f"eigenvalue_{part}_history"] = (
                    ("record", "leading_eigenvalue"),
                    getattr(record.eigenvalues, part),
                    {"long_name": f"{word} part of the eigenvalue of the recurrent weights"},
                )
        if record.weights is not None:
            variables["recurrent_weights_history"] = (
                ("record", "postsynaptic", "presynaptic"),
                record.weights,
                {"long_name": "recurrent weights"},
            )
        coordinates: dict[str, object] = {
            "epoch": np.arange(self.epochs),
            "recorded_epoch": ("record", self.recorded_epochs, {"long_name": "epoch of the record"}),
            "leading_index": np.arange(1, record.singular_values.shape[1] + 1),
        }
        if record.eigenvalues is not None:
            coordinates["leading_eigenvalue"] = np.arange(1, record.eigenvalues.shape[1] + 1)
        attributes = {"status": self.status, "training_seconds": self.seconds}
        return xr.Dataset(variables, coordinates, attributes)

    @property
    def _first(self) -> MatrixHistory:
        return next(iter(self.matrices.values()))
