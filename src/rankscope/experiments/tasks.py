"""Paper Fig. 1: three tasks learned from no connectivity and from strong random connectivity.

One trial, the loss over epochs, the singular values of the change, and the loss when the change is cut down to a rank.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.experiments.base import (
    PAPER_EPOCHS,
    PAPER_SIZE,
    QUICK_SIZE,
    Experiment,
    nonlinear_cells,
)
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding, values
from rankscope.experiments.gain import NAMES, RANK, few_directions

GAINS = dict.fromkeys(PAPER_EPOCHS, (0.0, 0.9))
DIRECTIONS = 10


def low_rank(dataset: xr.Dataset, task: str) -> Finding:
    """Find whether the first ten directions carry four fifths of |dW|^2."""
    shares = {}
    for gain in np.atleast_1d(dataset["gain"].values):
        of_change = dataset[["singular_value"]].sel(matrix="change")
        s = values(of_change, "singular_value", task=task, gain=float(gain))
        if s.size:
            shares[float(gain)] = np.square(s[:DIRECTIONS]).sum() / np.square(s).sum()
    if not shares:
        return NOT_IN_THIS_RUN
    text = ", ".join(f"{100 * share:.0f} % at g = {gain:g}" for gain, share in shares.items())
    return Finding(text, all(share > 0.8 for share in shares.values()))


def learned(dataset: xr.Dataset, task: str) -> Finding:
    """Find whether every network converged."""
    gains = [float(gain) for gain in np.atleast_1d(dataset["gain"].values)]
    done = sum(values(dataset, "convergence_epoch", task=task, gain=gain).size for gain in gains)
    all_of_them = sum(values(dataset, "initial_loss", task=task, gain=gain).size for gain in gains)
    if not all_of_them:
        return NOT_IN_THIS_RUN
    return Finding(f"{done} of {all_of_them} converged", done == all_of_them)


def _claims(task: str) -> tuple[Claim, ...]:
    return (
        Claim(
            f"{task}: learned",
            f"{NAMES[task]} is learned from both: the loss falls below 5 % of the initial one",
            "both",
            lambda dataset: learned(dataset, task),
        ),
        Claim(
            f"{task}: low rank",
            f"the first {DIRECTIONS} directions carry more than 80 % of |dW|^2",
            "a handful of directions",
            lambda dataset: low_rank(dataset, task),
        ),
        Claim(
            f"{task}: few directions",
            "a handful of directions suffices (functional rank at most 10)",
            RANK[task],
            lambda dataset: few_directions(dataset, task),
        ),
    )


TASKS = Experiment(
    name="tasks",
    description="Three tasks at g = 0 and 0.9, one network each (paper Fig. 1)",
    presets={
        "quick": lambda: nonlinear_cells(GAINS, 1, [QUICK_SIZE]),
        "paper": lambda: nonlinear_cells(GAINS, 1, [PAPER_SIZE]),
    },
    claims=tuple(claim for task in GAINS for claim in _claims(task)),
)
