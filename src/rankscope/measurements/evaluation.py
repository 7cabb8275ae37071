"""Loss of the trained network: on fresh trials, or on validation data, there with the accuracy."""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.measurements.base import Measurement, TrainedNetwork, has_validation, scalar
from rankscope.training import evaluate, validate


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `evaluation_loss`, and with validation data `accuracy` and `initial_accuracy`."""
    if not has_validation(trained.task):
        loss = evaluate(trained.after, trained.evaluation_trials(rng), rng, trained.loss_function)
        return xr.Dataset({"evaluation_loss": scalar(loss, "loss after learning, on fresh trials")})
    batches = list(trained.task.validation())  # type: ignore[attr-defined]
    _, before = validate(trained.before, batches, trained.loss_function, trained.task)
    loss, after = validate(trained.after, batches, trained.loss_function, trained.task)
    return xr.Dataset(
        {
            "evaluation_loss": scalar(loss, "loss after learning, on validation data"),
            "initial_accuracy": scalar(before, "accuracy before learning, on validation data"),
            "accuracy": scalar(after, "accuracy after learning, on validation data"),
        }
    )


EVALUATION = Measurement("evaluation", "loss after learning, on fresh trials or validation data", compute)
