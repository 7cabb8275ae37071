"""One cell of an experiment: a network to train, and everything the paper measures on it.

A cell is data: it says which task, gain, size and seed, and which of the dearer measurements to make. `run` trains it
and returns one Dataset with the losses, the spectra, the truncation curve, the shuffled loss and an example trial,
named and labelled the same way wherever it comes from.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from rankscope import lowrank, tasks
from rankscope.errors import InputError
from rankscope.io.atomic import make_folder
from rankscope.linalg import leading_eigenvalues
from rankscope.linalg.singular_values import EXACT_UP_TO
from rankscope.networks.rate import RateRNN
from rankscope.sweep.netcdf import write_netcdf
from rankscope.sweep.processes import Report
from rankscope.sweep.worker import Cell as Described
from rankscope.tasks.custom import as_task
from rankscope.tasks.trials import BuiltInTask, OneTrialTask, Trials
from rankscope.training import History, Loss, evaluate, find_loss, train
from rankscope.training.convergence import convergence_epoch
from rankscope.training.fit import Progress
from rankscope.training.recorder import record_schedule
from rankscope.validation import choice, integer
from rankscope.version import __version__

EVALUATION_TRIALS = 512
RANKS = range(26)
MEASUREMENTS = ("truncation", "spectra", "trial", "outlier")
DEFAULT_MEASUREMENTS = ("truncation", "spectra", "trial")
MEASUREMENTS_FILE = "measurements.nc"
NETWORK_FILE = "network.safetensors"
SCALARS = (
    "initial_loss",
    "evaluation_loss",
    "convergence_epoch",
    "functional_rank",
    "change_norm",
    "trained_norm",
    "shuffled_loss",
    "average_gradient",
    "outlier",
    "learning_rate",
)


@dataclass(frozen=True)
class Cell:
    """What to train.

    Attributes
    ----------
    task
        A built-in task, or one of your own: a dataclass with `sample(batch_size, rng)`.
    gain, hidden_size, epochs
        g, N and the number of gradient steps.
    seed
        Everything random in the cell is derived from it.
    sample
        Which of several networks of the same kind this is; a label.
    network
        Further options of `RateRNN.initialize`.
    training
        Further options of `train`.
    labels
        Further labels of the results, for a sweep over something else than the above.
    measurements
        What to measure besides what costs next to nothing: "truncation" (truncation losses and functional rank),
        "spectra" (all singular values and eigenvalues of W0, W and dW), "trial" (the example trial), "outlier" (the
        eigenvalue of W with the largest real part).

    Raises
    ------
    InputError
        If a measurement is not known, or the task cannot be described.
    """

    task: BuiltInTask
    gain: float = 0.9
    hidden_size: int = 256
    epochs: int = 1000
    seed: int = 0
    sample: int = 0
    network: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)
    measurements: tuple[str, ...] = DEFAULT_MEASUREMENTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", as_task(self.task))  # the dataclass is frozen
        for name in self.measurements:
            choice("measurements", name, MEASUREMENTS)

    def describe(self) -> dict[str, Any]:
        """Return the cell as plain values, for a file's attributes."""
        described = {
            "task": self.task.name,
            "task_parameters": {k: v for k, v in tasks.describe(self.task).items() if k != "name"},
            "gain": self.gain,
            "hidden_size": self.hidden_size,
            "epochs": self.epochs,
            "seed": self.seed,
            "sample": self.sample,
            "network": self.network,
            "training": self.training,
            "labels": self.labels,
        }
        # Only where it says something: runs from before there was a choice keep their digests.
        if self.measurements != DEFAULT_MEASUREMENTS:
            described["measurements"] = list(self.measurements)
        return described

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that two cells share only if they describe the same work."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def steps(self) -> int:
        """Time steps in all of the training."""
        return self.task.steps * self.epochs

    @property
    def work(self) -> float:
        """About how many multiplications the cell takes: its training, the looks at its weights, the analysis.

        The factors of the decompositions are their measured times in units of the multiplications of a training.
        """
        N, steps, options = self.hidden_size, self.task.steps, self.training
        # With a single row, a product waits for the weights to come from memory, and costs as much as with two.
        training = 3 * self.epochs * steps * max(options.get("batch_size", 32), 2)
        looks = len(record_schedule(self.epochs, options.get("recorded_epochs"), N))
        look = (10 * N if N <= EXACT_UP_TO else 400) + 100 * N * bool(options.get("eigenvalues"))
        analysis = {
            "truncation": len(RANKS) * steps * evaluation_trials(self.task, self.network.get("noise_std", 0.0)),
            "spectra": 350 * N,
            "outlier": 100 * N,
        }
        return float(N**2 * (training + looks * look + sum(analysis.get(name, 0) for name in self.measurements)))

    def check(self) -> None:
        """Find out whether the cell can be run here: always, as it needs nothing but itself."""

    def measure(self, report: Report, checkpoint: str | os.PathLike[str] | None = None) -> xr.Dataset:
        """Train and measure, going on from the checkpoint if there is one."""
        return run(self, report, checkpoint).measurements


@dataclass(frozen=True)
class Outcome:
    """The network before and after, and what was measured."""

    before: RateRNN
    after: RateRNN
    measurements: xr.Dataset


def run(cell: Cell, progress: Progress | None = None, checkpoint: str | os.PathLike[str] | None = None) -> Outcome:
    """Train the network of `cell` and measure what learning wrote into it.

    Parameters
    ----------
    progress, checkpoint
        As in `train`.

    Raises
    ------
    InputError
        If the cell cannot be trained as described.
    """
    weights_rng, training_rng, evaluation_rng = generators_of(cell)
    network = _draw(cell, weights_rng)
    before = network.snapshot()
    history = train(
        network, cell.task, cell.epochs, training_rng, progress=progress, checkpoint=checkpoint, **cell.training
    )
    measured = measure(
        before, network, history, cell.task.fresh(), evaluation_rng, cell.measurements, cell.training.get("loss")
    )
    measured.attrs |= provenance(cell)
    labels = {
        "task": cell.task.name,
        "gain": cell.gain,
        "sample": cell.sample,
        "hidden_size": cell.hidden_size,
        "seed": cell.seed,
        **cell.labels,
    }
    return Outcome(before, network, measured.assign_coords(labels))


def initial_network(cell: Cell) -> RateRNN:
    """Return the network of `cell` before learning, as `run` draws it.

    Raises
    ------
    InputError
        If the cell cannot be trained as described.
    """
    return _draw(cell, generators_of(cell)[0])


def measure(
    before: RateRNN,
    after: RateRNN,
    history: History,
    task: BuiltInTask,
    rng: np.random.Generator,
    measurements: Collection[str] = DEFAULT_MEASUREMENTS,
    loss: str | Loss | None = None,
) -> xr.Dataset:
    """Return every quantity of paper section 3 for one trained network.

    Parameters
    ----------
    rng
        Source of the evaluation trials, the permutation of W0 and the network's noise.
    measurements
        As in `Cell`.
    loss
        That of the training, as in `train`; by default the task's own.

    Returns
    -------
    xr.Dataset
        Of `history`, the scalars, and what else `measurements` names. A scalar that does not exist (a convergence, a
        functional rank) or was not asked for is NaN.
    """
    judge = find_loss(loss, task)
    trials = task.sample(evaluation_trials(task, after.noise_std), rng)
    initial_loss = float(history.losses[0])
    convergence = convergence_epoch(history.losses)
    change = lowrank.change(before, after)
    parts = [history.to_dataset()]
    rank = None
    if "truncation" in measurements:
        truncated = lowrank.truncation_curve(before, after, trials, rng=rng, loss=judge)
        rank = lowrank.functional_rank(truncated)
        curve = ("rank", truncated.scores, {"long_name": "loss with the change truncated to this rank"})
        parts.append(xr.Dataset({"truncation_loss": curve}, {"rank": list(truncated.ranks)}))
    if "spectra" in measurements:
        parts.append(lowrank.spectra(change))
    if "trial" in measurements:
        parts.append(example_trial(after, task.example()))
    scalars = {
        "initial_loss": (initial_loss, "loss at epoch 0"),
        "evaluation_loss": (evaluate(after, trials, rng, judge), "loss after learning, on fresh trials"),
        "convergence_epoch": (_or_nan(convergence), "first epoch with a loss below 5 % of the initial one"),
        "functional_rank": (
            _or_nan(rank),
            "smallest rank with a truncation loss below 5 % of that of rank 0",
        ),
        "change_norm": (change.norm, "Frobenius norm of the change of the recurrent weights"),
        "trained_norm": (
            float(np.linalg.norm(change.after)),
            "Frobenius norm of the recurrent weights after learning",
        ),
        "shuffled_loss": (
            lowrank.shuffled_loss(before, after, trials, rng, judge) / initial_loss,
            "loss after shuffling the initial weights, relative to the loss at epoch 0",
        ),
        # Of steps of one length the mean over learning time is the mean over epochs.
        "average_gradient": (
            float(np.mean(history.gradient_norms[:convergence])) if convergence else float("nan"),
            "gradient norm, averaged over the learning time up to convergence",
        ),
        "outlier": (
            float(leading_eigenvalues(after.recurrent_weights.detach(), 1)[0].real)
            if "outlier" in measurements
            else float("nan"),
            "largest real part of an eigenvalue of the recurrent weights after learning",
        ),
    }
    measured = xr.Dataset({name: ((), value, {"long_name": text}) for name, (value, text) in scalars.items()})
    measured["status"] = ((), history.status, {"long_name": "how the training ended"})
    return xr.merge([measured, *parts], join="exact", combine_attrs="drop_conflicts")


def evaluation_trials(task: BuiltInTask, noise_std: float) -> int:
    """Return how many trials to evaluate on: one says everything if all are equal, and the network has no noise."""
    return 1 if isinstance(task, OneTrialTask) and noise_std == 0 else EVALUATION_TRIALS


@torch.no_grad()
def example_trial(network: RateRNN, trial: Trials) -> xr.Dataset:
    """Return the first trial of `trial` and what the network makes of it, over `step`."""
    outputs = network(trial.inputs, rng=0)
    rows = {
        "example_input": ("input_channel", trial.inputs, "input"),
        "example_target": ("output_channel", trial.targets, "target"),
        "example_mask": ("output_channel", trial.mask, "mask"),
        "example_output": ("output_channel", outputs, "output"),
    }
    time = (np.arange(trial.steps) + 1) * network.dynamics.dt
    return xr.Dataset(
        {name: (("step", dim), x[0].double().numpy(), {"long_name": text}) for name, (dim, x, text) in rows.items()},
        {"time": ("step", time, {"long_name": "time", "units": "membrane time constants"})},
    )


def provenance(cell: Described) -> dict[str, str]:
    """Return where a result comes from: the cell, the versions, the processor, the date."""
    return {
        "cell": json.dumps(cell.describe()),
        "rankscope_version": __version__,
        "torch_version": str(torch.__version__),
        "numpy_version": np.__version__,
        "python_version": platform.python_version(),
        "platform": platform.platform(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def store(outcome: Outcome, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write the measurements to FOLDER/measurements.nc and the networks to FOLDER/network.safetensors.

    Returns
    -------
    The two paths.

    Raises
    ------
    InputError
        If the folder cannot be written to.
    """
    measurements, network = Path(folder) / MEASUREMENTS_FILE, Path(folder) / NETWORK_FILE
    outcome.after.save(network, initial=outcome.before)
    write_netcdf(outcome.measurements, measurements)
    return measurements, network


def run_stored(
    cell: Cell, folder: str | os.PathLike[str], progress: Progress | None = None, overwrite: bool = False
) -> tuple[xr.Dataset, list[Path]]:
    """Run `cell` and store it in `folder`; interrupted, the same call goes on where it was.

    Returns
    -------
    The measurements, and the paths of the two files.

    Raises
    ------
    InputError
        If the folder cannot be written to or already holds results, or the cell cannot be trained as described.
    """
    root = make_folder(folder)
    if (root / MEASUREMENTS_FILE).exists() and not overwrite:
        raise InputError(f"out must be a folder without results, got {folder}; choose another or say --overwrite")
    checkpoint = root / f"checkpoint-{cell.digest}.safetensors"
    outcome = run(cell, progress, checkpoint)
    files = store(outcome, root)
    checkpoint.unlink(missing_ok=True)
    return outcome.measurements, list(files)


def summary(measured: xr.Dataset) -> dict[str, Any]:
    """Return the scalars of one network as plain values; what does not exist is None.

    Parameters
    ----------
    measured
        What `measure` returned, for one network.
    """
    whole = ("convergence_epoch", "functional_rank", "hidden_size")
    row: dict[str, Any] = {"task": str(measured["task"].item())}
    for name in ("gain", "hidden_size", "seed", *SCALARS):
        value = measured[name].item()
        missing = isinstance(value, float) and not math.isfinite(value)
        row[name] = None if missing else int(value) if name in whole else value
    row["status"] = str(measured["status"].item())
    return row


def generators_of(cell: Cell) -> list[np.random.Generator]:
    """Return the sources of the weights, of the training, and of the evaluation, each at its beginning."""
    seeds = np.random.SeedSequence(integer("seed", cell.seed, minimum=0)).spawn(3)
    return [np.random.default_rng(seed) for seed in seeds]


def _draw(cell: Cell, rng: np.random.Generator) -> RateRNN:
    return RateRNN.initialize(cell.task, hidden_size=cell.hidden_size, gain=cell.gain, rng=rng, **cell.network)


def _or_nan(value: int | None) -> float:
    return float("nan") if value is None else float(value)
