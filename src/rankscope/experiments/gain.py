"""Paper Fig. 2: how the strength g of the random connectivity shapes learning and what it leaves behind.

Three tasks, all gains, five networks each: convergence time, size of the change, loss after shuffling W0, functional
rank. Learning is fastest at intermediate g, the change shrinks as g grows, and it depends on the W0 it was learned on.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.experiments.base import (
    PAPER_SIZE,
    QUICK_SIZE,
    Experiment,
    nonlinear_cells,
    up_to,
)
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding, mean_and_error, values

GAINS = {"flipflop": up_to(2.1), "mante": up_to(2.7), "romo": up_to(3.0)}
QUICK_GAINS = {task: [0.0, 0.6, 1.2, 1.8] for task in GAINS}
NAMES = {"flipflop": "flip-flop", "mante": "Mante", "romo": "Romo"}
# Read off the paper's figures by eye: convergence at g = 0 and at the best gain; |dW| at g = 0 and 1.8; ranks.
CONVERGENCE = {
    "flipflop": ("100", "40 at g about 0.9"),
    "mante": ("370", "40 at g about 1.2"),
    "romo": ("about 3000", "60 at g about 2"),
}
NORM = {"flipflop": ("1.85", "0.6"), "mante": ("2.0", "0.75"), "romo": ("3.4 to 4.3", "1.0")}
RANK = {"flipflop": "2 at g = 0, 4 to 6 at g = 0.9", "mante": "4 to 5", "romo": "6 to 7"}


def fastest_in_between(dataset: xr.Dataset, task: str) -> Finding:
    """Find whether some g > 0 learns at least twice as fast as g = 0."""
    at_zero = values(dataset, "convergence_epoch", task=task, gain=0.0)
    times = {
        float(gain): found.mean()
        for gain in np.atleast_1d(dataset["gain"].values)
        if gain > 0 and (found := values(dataset, "convergence_epoch", task=task, gain=float(gain))).size
    }
    if not times:
        return NOT_IN_THIS_RUN
    best = min(times, key=lambda gain: times[gain])
    start = mean_and_error(at_zero) if at_zero.size else "never"
    text = f"{start} at g = 0, {times[best]:.3g} at g = {best:g}"
    return Finding(text, not at_zero.size or bool(times[best] < at_zero.mean() / 2))


def change_shrinks(dataset: xr.Dataset, task: str) -> Finding:
    """Find whether |dW| at g = 1.8 is below 60 % of that at g = 0."""
    weak, strong = (values(dataset, "change_norm", task=task, gain=gain) for gain in (0.0, 1.8))
    if not weak.size or not strong.size:
        return NOT_IN_THIS_RUN
    text = f"{mean_and_error(weak)} at g = 0, {mean_and_error(strong)} at g = 1.8"
    return Finding(text, bool(strong.mean() < 0.6 * weak.mean()))


def tied_to_its_connectivity(dataset: xr.Dataset, task: str) -> Finding:
    """Find whether shuffling W0 costs nothing at g = 0, and everything from g = 0.6 on."""
    nothing = values(dataset, "shuffled_loss", task=task, gain=0.0)
    gains = [float(gain) for gain in np.atleast_1d(dataset["gain"].values) if gain >= 0.6]
    found = [values(dataset, "shuffled_loss", task=task, gain=gain) for gain in gains]
    means = [losses.mean() for losses in found if losses.size]
    if not nothing.size or not means:
        return NOT_IN_THIS_RUN
    text = f"{nothing.mean():.2g} at g = 0, {min(means):.2f} to {max(means):.2f} from g = 0.6 on"
    return Finding(text, bool(np.median(nothing) < 0.05 and min(means) > 0.7 and max(means) < 1.6))


def few_directions(dataset: xr.Dataset, task: str) -> Finding:
    """Find whether a handful of directions suffices at every gain: a mean functional rank of at most 10."""
    gains = np.atleast_1d(dataset["gain"].values)
    ranks = {float(g): r for g in gains if (r := values(dataset, "functional_rank", task=task, gain=float(g))).size}
    if not ranks:
        return NOT_IN_THIS_RUN
    shown = [g for g in (0.0, 0.9, 1.8) if g in ranks] or list(ranks)[:3]
    most = max(ranks, key=lambda g: float(ranks[g].mean()))
    text = ", ".join(f"{mean_and_error(ranks[g])} at g = {g:g}" for g in dict.fromkeys([*shown, most]))
    return Finding(text, bool(ranks[most].mean() <= 10))


def _claims(task: str) -> tuple[Claim, ...]:
    name, slow_fast, norms = NAMES[task], CONVERGENCE[task], NORM[task]
    return (
        Claim(
            f"{task}: fastest in between",
            f"{name} is learned at least twice as fast at some g > 0 as at g = 0 (epochs to converge)",
            f"{slow_fast[0]} at g = 0, {slow_fast[1]}",
            lambda dataset: fastest_in_between(dataset, task),
        ),
        Claim(
            f"{task}: change shrinks",
            "|dW| at g = 1.8 is below 60 % of that at g = 0",
            f"{norms[0]} at g = 0, {norms[1]} at g = 1.8",
            lambda dataset: change_shrinks(dataset, task),
        ),
        Claim(
            f"{task}: tied to its W0",
            "loss after shuffling W0 / initial loss is 0 at g = 0 and about 1 from g = 0.6 on",
            "0 at g = 0, about 1 for g >= 0.6",
            lambda dataset: tied_to_its_connectivity(dataset, task),
        ),
        Claim(
            f"{task}: few directions",
            "a handful of directions suffices (functional rank at most 10 of N, at every gain)",
            RANK[task],
            lambda dataset: few_directions(dataset, task),
        ),
    )


GAIN = Experiment(
    name="gain",
    description="Three tasks, all gains, five networks each (paper Fig. 2)",
    presets={
        "quick": lambda: nonlinear_cells(QUICK_GAINS, 3, [QUICK_SIZE]),
        "paper": lambda: nonlinear_cells(GAINS, 5, [PAPER_SIZE]),
    },
    claims=(
        *_claims("flipflop"),
        *_claims("mante"),
        *_claims("romo"),
    ),
)
