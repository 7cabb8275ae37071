"""Fraction of correct decisions in a task of NeuroGym, over the rank of the truncated change.

The stimuli of most of these tasks are noisy, so that the loss does not fall to 5 % of the initial one. Learning is
therefore measured by the score of the decisions as well. For discrete actions the score is the balanced accuracy, the
fraction of correct steps averaged over the classes that occur: chance is one over their number. Otherwise it is the
explained variance, with chance 0. The score rank is the smallest rank that keeps 95 % of the score above chance.

`fall_epoch` replaces the convergence epoch: the first epoch from which the loss, averaged over 20 epochs, has made 95 %
of its fall.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from rankscope import lowrank
from rankscope.measurements.base import (
    EVALUATION_TRIALS,
    Measurement,
    TrainedNetwork,
    scalar,
)
from rankscope.tasks.neurogym import NeuroGym
from rankscope.training import evaluate
from rankscope.training.convergence import convergence_epoch

KEPT = 0.95
SMOOTHED = 20


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return scores before and after learning and over `rank`, chance, score rank, fall epoch, steps of a trial."""
    task: Any = trained.evaluation_task
    decisions = task.decisions(EVALUATION_TRIALS, rng)
    discrete = task.loss == "cross_entropy"
    error = wrong if discrete else unexplained
    kind = "balanced accuracy" if discrete else "explained variance"
    first, last = (1 - evaluate(network, decisions, rng, error) for network in (trained.before, trained.after))
    truncated = lowrank.truncation_curve(
        trained.before, trained.after, decisions, rng=rng, loss=error, matrices=trained.names
    )
    curve = lowrank.TruncationCurve(truncated.ranks, 1 - truncated.scores, last, higher_is_better=True)
    chance = 1 / len(_classes(decisions.targets, decisions.mask)) if discrete else 0.0
    rank = lowrank.functional_rank(curve, "recovered", baseline=chance) if last > chance else None
    return xr.Dataset(
        {
            "score": scalar(last, f"{kind} of the decisions, on fresh trials"),
            "initial_score": scalar(first, f"{kind} of the decisions before learning"),
            "chance": scalar(chance, "score of a guess"),
            "score_rank": scalar(rank, "smallest rank that keeps 95 % of the score above chance"),
            "truncation_score": ("rank", curve.scores, {"long_name": "score with the change truncated to this rank"}),
            "fall_epoch": scalar(
                fall_epoch(trained.record["loss"].values),
                f"first epoch from which the loss over {SMOOTHED} epochs has made 95 % of its fall",
            ),
            "steps": ((), task.steps, {"long_name": "steps of a trial"}),
        },
        {"rank": list(curve.ranks)},
    )


def fall_epoch(losses: np.ndarray[Any, Any]) -> int | None:
    """Return the epoch from which the smoothed loss has made 95 % of its fall; None if it does not fall."""
    window = min(SMOOTHED, len(losses))
    if not window:
        return None
    smooth = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    return convergence_epoch(smooth - smooth[-1], 1 - KEPT) if smooth[0] > smooth[-1] else None


def wrong(outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the fraction of wrongly decided steps, averaged over the classes of the targets."""
    counted = mask[..., 0] > 0
    decided, wanted = outputs.argmax(-1)[counted], targets.argmax(-1)[counted]
    right = [(decided[wanted == one] == one).double().mean() for one in _classes(targets, mask)]
    return 1 - torch.stack(right).mean()


def unexplained(outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared error over the variance of the targets, all channels together."""
    counted = mask[..., 0] > 0
    error, wanted = (outputs - targets)[counted].double(), targets[counted].double()
    return error.square().sum() / (wanted - wanted.mean(0)).square().sum()


def _classes(targets: Tensor, mask: Tensor) -> list[int]:
    return sorted(set(targets.argmax(-1)[mask[..., 0] > 0].tolist()))


SCORE = Measurement(
    "score",
    "correct decisions in a task of NeuroGym, over rank",
    compute,
    lambda network, task, matrices: None if isinstance(task, NeuroGym) else "the task is not one of NeuroGym",
)
