"""Schuessler et al. 2020, Fig. 1: three tasks learned without and with random connectivity; the change has low rank."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from rankscope.experiments.base import NAMES, PAPER_EPOCHS, PAPER_SIZE, QUICK_SIZE, Experiment, nonlinear_jobs
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding, by_gain, rows
from rankscope.experiments.gain import RANK, few_directions

GAINS = dict.fromkeys(PAPER_EPOCHS, (0.0, 0.9))
DIRECTIONS = 10


def low_rank(dataset: xr.Dataset, task: str) -> Finding:
    """Check that the first ten directions of dW have 80 % of |dW|^2 in every network."""
    shares = {}
    for gain in map(float, np.atleast_1d(dataset["gain"].values)):
        spectra = rows(dataset, "singular_value", "singular_index", matrix="change", task=task, gain=gain)
        if spectra:
            shares[gain] = min(np.square(s[:DIRECTIONS]).sum() / np.square(s).sum() for s in spectra)
    if not shares:
        return NOT_IN_THIS_RUN
    text = ", ".join(f"{100 * share:.0f} % at g = {gain:g}" for gain, share in shares.items())
    return Finding(text, all(share > 0.8 for share in shares.values()))


def learned(dataset: xr.Dataset, task: str) -> Finding:
    """Check that every network converged."""
    done, there = (
        sum(x.size for x in by_gain(dataset, name, task=task).values())
        for name in ("convergence_epoch", "initial_loss")
    )
    return Finding(f"{done} of {there} converged", done == there) if there else NOT_IN_THIS_RUN


def _claims(task: str) -> tuple[Claim, ...]:
    return (
        Claim(
            f"{task}: learned",
            f"{NAMES[task]} is learned from both: the loss falls below 5 % of the initial one",
            "both",
            partial(learned, task=task),
        ),
        Claim(
            f"{task}: low rank",
            f"the first {DIRECTIONS} directions carry more than 80 % of |dW|^2",
            "a handful of directions",
            partial(low_rank, task=task),
        ),
        Claim(
            f"{task}: few directions",
            "a handful of directions suffices (functional rank at most 10)",
            RANK[task],
            partial(few_directions, task=task),
        ),
    )


TASKS = Experiment(
    name="tasks",
    description="Three tasks at g = 0 and 0.9, one network each (paper Fig. 1)",
    presets={
        "quick": lambda: nonlinear_jobs(GAINS, 1, [QUICK_SIZE]),
        "paper": lambda: nonlinear_jobs(GAINS, 1, [PAPER_SIZE]),
    },
    claims=tuple(claim for task in GAINS for claim in _claims(task)),
)
