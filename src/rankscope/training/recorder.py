"""`Recorder`: losses, gradient norms, and the spectrum of W - W0 while a network is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.linalg import leading_eigenvalues, leading_singular_values
from rankscope.networks.protocol import Network, evaluating, matrices_of
from rankscope.training.history import History, MatrixHistory, Status

CURVES = ("losses", "gradient_norms", "validation_losses", "validation_accuracies")


@dataclass
class MatrixRecords:
    """Records of one matrix."""

    initial: Tensor
    singular_values: list[Tensor] = field(default_factory=list)
    eigenvalues: list[Tensor] = field(default_factory=list)  # (k, 2), real and imaginary parts
    weights: list[Tensor] = field(default_factory=list)


@dataclass
class Recorder:
    """A history under construction.

    Attributes
    ----------
    matrices
        Records of each matrix, by its name in the network.
    schedule
        Epochs at which the matrices are recorded.
    singular_count, eigenvalue_count, keep_weights
        As in `TrainingConfig`.
    losses, gradient_norms, validation_losses, validation_accuracies, recorded_epochs
        As in `History`.
    """

    matrices: dict[str, MatrixRecords]
    schedule: frozenset[int]
    singular_count: int
    keep_weights: bool
    eigenvalue_count: int = 0
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    validation_accuracies: list[float] = field(default_factory=list)
    recorded_epochs: list[int] = field(default_factory=list)

    def kept_of(self, record: MatrixRecords) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Return what is recorded of a matrix, with shape and type of one entry."""
        rows, columns = record.initial.shape
        kept: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "singular_values": ((min(self.singular_count, rows, columns),), record.initial.dtype)
        }
        if self.eigenvalue_count and rows == columns:
            kept["eigenvalues"] = ((min(self.eigenvalue_count, rows), 2), torch.float64)
        if self.keep_weights:
            kept["weights"] = ((rows, columns), record.initial.dtype)
        return kept

    def record_matrices(self, epoch: int, network: Network) -> None:
        """Record the matrices of `network` if `epoch` is in the schedule."""
        if epoch not in self.schedule:
            return
        self.recorded_epochs.append(epoch)
        # A parametrization such as torch's spectral_norm changes its buffers at every access in training mode.
        with torch.no_grad(), evaluating(network):
            current = matrices_of(network, self.matrices)
        for name, records in self.matrices.items():
            now = current[name].detach()
            change = now - records.initial
            # A finite sum settles the question in a tenth of the time; an infinite one may be an overflow.
            if math.isfinite(float(change.sum())) or bool(torch.isfinite(change).all()):
                leading = leading_singular_values(change, self.singular_count).cpu()
            else:
                # The decomposition needs finite numbers. The loss of this epoch will show the divergence.
                leading = torch.full((min(self.singular_count, *change.shape),), torch.nan, dtype=change.dtype)
            records.singular_values.append(leading)
            kept = self.kept_of(records)
            if "eigenvalues" in kept:
                records.eigenvalues.append(torch.view_as_real(leading_eigenvalues(now, self.eigenvalue_count)))
            if "weights" in kept:
                records.weights.append(now.cpu().clone())

    def drop_from(self, epoch: int) -> None:
        """Drop the records of matrices at this epoch and later ones."""
        while self.recorded_epochs and self.recorded_epochs[-1] >= epoch:
            self.recorded_epochs.pop()
        for records in self.matrices.values():
            for rows in (records.singular_values, records.eigenvalues, records.weights):
                del rows[len(self.recorded_epochs) :]

    def finish(
        self,
        status: Status,
        learning_rate: float,
        seconds: float,
        kept: Mapping[int, Mapping[str, Tensor]] | None = None,
    ) -> History:
        """Return the record as arrays."""
        curves = {name: np.array(getattr(self, name), dtype=np.float64) for name in CURVES}
        return History(
            **curves,
            recorded_epochs=np.array(self.recorded_epochs, dtype=np.int64),
            matrices={
                name: MatrixHistory(
                    torch.stack(records.singular_values).double().numpy()
                    if records.singular_values
                    else np.empty((0, *self.kept_of(records)["singular_values"][0])),
                    torch.view_as_complex(torch.stack(records.eigenvalues)).numpy() if records.eigenvalues else None,
                    torch.stack(records.weights).numpy() if records.weights else None,
                )
                for name, records in self.matrices.items()
            },
            status=status,
            learning_rate=learning_rate,
            seconds=seconds,
            kept=kept or {},
        )


def record_schedule(epochs: int, wanted: int | Sequence[int] | None, hidden_size: int = 256) -> frozenset[int]:
    """Return the epochs at which to record.

    Parameters
    ----------
    wanted
        Number of evenly spaced epochs, or the epochs themselves. None: 200, but no more than every seventh epoch (every
        tenth above 256 units, where a decomposition costs more epochs), so that recording takes less than a tenth of
        the training time.

    Raises
    ------
    InputError
        If an epoch is outside the training.
    """
    if wanted is None:
        wanted = min(200, -(-epochs // (7 if hidden_size <= 256 else 10)))
    if not isinstance(wanted, int):
        outside = [epoch for epoch in wanted if not 0 <= epoch < epochs]
        if outside:
            raise InputError(f"recorded_epochs must lie within 0 and {epochs - 1}, got {outside[0]}")
        return frozenset(wanted)
    count = min(wanted, epochs)
    return frozenset(np.linspace(0, epochs - 1, count).round().astype(int).tolist()) if count else frozenset()
