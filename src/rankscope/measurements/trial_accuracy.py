"""Fraction of trials with the right answer, over the rank of the truncated change.

For tasks that are judged trial by trial (`tasks/fixed_set.py`): on 512 fresh trials, with the network's noise, the same
trials and noise at every rank.

Source: Dubreuil et al. 2022, truncation of networks that were trained without constraints.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from rankscope import lowrank
from rankscope.measurements.base import Matrices, Measurement, TrainedNetwork, scalar
from rankscope.networks.protocol import Network
from rankscope.tasks.trials import Task
from rankscope.training import Loss


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `trial_accuracy`, and `accuracy_of_rank` over `accuracy_rank`."""
    curve = lowrank.truncation_curve(
        trained.before,
        trained.after,
        trained.evaluation_trials(rng),
        rng=rng,
        loss=error_of(trained.task),
        matrices=trained.names,
    )
    return xr.Dataset(
        {
            "trial_accuracy": scalar(1 - curve.full, "fraction of right trials, on fresh trials"),
            "accuracy_of_rank": (
                "accuracy_rank",
                1 - curve.scores,
                {"long_name": "fraction of right trials with the change truncated to this rank"},
            ),
        },
        {"accuracy_rank": list(curve.ranks)},
    )


def error_of(task: Any) -> Loss:
    """Return the fraction of wrong trials of a task, as a loss."""

    def wrong(outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        return torch.tensor(1 - task.trial_accuracy(outputs, targets, mask), dtype=torch.float64)

    return wrong


def judged_by_trial(network: Network, task: Task, matrices: Matrices) -> str | None:
    """Require a task that is judged trial by trial."""
    return None if callable(getattr(task, "trial_accuracy", None)) else "the task has no trial_accuracy"


TRIAL_ACCURACY = Measurement(
    "trial_accuracy", "fraction of right trials with the change truncated to rank 0 to 25", compute, judged_by_trial
)
