"""Loss of the trained network on fresh trials."""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.measurements.base import Measurement, TrainedNetwork, scalar
from rankscope.training import evaluate


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `evaluation_loss`."""
    loss = evaluate(trained.after, trained.evaluation_trials(rng), rng, trained.loss_function)
    return xr.Dataset({"evaluation_loss": scalar(loss, "loss after learning, on fresh trials")})


EVALUATION = Measurement("evaluation", "loss after learning, on fresh trials", compute)
