"""Loss after shuffling the initial weights: how much the change depends on the W0 that it was learned on.

The entries of W0 are permuted at random, dW and all other weights stay as trained. The loss of that network is given
relative to the loss at epoch 0: 0 means that the change works on any W0, about 1 that all learning is lost.

Source: Schuessler et al. 2020, Fig. 2 (loss after shuffle).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope import lowrank
from rankscope.measurements.base import Measurement, TrainedNetwork, scalar


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `shuffled_loss`."""
    loss = lowrank.shuffled_loss(
        trained.before, trained.after, trained.evaluation_trials(rng), rng, trained.loss_function, trained.names
    )
    losses = trained.record["loss"].values
    relative = loss / float(losses[0]) if losses.size else None
    text = "loss after shuffling the initial weights, relative to the loss at epoch 0"
    return xr.Dataset({"shuffled_loss": scalar(relative, text)})


SHUFFLE = Measurement("shuffle", "loss after shuffling the initial weights", compute)
