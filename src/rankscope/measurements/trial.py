"""One fixed trial of the task: its inputs, targets and mask, and the outputs of the trained network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from rankscope.measurements.base import Matrices, Measurement, TrainedNetwork, has_validation
from rankscope.networks.protocol import Network, evaluating, outputs_of
from rankscope.tasks.trials import Task, Trials, as_trials


@torch.no_grad()
def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `example_input`, `example_target`, `example_mask` and `example_output` over `step`."""
    trial = _example(trained.evaluation_task)
    with evaluating(trained.after):
        outputs = outputs_of(trained.after, trial.inputs, rng)
    rows = {
        "example_input": ("input_channel", trial.inputs, "input"),
        "example_target": ("output_channel", trial.targets, "target"),
        "example_mask": ("output_channel", trial.mask, "mask"),
        "example_output": ("output_channel", outputs, "output"),
    }
    time = (np.arange(trial.steps) + 1) * _dt(trained.after, trained.task)
    return xr.Dataset(
        {name: (("step", dim), x[0].double().numpy(), {"long_name": text}) for name, (dim, x, text) in rows.items()},
        {"time": ("step", time, {"long_name": "time", "units": "membrane time constants"})},
    )


def applies(network: Network, task: Task, matrices: Matrices) -> str | None:
    """Require trials that are functions of time."""
    return "the trials of a data set are not functions of time" if has_validation(task) else None


def _example(task: Any) -> Trials:
    """Return the task's own example, or its first trial from a fixed seed."""
    return as_trials(task.example() if hasattr(task, "example") else task.sample(1, np.random.default_rng(0)))


def _dt(network: Any, task: Any) -> float:
    """Return the length of a step: the network's, or the task's, or one time constant."""
    return float(network.dynamics.dt if hasattr(network, "dynamics") else getattr(task, "dt", 1.0))


TRIAL = Measurement("trial", "one trial: inputs, targets, outputs", compute, applies)
