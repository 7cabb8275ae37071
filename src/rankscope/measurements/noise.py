"""Loss that noise along the outputs, principal components and random directions adds; see `regime/noise.py`."""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.measurements.base import Measurement, TrainedNetwork, scalar
from rankscope.measurements.kernel import rate_network
from rankscope.networks.rate import RateRNN
from rankscope.regime import TRIALS, noise_loss
from rankscope.regime.noise import SIZE
from rankscope.tasks.trials import as_trials


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `output_noise_loss`, `component_noise_loss` and `random_noise_loss`."""
    assert isinstance(trained.after, RateRNN)
    trials = as_trials(trained.evaluation_task.sample(TRIALS, rng))  # many also of a task with one
    found = noise_loss(trained.after, trials, loss=trained.loss_function, rng=rng)
    kinds = {"output": "the outputs", "component": "principal components", "random": "random directions"}
    losses = dict(zip(kinds, (found.outputs, found.components, found.random), strict=True))
    return xr.Dataset(
        {
            f"{kind}_noise_loss": scalar(
                (losses[kind] - found.without) / found.silent if found.silent else None,
                f"loss that noise along {name} adds, relative to the loss of zero output",
            )
            for kind, name in kinds.items()
        },
        attrs={"noise_size": SIZE},
    )


NOISE = Measurement(
    "noise", "loss under noise along outputs, principal components, random directions", compute, rate_network,
    by_default=False,
)  # fmt: skip
