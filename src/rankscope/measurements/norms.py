"""Frobenius norms of the change dW and of the trained weights W.

For several matrices, the norm is that of all entries together: |dW|^2 = sum_k |dW_k|^2.

Source: Schuessler et al. 2020, Fig. 2 (norm of the change).
"""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from rankscope.measurements.base import Measurement, TrainedNetwork, scalar


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `change_norm` and `trained_norm`."""
    changes = trained.changes.values()
    change = math.hypot(*(dW.norm for dW in changes))
    after = math.hypot(*(float(np.linalg.norm(dW.after)) for dW in changes))
    return xr.Dataset(
        {
            "change_norm": scalar(change, "Frobenius norm of the change of the recurrent weights"),
            "trained_norm": scalar(after, "Frobenius norm of the recurrent weights after learning"),
        }
    )


NORMS = Measurement("norms", "Frobenius norms of the change and of the trained weights", compute)
