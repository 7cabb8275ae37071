"""Fraction of right trials of networks whose units are drawn anew, over rank and number of populations.

At each rank R, one Gaussian, or a mixture of two or three, is fitted to the units of the network with its change
truncated to R (`lowrank/resampling.py`). The accuracy is the mean over networks drawn from it, on the same 256 fresh
trials, with noise of their own. It is NaN where a change does not have R directions, or there are too few units for a
fit. Where W0 is zero, networks of four times as many units are drawn as well: a draw of few units fails by chance, even
where the statistics suffice. Needs the extra rankscope[populations].

Source: Dubreuil et al. 2022.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch
import xarray as xr

from rankscope.errors import InputError
from rankscope.lowrank.resampling import Populations, populations
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
LARGER = 4
"""How many times as many units a larger network has."""
LARGER_RANKS = range(1, 4)


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `resampled_accuracy`, and that of larger networks, over (`resampled_rank`, `populations`)."""
    trials = trained.evaluation_task.sample(TRIALS, rng)
    rank = trained.change.numerical_rank
    shape = len(RANKS), len(POPULATIONS)
    found, larger = np.full(shape, np.nan), np.full(shape, np.nan)
    zero = not trained.change.before.any()
    for i, R in enumerate(RANKS):
        for j, count in enumerate(POPULATIONS):
            mixture = _fit(trained, R, count, rng) if rank >= R else None
            if mixture is not None:
                found[i, j] = _accuracy(mixture, trained, trials, rng)
            if mixture is not None and zero and R in LARGER_RANKS:
                size = LARGER * len(mixture.points)
                larger[i, j] = _accuracy(mixture, trained, trials[: TRIALS // 2], rng, size)
    text = "fraction of right trials with units drawn from a mixture of Gaussians"
    dims = ("resampled_rank", "populations")
    return xr.Dataset(
        {
            "resampled_accuracy": (dims, found, {"long_name": text}),
            "resampled_accuracy_larger": (dims, larger, {"long_name": f"{text}, {LARGER} times as many"}),
        },
        {"resampled_rank": list(RANKS), "populations": list(POPULATIONS)},
    )


def _fit(trained: TrainedNetwork, rank: int, count: int, rng: np.random.Generator) -> Populations | None:
    """Return the mixture of `count` populations, or None if there are too few units."""
    try:
        return populations(trained.before, trained.after, rank, count, rng, starts=STARTS)
    except InputError:
        return None


@torch.no_grad()
def _accuracy(
    mixture: Populations, trained: TrainedNetwork, trials: Trials, rng: np.random.Generator, size: int | None = None
) -> float:
    """Return the mean accuracy of networks drawn from a mixture."""
    task: Any = trained.task
    accuracies = []
    for _ in range(DRAWS):
        outputs = outputs_of(mixture.draw(rng, size), trials.inputs, rng)
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
