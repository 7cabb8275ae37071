"""Singular values of the weights of a gated network, of each matrix as a whole and of the block of each gate.

A recurrent matrix of an LSTM is (4N, N): the blocks of its input, forget, cell and output gates stacked.

Source: Schuessler et al. 2020, Fig. 5 and supplementary figures of the sentiment task.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.linalg.threads import threads_for
from rankscope.measurements.base import Measurement, TrainedNetwork, filled
from rankscope.networks.gated import GatedRNN

Array = NDArray[np.floating[Any]]


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `singular_value` (weight, matrix, singular_index) and `gate_singular_value` (..., gate, ...)."""
    assert isinstance(trained.after, GatedRNN)
    gates = [gate.name for gate in trained.after.gates]
    sizes = [min(dW.matrix.shape) for dW in trained.changes.values()]
    whole, by_gate = [], []
    with threads_for(max(sizes)):
        for dW in trained.changes.values():
            stacked = np.stack([dW.before, dW.matrix, dW.after])
            whole.append(np.linalg.svdvals(stacked))
            by_gate.append(np.linalg.svdvals(stacked.reshape(3, len(gates), -1, stacked.shape[-1])))
    return xr.Dataset(
        {
            "singular_value": (
                ("weight", "matrix", "singular_index"),
                filled(whole, max(sizes)),
                {"long_name": "singular value"},
            ),
            "gate_singular_value": (
                ("weight", "matrix", "gate", "singular_index"),
                filled(by_gate, max(sizes)),
                {"long_name": "singular value of the block of a gate"},
            ),
        },
        {
            "weight": trained.short_names,
            "matrix": ["initial", "change", "trained"],
            "gate": gates,
            "singular_index": np.arange(1, max(sizes) + 1),
        },
    )


GATE_SPECTRA = Measurement(
    "gate_spectra",
    "singular values of W0, dW and W of a gated network, whole and by gate",
    compute,
    lambda network, task, matrices: None if isinstance(network, GatedRNN) else "the network is not a GatedRNN",
)
