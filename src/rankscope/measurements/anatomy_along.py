"""Growth of the directions of the change along training, from the copies of the network that the training kept.

See `lowrank/anatomy/growth.py`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.lowrank.anatomy import weights_of
from rankscope.measurements.anatomy import described
from rankscope.measurements.base import Measurement, TrainedNetwork


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `growth_strength` and more over `growth_record`, and `half_growth_epoch`."""
    directions = described(trained)
    weights = {epoch: weights_of(network, directions.blocks) for epoch, network in trained.kept.items()}
    return directions.over(weights, trained.record.sizes["epoch"])


ANATOMY_ALONG = Measurement(
    "anatomy_along",
    "growth of the directions of the change along training",
    compute,
    by_default=False,
    along=True,
)
