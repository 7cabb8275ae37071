"""Accuracy and loss on validation data with the change, or the trained weights themselves, truncated to rank R.

All measured matrices are truncated together, each to rank R: W0 + dW_R for `truncated` = "change", and W_R for
"trained". The functional rank is the smallest one from which on the accuracy is within 0.01 of that with nothing
truncated.

Source: Schuessler et al. 2020, Fig. 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from torch import nn

from rankscope import lowrank
from rankscope.lowrank import TruncationCurve
from rankscope.measurements.base import Measurement, TrainedNetwork, has_validation, scalar
from rankscope.training import validate

EVERY_RANK_UP_TO, SPACING = 32, 4


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `truncation_accuracy` and `truncation_loss` over (truncated, rank), and the functional ranks."""
    found, losses = curves(trained)
    dims = ("truncated", "rank")
    ranks = [lowrank.functional_rank(curve, "accuracy") for curve in found]
    text = "smallest rank of the truncated {} from which on the accuracy is at most 0.01 lower"
    return xr.Dataset(
        {
            "truncation_loss": (dims, np.array(losses), {"long_name": "validation loss with all weights truncated"}),
            "truncation_accuracy": (
                dims,
                np.array([curve.scores for curve in found]),
                {"long_name": "validation accuracy with all weights truncated"},
            ),
            "functional_rank": scalar(ranks[0], text.format("change")),
            "functional_rank_trained": scalar(ranks[1], text.format("weights")),
        },
        {"truncated": ["change", "trained"], "rank": list(found[0].ranks)},
    )


def curves(trained: TrainedNetwork) -> tuple[tuple[TruncationCurve, ...], tuple[list[float], ...]]:
    """Return the accuracy over rank with the change truncated, then with the weights truncated; and the losses."""
    found, losses = zip(*(_curve(trained, truncate) for truncate in ("change", "weights")), strict=True)
    return found, losses


def _curve(trained: TrainedNetwork, truncate: Any) -> tuple[TruncationCurve, list[float]]:
    """Return the accuracies over rank, and the losses, which the same pass over the data gives."""
    batches = list(trained.task.validation())  # type: ignore[attr-defined]
    losses = []

    def accuracy(network: nn.Module) -> float:
        loss, right = validate(network, batches, trained.loss_function, trained.task)
        losses.append(loss)
        return right

    full_rank = max(min(dW.matrix.shape) for dW in trained.changes.values())
    ranks = [rank for rank in range(full_rank + 1) if rank <= EVERY_RANK_UP_TO or rank % SPACING == 0]
    curve = lowrank.truncation_curve(
        trained.before,
        trained.after,
        ranks=ranks,
        score=accuracy,
        higher_is_better=True,
        matrices=trained.names,
        truncate=truncate,
    )
    return curve, losses[: len(ranks)]


ACCURACY_TRUNCATION = Measurement(
    "accuracy_truncation",
    "validation accuracy with the change or the weights truncated",
    compute,
    lambda network, task, matrices: None if has_validation(task) else "the task has no validation data",
)
