"""Recorded data as a task: trials of an experiment, or of another model, from a file.

    task: {recorded: data.npz, inputs: x, targets: y, mask: m}

The data is finite: an epoch is one pass over the training trials, and the others are for validation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.tasks.recorded_files import content_of, read_arrays
from rankscope.tasks.trials import BuiltInTask, Trials
from rankscope.validation import RngLike, choice, generator, integer, number

VALIDATION_BATCH = 256
SPLITS = ("train", "validation")
AXES = ("trial", "time", "channel")
SPLIT_SEED = 0
"""Seed of the split: the same trials are held out in every job."""


@dataclass(frozen=True)
class Recorded(BuiltInTask):
    """Reproduce recorded targets from recorded inputs.

    Parameters
    ----------
    file : str
        .npz, .npy, .mat, .csv, .h5, .hdf5 or .nwb, relative to the working directory.
    inputs, targets, mask : str, or list of str
        Names of the arrays in the file (paths in HDF5 and NWB, columns in CSV); for .npy, names of further files beside
        it. Arrays have the axes `axes`, or lack the channel. Without a mask, all finite targets count.
    axes : list of str
        Order of "trial", "time" and "channel" in the file.
    trial : str
        Of CSV: the column with the number of the trial; its rows are in the order of time. Trials may differ in length.
    validation_trials : float, or list of int
        Fraction of the trials that is held out for validation, drawn once with a fixed seed, or the trials (from 0).
    dt : float
        Length of a step in time constants.
    loss : str or None
        As in `TrainingConfig`. With "cross_entropy", targets may be numbers of classes, 0, 1, ..., in one channel.
    split : str
        "train" or "validation": the trials of `batches` and `sample`.
    content : str
        Hash that the content of the file must have; "" takes that of the file, so that a job records its data.

    Raises
    ------
    InputError
        If a file or an array is missing, the shapes do not fit together, numbers are not finite, or the content of the
        file has changed.
    """

    name: ClassVar[str] = "recorded"

    file: str
    inputs: str | Sequence[str] = "inputs"
    targets: str | Sequence[str] = "targets"
    mask: str | Sequence[str] | None = None
    axes: Sequence[str] = AXES
    trial: str = "trial"
    validation_trials: float | Sequence[int] = 0.2
    dt: float = 0.5
    loss: str | None = None
    split: str = "train"
    content: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.file, str):
            raise InputError(f"file must be the name of a file, got {self.file!r}")
        choice("split", self.split, SPLITS)
        self._check_number("dt", above=0)
        if isinstance(self.axes, str) or sorted(self.axes) != sorted(AXES):
            raise InputError(f"axes must be trial, time and channel in the order of the file, got {self.axes!r}")
        for field in ("inputs", "targets", "mask", "axes", "validation_trials"):
            value = getattr(self, field)
            if isinstance(value, list):
                self._settle(field, tuple(value))
        if not isinstance(self.validation_trials, tuple):
            self._check_number("validation_trials", minimum=0, below=1)
        found = content_of(self.file, self._names)
        if self.content not in ("", found):
            raise InputError(
                f"file {self.file!r} must have the content {self.content}, got {found}: the data has changed since; "
                "restore it, or start anew in another folder"
            )
        self._settle("content", found)

    def __getstate__(self) -> dict[str, Any]:
        return self.parameters()  # without the cached data

    @property
    def input_size(self) -> int:
        """Number of input channels."""
        return int(self._all.inputs.shape[2])

    @property
    def output_size(self) -> int:
        """Number of output channels."""
        return int(self._all.targets.shape[2])

    @property
    def steps(self) -> int:
        """Number of time steps of the longest trial."""
        return self._all.steps

    @classmethod
    def expected_steps(cls, batch_size: int, **parameters: Any) -> int:
        """Return the number of time steps in a pass over the data."""
        task = cls(**parameters)
        return task.steps * max(1, math.ceil(len(task._indices["train"]) / batch_size))

    def batches(self, batch_size: int, rng: RngLike = None) -> list[Trials]:
        """Return all trials of the split once, in random order; the last batch may be smaller."""
        size = integer("batch_size", batch_size, minimum=1)
        order = generator(rng).permutation(self._indices[self.split])
        return [self._chosen(order[start : start + size]) for start in range(0, len(order), size)]

    def validation(self) -> list[Trials]:
        """Return the trials held out for validation, or those for training if there are none."""
        held = self._indices["validation"]
        held = held if len(held) else self._indices["train"]
        return [self._chosen(held[start : start + VALIDATION_BATCH]) for start in range(0, len(held), VALIDATION_BATCH)]

    def fresh(self) -> Recorded:
        """Return the task to evaluate on: the validation trials, if there are any."""
        return replace(self, split="validation") if len(self._indices["validation"]) else self

    def example(self) -> Trials:
        """Return the first trial of the split."""
        return self._chosen(self._indices[self.split][:1])

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        indices = self._indices[self.split]
        if batch_size >= len(indices):
            return self._chosen(indices)
        return self._chosen(rng.choice(indices, size=batch_size, replace=False))

    @property
    def _names(self) -> tuple[str, ...]:
        wanted = (self.inputs, self.targets, self.mask)
        return tuple(name for one in wanted if one is not None for name in ((one,) if isinstance(one, str) else one))

    @cached_property
    def _indices(self) -> dict[str, NDArray[np.int64]]:
        """Trials for training and for validation."""
        count = len(self._all)
        if isinstance(self.validation_trials, tuple):
            held = np.array(
                [integer("validation_trials", i, minimum=0, maximum=count - 1) for i in self.validation_trials]
            )
        else:
            share = number("validation_trials", self.validation_trials)
            held = np.random.default_rng(SPLIT_SEED).permutation(count)[: round(share * count)]
        rest = np.setdiff1d(np.arange(count), held)
        if not len(rest):
            raise InputError(
                f"validation_trials must leave trials for training, got {self.validation_trials!r} of {count}"
            )
        return {"train": rest, "validation": np.unique(held).astype(np.int64)}

    @cached_property
    def _all(self) -> Trials:
        """All trials, padded to the longest."""
        arrays = read_arrays(self.file, self.inputs, self.targets, self.mask, tuple(self.axes), self.trial)
        inputs, targets, mask, lengths = arrays
        if self.loss == "cross_entropy" and targets.shape[2] == 1:
            targets, mask = _one_hot(self.file, targets, mask)
        trials = Trials.from_arrays(inputs, targets, mask, lengths)
        trials.check_content()
        return trials

    def _chosen(self, indices: NDArray[np.int64]) -> Trials:
        trials = self._all
        lengths = None if trials.lengths is None else trials.lengths[indices]
        return Trials(trials.inputs[indices], trials.targets[indices], trials.mask[indices], lengths)


def _one_hot(file: str, classes: NDArray[Any], mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return classes as one channel each, and the mask of every channel."""
    numbers = classes[..., 0].astype(np.int64)
    if (numbers != classes[..., 0]).any() or numbers.min() < 0 or numbers.max() < 1:
        raise InputError(
            f"targets of {file} must be probabilities, or classes 0, 1, ... in one channel, got {classes.min():g} to "
            f"{classes.max():g}"
        )
    return np.eye(numbers.max() + 1, dtype=np.float32)[numbers], np.repeat(mask, numbers.max() + 1, axis=2)
