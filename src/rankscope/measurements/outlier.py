"""Largest real part of an eigenvalue of the trained weights W.

A linear network is stable while it is below 1, and the answer to a constant input takes it close to 1.

Source: Schuessler et al. 2020, supplementary figure on divergence.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from rankscope.linalg import leading_eigenvalues
from rankscope.measurements.base import Measurement, TrainedNetwork, one_square_matrix, scalar


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `outlier`."""
    largest = leading_eigenvalues(torch.from_numpy(trained.change.after), 1)[0].real
    text = "largest real part of an eigenvalue of the recurrent weights after learning"
    return xr.Dataset({"outlier": scalar(largest, text)})


# Not by default: `spectra` contains it.
OUTLIER = Measurement("outlier", "largest real part of an eigenvalue of W", compute, one_square_matrix, False)
