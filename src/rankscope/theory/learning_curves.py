"""The course of learning of one network without initial recurrent weights, as a dataset over epochs."""

from __future__ import annotations

import copy

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from rankscope.lowrank import find_functional_rank
from rankscope.networks.protocol import outputs_of
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import Task, Trials, as_trials
from rankscope.training import TrainingConfig, convergence_epoch, train
from rankscope.training.fit import Progress
from rankscope.training.loss import find_loss
from rankscope.training.recorder import record_schedule
from rankscope.training.state import TrainingState
from rankscope.validation import RngLike

Array = NDArray[np.float64]

EVALUATION_TRIALS, EVALUATION_SEED = 512, 20201
LARGEST_RANK = 25


class _Watcher:
    """Records the norm of W at every epoch and the outputs in one trial at some, as a callback of `train`."""

    def __init__(self, network: RateRNN, trial: Trials, recorded: frozenset[int]) -> None:
        self._network, self._inputs, self._recorded = network, trial.inputs, recorded
        self.norms: list[float] = []
        self.outputs: list[Array] = []
        self._nothing = np.full(trial.targets.shape[1:], np.nan)
        self._record(0)

    def __call__(self, state: TrainingState) -> None:
        self._record(state.epoch)

    @torch.no_grad()
    def _record(self, epoch: int) -> None:
        self.norms.append(float(torch.linalg.vector_norm(self._network.recurrent_weights)))
        found = outputs_of(self._network, self._inputs)[0].double().numpy() if epoch in self._recorded else None
        self.outputs.append(self._nothing if found is None else found)


def follow(
    network: RateRNN,
    task: Task,
    config: TrainingConfig,
    rng: RngLike,
    progress: Progress | None = None,
    measure_rank: bool = True,
) -> xr.Dataset:
    """Train a network whose recurrent weights are 0, and return what `NonlinearLimit.solve` does.

    Parameters
    ----------
    network, task, config, rng, progress
        As in `train`.
    measure_rank
        Whether the functional rank is measured.
    """
    example = getattr(task, "example", None)
    trial = as_trials(example() if example is not None else task.sample(1, np.random.default_rng(0)))
    assert config.epochs is not None
    schedule = record_schedule(config.epochs, config.recorded_epochs)
    before = copy.deepcopy(network)
    watcher = _Watcher(network, trial, schedule)
    history = train(network, task, rng=rng, config=config, callbacks=[watcher], progress=progress)
    epochs, recorded = history.epochs, history.recorded_epochs
    singular = np.full((epochs, history.singular_values.shape[1]), np.nan)
    singular[recorded] = history.singular_values
    norms, outputs = np.array(watcher.norms[:epochs]), np.array(watcher.outputs[:epochs])
    over = (
        ("epoch",),
        ("epoch", "singular_index"),
        ("epoch", "step", "output_channel"),
        ("step", "output_channel"),
        (),
    )
    curve, spectrum, course, course_once, scalar = over
    variables = {
        "loss": (curve, history.losses, "loss"),
        "change_norm": (curve, norms, "Frobenius norm of dW"),
        "singular_value": (spectrum, singular, "singular value of dW"),
        "example_output": (course, outputs, "output in the example trial"),
        "example_target": (course_once, trial.targets[0].double().numpy(), "target of the example trial"),
        "convergence_epoch": (scalar, _or_nan(convergence_epoch(history.losses)), "first epoch with a loss below 5 %"),
        "functional_rank": (
            scalar,
            _or_nan(_rank(before, network, task, config) if measure_rank else None),
            "functional rank of dW at the end",
        ),
    }
    coordinates = {"epoch": np.arange(epochs), "singular_index": np.arange(1, singular.shape[1] + 1)}
    attributes = {"status": history.status, "units": network.hidden_size}
    return xr.Dataset(
        {name: (dims, values, {"long_name": text}) for name, (dims, values, text) in variables.items()},
        coordinates,
        attributes,
    )


def _rank(before: RateRNN, after: RateRNN, task: Task, config: TrainingConfig) -> int | None:
    """Return the functional rank on fresh trials, None without a change of the recurrent weights."""
    if "recurrent" not in after.trained:
        return None
    trials = as_trials(task.sample(EVALUATION_TRIALS, np.random.default_rng(EVALUATION_SEED)))
    loss, ranks = find_loss(config.loss, task), range(min(LARGEST_RANK, after.hidden_size) + 1)
    return find_functional_rank(before, after, trials, criterion="loss", ranks=ranks, loss=loss).rank


def _or_nan(value: int | None) -> float:
    return float("nan" if value is None else value)
