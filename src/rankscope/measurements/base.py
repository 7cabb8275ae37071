"""The contract of a measurement: a function of a trained network that returns labelled arrays.

A measurement is a file of this folder with one `Measurement`, and a line in the registry (`__init__.py`). Its function
`compute(trained, rng)` returns an `xarray.Dataset` whose variables have names that no other measurement uses and a
`long_name`. Its dimensions have names of its own too, except where all that use a name give the dimension the same
size and coordinate: `weight` has one entry for each measured matrix, in the order of `trained.changes`, with the
coordinate `trained.short_names` (see `gate_spectra.py`).

It draws only from its own `rng`, and leaves the networks as they are, so that it can be added to a finished run without
changing the other numbers. `applies(network, task, matrices)` depends on the architecture and the task alone, so that a
job is checked before it is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope import lowrank
from rankscope.lowrank import Change
from rankscope.networks.protocol import Network, matrices_of, recurrent_names
from rankscope.tasks.trials import OneTrialTask, Task, Trials, as_trials
from rankscope.training import History, Loss, find_loss

EVALUATION_TRIALS = 512

Scalar = tuple[tuple[()], Any, dict[str, str]]
Matrices = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network before and after training.

    Parameters
    ----------
    before, after
        The network before and after training.
    task
        The task it was trained on.
    history
        The record of the training: a `History`, or the Dataset made of it, as a run stores it.
    loss
        As in `train`; None is the task's own.
    matrices
        Names of the weight matrices to measure; None are those that the training recorded, or else the recurrent ones.
    kept
        Number of epochs -> the network after them, where the training kept copies.
    """

    before: Network
    after: Network
    task: Task
    history: History | xr.Dataset
    loss: str | Loss | None = None
    matrices: Matrices | None = None
    kept: Mapping[int, Network] = field(default_factory=dict)

    @cached_property
    def record(self) -> xr.Dataset:
        """The history as a Dataset."""
        return self.history if isinstance(self.history, xr.Dataset) else self.history.to_dataset()

    @cached_property
    def names(self) -> Matrices:
        """Names of the measured weight matrices."""
        if self.matrices is None and isinstance(self.history, History):
            return tuple(self.history.matrices)
        return recurrent_names(self.after, self.matrices)

    @cached_property
    def changes(self) -> dict[str, Change]:
        """Name -> change of each measured weight matrix."""
        return lowrank.changes(self.before, self.after, self.names)

    @cached_property
    def short_names(self) -> list[str]:
        """Names of `changes` without their modules; whole where two would be equal."""
        short = [name.rpartition(".")[2] for name in self.changes]
        return short if len(set(short)) == len(short) else list(self.changes)

    @cached_property
    def change(self) -> Change:
        """The change of the first measured matrix; for a rate network, of its recurrent weights."""
        return self.changes[self.names[0]]

    @cached_property
    def loss_function(self) -> Loss:
        """The loss of the training."""
        return find_loss(self.loss, self.task)

    @cached_property
    def evaluation_task(self) -> Any:
        """The task to evaluate on: fresh trials where the training drew from a pool."""
        return self.task.fresh() if hasattr(self.task, "fresh") else self.task

    def evaluation_trials(self, rng: np.random.Generator) -> Trials:
        """Return 512 fresh trials; one if all trials are equal and the network has no noise."""
        one = isinstance(self.task, OneTrialTask) and getattr(self.after, "noise_std", 0.0) == 0
        return as_trials(self.evaluation_task.sample(1 if one else EVALUATION_TRIALS, rng))


def always(network: Network, task: Task, matrices: Matrices) -> str | None:
    """Return None: the measurement applies to every network and task."""
    return None


@dataclass(frozen=True)
class Measurement:
    """One measurement.

    Parameters
    ----------
    name, description
        As listed on the command line.
    compute
        (trained, rng) -> Dataset.
    applies
        (network, task, matrices) -> why the measurement does not apply, or None if it does.
    by_default
        Whether it is made wherever it applies and no measurements are named.
    along
        Whether it needs the copies of the network that a training keeps (`kept_epochs`).
    """

    name: str
    description: str
    compute: Callable[[TrainedNetwork, np.random.Generator], xr.Dataset]
    applies: Callable[[Network, Task, Matrices], str | None] = always
    by_default: bool = True
    along: bool = False


def scalar(value: Any, long_name: str) -> Scalar:
    """Return a variable without dimensions: text, or a number as a float, NaN for None."""
    return (), value if isinstance(value, str) else float("nan" if value is None else value), {"long_name": long_name}


def filled(rows: Iterable[NDArray[np.floating[Any]]], length: int) -> NDArray[np.floating[Any]]:
    """Return arrays (..., k) stacked, with NaN where k is below `length`."""
    missing = [(row, length - row.shape[-1]) for row in rows]
    return np.stack([np.pad(row, [(0, 0)] * (row.ndim - 1) + [(0, n)], constant_values=np.nan) for row, n in missing])


def has_validation(task: Task) -> bool:
    """Return whether a task has validation data."""
    return hasattr(task, "validation")


def one_square_matrix(network: Network, task: Task, matrices: Matrices) -> str | None:
    """Require a single, square weight matrix."""
    shapes = {name: tuple(matrix.shape) for name, matrix in matrices_of(network, matrices).items()}
    if len(shapes) == 1 and all(rows == columns for rows, columns in shapes.values()):
        return None
    return f"it needs one square weight matrix, and the network has {shapes}"
