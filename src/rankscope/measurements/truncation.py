"""Loss of the network with its change truncated to rank R, and the functional rank.

The weights are W0 + sum_{k <= R} s_k u_k v_k^T, with dW = sum_k s_k u_k v_k^T the singular value decomposition of the
change and all other weights as trained. The functional rank is the smallest R whose loss is below 5 % of that of R = 0.
Several matrices are truncated together, each to rank R.

Source: Schuessler et al. 2020, Fig. 1 (loss after truncation) and Fig. 2 (functional rank).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope import lowrank
from rankscope.measurements.base import (
    Measurement,
    TrainedNetwork,
    has_validation,
    scalar,
)


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `truncation_loss` over `rank`, and `functional_rank`."""
    curve = lowrank.truncation_curve(
        trained.before,
        trained.after,
        trained.evaluation_trials(rng),
        rng=rng,
        loss=trained.loss_function,
        matrices=trained.names,
    )
    return xr.Dataset(
        {
            "truncation_loss": ("rank", curve.scores, {"long_name": "loss with the change truncated to this rank"}),
            "functional_rank": scalar(
                lowrank.functional_rank(curve), "smallest rank with a truncation loss below 5 % of that of rank 0"
            ),
        },
        {"rank": list(curve.ranks)},
    )


TRUNCATION = Measurement(
    "truncation",
    "loss with the change truncated to rank 0 to 25, and functional rank",
    compute,
    lambda network, task, matrices: (
        "accuracy_truncation evaluates on the validation data of the task" if has_validation(task) else None
    ),
)
