"""One fixed trial of the task: its inputs, targets and mask, and the outputs of the trained network."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from rankscope.measurements.base import Measurement, TrainedNetwork, has_validation
from rankscope.networks.protocol import evaluating, outputs_of
from rankscope.tasks.trials import as_trials


@torch.no_grad()
def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `example_input`, `example_target`, `example_mask` and `example_output` over `step`."""
    task = trained.evaluation_task
    trial = as_trials(task.example() if hasattr(task, "example") else task.sample(1, np.random.default_rng(0)))
    with evaluating(trained.after):
        outputs = outputs_of(trained.after, trial.inputs, rng)
    rows = {
        "example_input": ("input_channel", trial.inputs, "input"),
        "example_target": ("output_channel", trial.targets, "target"),
        "example_mask": ("output_channel", trial.mask, "mask"),
        "example_output": ("output_channel", outputs, "output"),
    }
    # The length of a step is the network's, or the task's, or one time constant.
    dt = getattr(getattr(trained.after, "dynamics", trained.task), "dt", 1.0)
    time = (np.arange(trial.steps) + 1) * float(dt)
    return xr.Dataset(
        {name: (("step", dim), x[0].double().numpy(), {"long_name": text}) for name, (dim, x, text) in rows.items()},
        {"time": ("step", time, {"long_name": "time", "units": "membrane time constants"})},
    )


TRIAL = Measurement(
    "trial",
    "one trial: inputs, targets, outputs",
    compute,
    lambda network, task, matrices: (
        "the trials of a data set are not functions of time" if has_validation(task) else None
    ),
)
