"""The course of the training: losses, gradient norms, growth of the change, time to convergence.

The convergence epoch is the first whose loss is below 5 % of that of epoch 0. The average gradient is the gradient norm
averaged over the learning time (learning rate times epoch) up to convergence; for a constant learning rate that is the
mean over epochs. Both are NaN for a training that does not converge.

Source: Schuessler et al. 2020, Fig. 2 (convergence) and Fig. 4 (average gradient).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.measurements.base import Measurement, TrainedNetwork, scalar
from rankscope.training.convergence import convergence_epoch


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return the record of the training, and its scalars."""
    record = trained.record
    losses = record["loss"].values
    convergence = convergence_epoch(losses) if losses.size else None
    average = np.mean(record["gradient_norm"].values[:convergence]) if convergence else None
    return record.assign(
        initial_loss=scalar(losses[0] if losses.size else None, "loss at epoch 0"),
        convergence_epoch=scalar(convergence, "first epoch with a loss below 5 % of the initial one"),
        average_gradient=scalar(average, "gradient norm, averaged over the learning time up to convergence"),
        status=scalar(record.attrs["status"], "how the training ended"),
    )


LEARNING = Measurement("learning", "losses, gradient norms, convergence, growth of the change", compute)
