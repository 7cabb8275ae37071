"""Whose directions the change consists of, for each measured matrix, of layers with gates gate by gate.

See `lowrank/anatomy/`, one file for each: overlaps with inputs, outputs and their images under W0; shares in activity
and adjoints; what is visible in W; intruder dimensions; the part along W0.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.lowrank.anatomy import TRIALS, Described
from rankscope.measurements.base import Measurement, TrainedNetwork


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return the anatomy over `block`, `direction`, `side`, `partner` and `stage`."""
    trials = trained.evaluation_trials(rng)[:TRIALS]
    return described(trained).now(trials, trained.loss_function, rng)


def described(trained: TrainedNetwork) -> Described:
    """Return the directions of the change of a trained network, and their partners."""
    return Described(trained.before, trained.after, trained.names)


# Not by default: with two decompositions of W it takes about a third of the time of `truncation`.
ANATOMY = Measurement(
    "anatomy", "whose directions the change consists of: inputs, outputs, activity, adjoints, W0", compute,
    by_default=False,
)  # fmt: skip
