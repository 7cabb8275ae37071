"""Fraction of right trials of networks whose units are drawn anew, over rank and number of populations.

At each rank R, one Gaussian, or a mixture of two or three, is fitted to the units of the network with its change
truncated to R (`lowrank/resampling.py`). The accuracy is the mean over networks drawn from it, on the same 256 fresh
trials, with noise of their own. It is NaN where a change does not have R directions, or there are too few units for a
fit. Needs the extra rankscope[populations].

Source: Dubreuil et al. 2022.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch
import xarray as xr

from rankscope.errors import InputError
from rankscope.lowrank.resampling import populations
from rankscope.measurements.base import Matrices, Measurement, TrainedNetwork
from rankscope.measurements.trial_accuracy import judged_by_trial
from rankscope.networks.protocol import Network, outputs_of
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import Task, Trials

RANKS = range(1, 11)
POPULATIONS = (1, 2, 3)
DRAWS = 2
TRIALS = 256
STARTS = 5


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `resampled_accuracy` over (`resampled_rank`, `populations`)."""
    trials = trained.evaluation_task.sample(TRIALS, rng)
    rank = trained.change.numerical_rank
    found = [
        [_accuracy(trained, trials, R, count, rng) if rank >= R else np.nan for count in POPULATIONS] for R in RANKS
    ]
    described = {"long_name": "fraction of right trials with units drawn from a mixture of Gaussians"}
    return xr.Dataset(
        {"resampled_accuracy": (("resampled_rank", "populations"), np.array(found), described)},
        {"resampled_rank": list(RANKS), "populations": list(POPULATIONS)},
    )


@torch.no_grad()
def _accuracy(trained: TrainedNetwork, trials: Trials, rank: int, count: int, rng: np.random.Generator) -> float:
    """Return the mean accuracy of networks drawn from `count` populations."""
    try:
        mixture = populations(trained.before, trained.after, rank, count, rng, starts=STARTS)
    except InputError:  # too few units
        return np.nan
    task: Any = trained.task
    accuracies = []
    for _ in range(DRAWS):
        outputs = outputs_of(mixture.draw(rng), trials.inputs, rng)
        accuracies.append(task.trial_accuracy(outputs, trials.targets, trials.mask))
    return float(np.mean(accuracies))


def _applies(network: Network, task: Task, matrices: Matrices) -> str | None:
    if not isinstance(network, RateRNN) or network.tau is not None:
        return "the network is no rate network without time constants of single units"
    if importlib.util.find_spec("sklearn") is None:
        return "it needs scikit-learn: pip install 'rankscope[populations]'"
    return judged_by_trial(network, task, matrices)


RESAMPLED = Measurement(
    "populations",
    "fraction of right trials of networks with units drawn from one or more Gaussians",
    compute,
    _applies,
    by_default=False,
)
