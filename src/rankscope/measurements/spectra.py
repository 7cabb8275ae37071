"""Singular values and eigenvalues of W0, dW and W.

A random W0 of gain g fills a disc of radius g with eigenvalues and has singular values from 0 to 2g; learning adds a
few outliers of both.

Source: Schuessler et al. 2020, supplementary figures of spectra.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope import lowrank
from rankscope.measurements.base import Matrices, Measurement, TrainedNetwork, one_square_matrix
from rankscope.networks.gated import GatedRNN
from rankscope.networks.protocol import Network
from rankscope.tasks.trials import Task


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `singular_value`, `eigenvalue_real` and `eigenvalue_imag` over `matrix`."""
    return lowrank.spectra(trained.change)


def applies(network: Network, task: Task, matrices: Matrices) -> str | None:
    """Require a single square matrix of a network without gates."""
    if isinstance(network, GatedRNN):
        return "gate_spectra measures the weights of gated networks"
    return one_square_matrix(network, task, matrices)


SPECTRA = Measurement("spectra", "singular values and eigenvalues of W0, dW and W", compute, applies)
