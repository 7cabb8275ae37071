"""Schuessler et al. 2020, Fig. 1: three tasks learned without and with random connectivity; the change has low rank."""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.experiments.base import PAPER_EPOCHS, PAPER_SIZE, QUICK_SIZE, Experiment, nonlinear_jobs
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding, all_of, by_gain, claim, gains_of, rows
from rankscope.experiments.gain import HANDFUL, RANK, few_directions

GAINS = dict.fromkeys(PAPER_EPOCHS, (0.0, 0.9))
DIRECTIONS = 10


@claim(
    "{task}: low rank",
    f"{{task}}: the first {DIRECTIONS} directions carry more than 80 % of |dW|^2",
    "a handful of directions",
)
def _low_rank(dataset: xr.Dataset, task: str) -> Finding:
    # The least share of all networks.
    shares = {}
    for gain in gains_of(dataset):
        spectra = rows(dataset, "singular_value", "singular_index", matrix="change", task=task, gain=gain)
        if spectra:
            shares[gain] = min(np.square(s[:DIRECTIONS]).sum() / np.square(s).sum() for s in spectra)
    return all_of(shares, lambda share: f"{100 * share:.0f} %", lambda share: bool(share > 0.8))


@claim("{task}: learned", "{task} is learned from both: the loss falls below 5 % of the initial one", "both")
def _learned(dataset: xr.Dataset, task: str) -> Finding:
    done, there = (
        sum(x.size for x in by_gain(dataset, name, task=task).values())
        for name in ("convergence_epoch", "initial_loss")
    )
    return Finding(f"{done} of {there} converged", done == there) if there else NOT_IN_THIS_RUN


FEW_DIRECTIONS = Claim(
    "{task}: few directions",
    f"{{task}}: a handful of directions suffices (functional rank at most {HANDFUL})",
    RANK,
    few_directions,
)
TASKS = Experiment(
    name="tasks",
    description="Three tasks at g = 0 and 0.9, one network each (paper Fig. 1)",
    presets={
        "quick": lambda: nonlinear_jobs(GAINS, 1, [QUICK_SIZE]),
        "paper": lambda: nonlinear_jobs(GAINS, 1, [PAPER_SIZE]),
    },
    claims=tuple(one.at(task=task) for task in GAINS for one in (_learned, _low_rank, FEW_DIRECTIONS)),
)
