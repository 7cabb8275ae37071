"""Whose directions learning writes, against the gain g of the random connectivity: the anatomy of three tasks.

At g = 0 the directions of the change lie along input and output vectors. Random connectivity turns them away, into the
space of activity and adjoints that it shapes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from rankscope.experiments.base import MEASURED, PAPER_EPOCHS, PAPER_SIZE, QUICK_SIZE, Experiment, nonlinear_jobs
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Finding, all_of, claim, values
from rankscope.sweep import Job

GAINS = dict.fromkeys(PAPER_EPOCHS, (0.0, 0.9, 1.8))


@claim(
    "{task}: reads inputs",
    "{task}: without random connectivity the strongest direction reads the inputs (overlap of v above five times that "
    "of a random direction at g = 0)",
    "not in the paper",
)
def _reads_inputs(dataset: xr.Dataset, task: str) -> Finding:
    at: dict[str, Any] = {"partner": "inputs", "side": "right", "stage": "before"}
    found = values(dataset, "overlap", task=task, gain=0.0, direction=1, **at)
    nulls = values(dataset, "overlap_null", task=task, gain=0.0, **at)
    if not found.size:
        return NOT_IN_THIS_RUN
    return Finding(f"{found.mean():.2f}, random {nulls.mean():.2g}", bool(found.mean() > 5 * nulls.mean()))


@claim(
    "{task}: activity tells",
    "{task}: at every g, ten components of activity after learning hold five times the share of ‖dW‖^2 that they have "
    "of a random change",
    "not in the paper",
)
def _activity_tells(dataset: xr.Dataset, task: str) -> Finding:
    ratios = {}
    for gain in GAINS[task]:
        at = {"activity_component": 10, "stage": "after"}
        found = values(dataset, "activity_share", task=task, gain=gain, **at)
        if found.size:
            ratios[gain] = float(np.mean(found)) / float(
                values(dataset, "activity_share_null", activity_component=10)[0]
            )
    return all_of(ratios, lambda ratio: f"{ratio:.0f} times", lambda ratio: ratio > 5)


def _jobs(samples: int, size: int) -> list[Job]:
    # The networks of `gain`, with one more measurement: a reproduction trains them once.
    jobs = nonlinear_jobs(GAINS, samples, [size])
    return [job.model_copy(update={"measurements": (*MEASURED, "anatomy")}) for job in jobs]


ALIGNMENT = Experiment(
    name="alignment",
    description="Three tasks at g = 0, 0.9 and 1.8: whose directions learning writes (inputs, outputs, activity)",
    presets={"quick": lambda: _jobs(1, QUICK_SIZE), "paper": lambda: _jobs(5, PAPER_SIZE)},
    claims=tuple(one.at(task=task) for task in GAINS for one in (_reads_inputs, _activity_tells)),
)
