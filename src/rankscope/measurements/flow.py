"""Fixed points of the trained network without input, and the flow in the plane of two directions of the change.

See `dynamics/flow.py`. Fixed points are searched from states along trials; further ones may exist.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.dynamics import flow
from rankscope.measurements.base import Measurement, TrainedNetwork, one_square_matrix
from rankscope.measurements.kernel import rate_network
from rankscope.networks.rate import RateRNN


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return the flow over `flow_x` and `flow_y`, and `stable_fixed_points_found`."""
    assert isinstance(trained.before, RateRNN)
    assert isinstance(trained.after, RateRNN)
    return flow(trained.before, trained.after, trained.evaluation_trials(rng)[:TRIALS], rng=rng)


TRIALS = 32
FLOW = Measurement(
    "flow",
    "fixed points, and the flow in the plane of two directions of the change",
    compute,
    lambda network, task, matrices: rate_network(network, task, matrices) or one_square_matrix(network, task, matrices),
    by_default=False,
)
