"""Schuessler et al. 2020, Fig. 2: learning and the change it makes, against the gain g of the random connectivity.

Learning is fastest at intermediate g, the change shrinks as g grows, it depends on the W0 that it was learned on, and
few of its directions are needed.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.experiments.base import PAPER_SIZE, QUICK_SIZE, Experiment, nonlinear_jobs, up_to
from rankscope.experiments.claims import (
    NOT_IN_THIS_RUN,
    Array,
    Claim,
    Finding,
    by_gain,
    claim,
    mean_and_error,
    standard_error,
    values,
)
from rankscope.lowrank.truncation import RANKS

GAINS = {"flipflop": up_to(2.1), "mante": up_to(2.7), "romo": up_to(3.0)}
QUICK_GAINS = {task: [0.0, 0.9, 1.8] for task in GAINS}  # includes those of `tasks` and `spectra`
HANDFUL = 10
LEARNED, MOST_OF_THEM = 0.05, 0.8
# Read off the paper's figures by eye: convergence at g = 0 and at the best gain; |dW| at g = 0 and 1.8; ranks.
CONVERGENCE = {
    "flipflop": "100 at g = 0, 40 at g about 0.9",
    "mante": "370 at g = 0, 40 at g about 1.2",
    "romo": "about 3000 at g = 0, 60 at g about 2",
}
NORM = {
    "flipflop": "1.85 at g = 0, 0.6 at g = 1.8",
    "mante": "2.0 at g = 0, 0.75 at g = 1.8",
    "romo": "3.4 to 4.3 at g = 0, 1.0 at g = 1.8",
}
RANK = {"flipflop": "2 at g = 0, 4 to 6 at g = 0.9", "mante": "4 to 5", "romo": "6 to 7"}


@claim(
    "{task}: fastest in between",
    "{task} is learned at least twice as fast at some g > 0 as at g = 0 (epochs to converge)",
    CONVERGENCE,
)
def _fastest_in_between(dataset: xr.Dataset, task: str) -> Finding:
    epochs = by_gain(dataset, "convergence_epoch", task=task)
    at_zero = epochs.pop(0.0, np.empty(0))
    if not epochs:
        return NOT_IN_THIS_RUN
    best = min(epochs, key=lambda gain: float(epochs[gain].mean()))
    start = mean_and_error(at_zero) if at_zero.size else "never"
    text = f"{start} at g = 0, {epochs[best].mean():.3g} at g = {best:g}"
    return Finding(text, not at_zero.size or bool(epochs[best].mean() < at_zero.mean() / 2))


@claim("{task}: change shrinks", "{task}: |dW| at g = 1.8 is below 60 % of that at g = 0", NORM)
def _change_shrinks(dataset: xr.Dataset, task: str) -> Finding:
    weak, strong = (values(dataset, "change_norm", task=task, gain=gain) for gain in (0.0, 1.8))
    if not weak.size or not strong.size:
        return NOT_IN_THIS_RUN
    text = f"{mean_and_error(weak)} at g = 0, {mean_and_error(strong)} at g = 1.8"
    return Finding(text, bool(strong.mean() < 0.6 * weak.mean()))


@claim(
    "{task}: tied to its W0",
    "{task}: loss after shuffling W0 / initial loss is 0 at g = 0 and about 1 from g = 0.6 on",
    "0 at g = 0, about 1 for g >= 0.6",
)
def _tied_to_its_connectivity(dataset: xr.Dataset, task: str) -> Finding:
    # Of networks that learned: at g = 0 there is nothing to shuffle, and the loss is that at the end.
    if not {"shuffled_loss", "evaluation_loss", "initial_loss"} <= set(dataset):
        return NOT_IN_THIS_RUN
    shuffled = dataset["shuffled_loss"].where(has_learned(dataset))
    losses = by_gain(dataset.assign(shuffled=shuffled), "shuffled", task=task)
    at_zero = losses.get(0.0, np.empty(0))
    means = [float(x.mean()) for gain, x in losses.items() if gain >= 0.6]
    if not at_zero.size or not means:
        return NOT_IN_THIS_RUN
    text = f"{at_zero.mean():.2g} at g = 0, {min(means):.2f} to {max(means):.2f} from g = 0.6 on"
    return Finding(text, bool(at_zero.mean() < 0.05 and min(means) > 0.7 and max(means) < 1.6))


def has_learned(dataset: xr.Dataset) -> xr.DataArray:
    """Return whether the loss of each network at the end is below 5 % of the initial one."""
    return dataset["evaluation_loss"] < LEARNED * dataset["initial_loss"]


def ranks_where_learned(dataset: xr.Dataset, task: str) -> dict[float, Array]:
    """Return gain -> functional ranks of the networks that learned the task, where four of five of them did.

    One that has learned and has no functional rank needs more directions than the truncation curve has; it counts with
    one more than these.
    """
    if not {"functional_rank", "evaluation_loss", "initial_loss"} <= set(dataset):
        return {}
    rank = dataset["functional_rank"].fillna(max(RANKS) + 1).where(has_learned(dataset))
    ranks = by_gain(dataset.assign(rank_of_learned=rank), "rank_of_learned", task=task)
    trained = by_gain(dataset, "initial_loss", task=task)
    return {gain: x for gain, x in ranks.items() if x.size >= MOST_OF_THEM * trained[gain].size}


def few_directions(dataset: xr.Dataset, task: str) -> Finding:
    """Check that the mean functional rank is at most `HANDFUL` at every gain at which the task is learned.

    It fails if a mean exceeds the bound by more than two of its standard errors: a rounding moves it by about one.
    """
    ranks = ranks_where_learned(dataset, task)
    if not ranks:
        return NOT_IN_THIS_RUN
    shown = [g for g in (0.0, 0.9, 1.8) if g in ranks] or list(ranks)[:3]
    most = max(ranks, key=lambda g: float(ranks[g].mean()))
    text = ", ".join(f"{mean_and_error(ranks[g])} at g = {g:g}" for g in dict.fromkeys([*shown, most]))
    left_out = [g for g in by_gain(dataset, "initial_loss", task=task) if g not in ranks]
    text += f"; not learned at g = {', '.join(f'{g:g}' for g in left_out)}" if left_out else ""
    return Finding(text, all(x.mean() - 2 * standard_error(x) <= HANDFUL for x in ranks.values()))


GAIN = Experiment(
    name="gain",
    description="Three tasks, all gains, five networks each (paper Fig. 2)",
    presets={
        "quick": lambda: nonlinear_jobs(QUICK_GAINS, 3, [QUICK_SIZE]),
        "paper": lambda: nonlinear_jobs(GAINS, 5, [PAPER_SIZE]),
    },
    claims=tuple(
        one.at(task=task)
        for task in GAINS
        for one in (
            _fastest_in_between,
            _change_shrinks,
            _tied_to_its_connectivity,
            Claim(
                "{task}: few directions",
                "{task}: a handful of directions suffices "
                f"(rank at most {HANDFUL} to two errors, where four in five learn)",
                RANK,
                few_directions,
            ),
        )
    ),
)
