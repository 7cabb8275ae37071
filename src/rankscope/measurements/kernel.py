"""Alignment of the tangent kernels and of the representations before and after learning: lazy (1) or rich.

See `regime/kernel.py` and `regime/representation.py` for the formulas, bounds and the null.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.measurements.base import Matrices, Measurement, TrainedNetwork, scalar
from rankscope.networks.protocol import Network
from rankscope.networks.rate import RateRNN
from rankscope.regime import TRIALS, activity, representation_alignment
from rankscope.regime.kernel import kernels
from rankscope.tasks.trials import Task


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `kernel_alignment` with its error, `recurrent_kernel_alignment`, and `representation_alignment`."""
    trials = trained.evaluation_trials(rng)[:TRIALS]
    before, after = trained.before, trained.after
    assert isinstance(before, RateRNN)
    assert isinstance(after, RateRNN)
    parts = after.trained or ("recurrent",)
    found = kernels((before, after), trials, dict.fromkeys((*parts, "recurrent")), None, rng)
    whole, recurrent = found.alignment(parts), found.alignment(["recurrent"])
    states = representation_alignment(*(activity(network, trials, rng).last for network in (before, after)))
    return xr.Dataset(
        {
            "kernel_alignment": scalar(whole.value, "alignment of the tangent kernels before and after learning"),
            "kernel_alignment_error": scalar(whole.error, "standard error of the alignment of the tangent kernels"),
            "recurrent_kernel_alignment": scalar(
                recurrent.value, "alignment of the tangent kernels of the recurrent weights alone"
            ),
            "representation_alignment": scalar(
                states.value, "alignment of inner products of the last states, before and after learning"
            ),
            "representation_alignment_null": scalar(
                states.null, "alignment of inner products of the last states with permuted trials"
            ),
        }
    )


def rate_network(network: Network, task: Task, matrices: Matrices) -> str | None:
    """Require a rate network."""
    return None if isinstance(network, RateRNN) else "it needs a rate network"


KERNEL = Measurement(
    "kernel", "alignment of tangent kernels and representations, lazy or rich", compute, rate_network, by_default=False
)
