"""Measurements on trained networks: one file each, listed in `MEASUREMENTS`.

A new one is a file with a `Measurement` (see `base.py`) and a line here. Each draws from a random stream of its own,
which follows from the seed of the job and the name of the measurement: adding one changes no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping

import numpy as np
import xarray as xr

from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.measurements.accuracy_along import ACCURACY_ALONG
from rankscope.measurements.accuracy_truncation import ACCURACY_TRUNCATION
from rankscope.measurements.activity import ACTIVITY
from rankscope.measurements.anatomy import ANATOMY
from rankscope.measurements.anatomy_along import ANATOMY_ALONG
from rankscope.measurements.base import EVALUATION_TRIALS as EVALUATION_TRIALS
from rankscope.measurements.base import Measurement as Measurement
from rankscope.measurements.base import TrainedNetwork as TrainedNetwork
from rankscope.measurements.evaluation import EVALUATION
from rankscope.measurements.flow import FLOW
from rankscope.measurements.gate_spectra import GATE_SPECTRA
from rankscope.measurements.kernel import KERNEL
from rankscope.measurements.learning import LEARNING
from rankscope.measurements.noise import NOISE
from rankscope.measurements.norms import NORMS
from rankscope.measurements.outlier import OUTLIER
from rankscope.measurements.populations import RESAMPLED
from rankscope.measurements.score import SCORE
from rankscope.measurements.shuffle import SHUFFLE
from rankscope.measurements.spectra import SPECTRA
from rankscope.measurements.trial import TRIAL
from rankscope.measurements.trial_accuracy import TRIAL_ACCURACY
from rankscope.measurements.truncation import TRUNCATION
from rankscope.networks.protocol import Network, hidden_size_of, recurrent_names
from rankscope.tasks.trials import Task
from rankscope.validation import choice, integer

MEASUREMENTS: dict[str, Measurement] = {
    measurement.name: measurement
    for measurement in (
        LEARNING,
        NORMS,
        EVALUATION,
        TRUNCATION,
        SHUFFLE,
        SPECTRA,
        GATE_SPECTRA,
        ACCURACY_TRUNCATION,
        ACCURACY_ALONG,
        TRIAL,
        OUTLIER,
        SCORE,
        TRIAL_ACCURACY,
        RESAMPLED,
        ANATOMY,
        ANATOMY_ALONG,
        ACTIVITY,
        KERNEL,
        NOISE,
        FLOW,
    )
}

# Third child of the job's seed: the first two are the streams of the weights and of the training.
STREAM = 2


def chosen(
    names: Iterable[str] | None,
    network: Network,
    task: Task,
    matrices: Iterable[str] | None = None,
    *,
    along: bool = False,
) -> tuple[str, ...]:
    """Return the measurements to make on a network after training; "learning" is always among them.

    Parameters
    ----------
    names
        None are all that apply, except those that another one contains.
    network, task
        The network, trained or not, and its task.
    matrices
        As in `TrainingConfig`.
    along
        Whether the training keeps copies of the network (`kept_epochs`).

    Raises
    ------
    InputError
        If a measurement is unknown or does not apply to the network and the task.
    """
    measured = recurrent_names(network, matrices)
    if names is None:
        every = [m for m in MEASUREMENTS.values() if m.by_default and (along or not m.along)]
        return tuple(m.name for m in every if not m.applies(network, task, measured))
    wanted = [choice("measurements", name, MEASUREMENTS) for name in names]
    for name in wanted:
        reason = MEASUREMENTS[name].applies(network, task, measured)
        if MEASUREMENTS[name].along and not along:
            reason = "it needs kept_epochs in training, the epochs after which a copy of the network is kept"
        if reason is not None:
            raise InputError(f"measurements must apply to the network and the task, got {name!r}: {reason}")
    return tuple(dict.fromkeys((LEARNING.name, *wanted)))


def measure(trained: TrainedNetwork, names: Iterable[str] | None = None, seed: int = 0) -> xr.Dataset:
    """Return measurements of a trained network as one Dataset.

    Parameters
    ----------
    names
        Measurements to make, exactly these; None are those that `chosen` returns.
    seed
        Seed of the job.

    Raises
    ------
    InputError
        If a measurement is unknown or does not apply, or two give a dimension different coordinates.
    """
    allowed = chosen(names, trained.after, trained.task, trained.names, along=bool(trained.kept))
    wanted = allowed if names is None else tuple(dict.fromkeys(names))
    with threads_for(hidden_size_of(trained.after)):
        found = {name: MEASUREMENTS[name].compute(trained, generator_of(seed, name)) for name in wanted}
    check_dimensions(found)
    return xr.merge(found.values(), join="exact", combine_attrs="drop_conflicts")


def check_dimensions(found: Mapping[str, xr.Dataset]) -> None:
    """Raise `InputError` if two measurements, by name, give a dimension different sizes or coordinates."""
    first: dict[Hashable, str] = {}
    for name, dataset in found.items():
        for dim, size in dataset.sizes.items():
            other = first.setdefault(dim, name)
            theirs = found[other]
            both = dim in dataset.indexes and dim in theirs.indexes
            if size != theirs.sizes[dim] or (both and not dataset.indexes[dim].equals(theirs.indexes[dim])):
                raise InputError(
                    f"measurement {name!r} must have the coordinate of {other!r} along {dim!r}, got another one; "
                    "rename the dimension"
                )


def generator_of(seed: int, name: str) -> np.random.Generator:
    """Return the random stream of a measurement, given the seed of the job."""
    digest = hashlib.sha256(name.encode()).digest()
    words = [int.from_bytes(digest[i : i + 4], "big") for i in (0, 4)]
    return np.random.default_rng(np.random.SeedSequence(integer("seed", seed, minimum=0), spawn_key=(STREAM, *words)))
