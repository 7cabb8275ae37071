"""How many directions a task needs, beside how many a network without constraints uses: low-rank training.

Truncating the change of a trained network says how many of its directions are enough for *this* network (its functional
rank). Networks with the same W0, inputs and outputs are also trained in W = W0 + m n^T of rank R = 1, 2, ... The needed
rank of a W0 is the smallest R at which the loss on fresh trials falls below 5 % of that before learning.

How it is searched: m starts at 0, so that the change has exactly R directions, and n at normal entries of standard
deviation 0.1 / sqrt(N). Adam trains m and n at 0.512 / N, ten times the rate of the paper, and inputs and outputs at
0.05 / N, for half of the paper's epochs, or until the loss of a batch is below 0.3 %. At these rates the loss may rise
again, and a few trials make most of it: every 10 epochs it is evaluated on 256 trials, and the weights of the lowest
loss are kept. Of several starts, which differ in n alone, the best counts. A rank at which all starts fail may still be
enough: the needed rank is an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import xarray as xr

from rankscope.experiments.base import (
    PAPER_EPOCHS,
    PAPER_SIZE,
    QUICK_SIZE,
    Experiment,
    nonlinear_jobs,
    seed_of,
)
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Array, Finding, claim, mean_and_error, standard_error
from rankscope.sweep import Job

GAINS, QUICK_GAINS = (0.0, 0.9, 1.8), (0.0, 0.9)
RANKS, QUICK_RANKS = (1, 2, 3, 4, 6), (1, 2, 3)
STARTS = 3
MEASURED = ("learning", "norms", "evaluation", "trial")
LEARNED, ENOUGH = 0.05, 0.003
RATE = 0.512
BEST = {"validation_trials": 256, "validation_every": 10, "keep_best": True}
SPREAD = (0.0, 0.1)
FULL = "none"
"""Label of networks without a constraint."""


def low_rank_jobs(
    gains: Iterable[float], samples: int, hidden_size: int, ranks: Iterable[int], starts: int
) -> list[Job]:
    """Return a job for each task, gain, sample, rank and start; W0 and trials are those of `nonlinear_jobs`."""
    ranks = tuple(ranks)
    return [
        Job(
            task=task,
            network={
                "kind": "rate",
                "gain": float(gain),
                "hidden_size": hidden_size,
                "rank": rank,
                "rank_spread": list(SPREAD),
                "rank_rng": start,
            },
            training={
                "epochs": PAPER_EPOCHS[task] // 2,
                "learning_rates": {"recurrent_weights": RATE / hidden_size},
                "stop_below": ENOUGH,
                **BEST,
                "recorded_epochs": 0,
            },
            measurements=MEASURED,
            seed=seed_of(task, float(gain), hidden_size, sample),
            labels={"sample": sample, "trained_rank": str(rank), "start": str(start)},
        )
        for task in PAPER_EPOCHS
        for gain in gains
        for sample in range(samples)
        for rank in ranks
        for start in range(starts)
    ]


def _jobs(gains: Iterable[float], samples: int, hidden_size: int, ranks: Iterable[int], starts: int) -> list[Job]:
    gains = tuple(gains)
    full = nonlinear_jobs(dict.fromkeys(PAPER_EPOCHS, gains), samples, [hidden_size])
    return [*full, *low_rank_jobs(gains, samples, hidden_size, ranks, starts)]


def ranks_of(dataset: xr.Dataset) -> list[int]:
    """Return the ranks that networks of a run were trained at, in increasing order."""
    if "trained_rank" not in dataset.coords:
        return []
    labels = np.atleast_1d(dataset["trained_rank"].values)
    return sorted(int(label) for label in labels if label != FULL)


def loss_at_rank(dataset: xr.Dataset) -> xr.DataArray:
    """Return the loss of the best start, relative to that before learning, along `task`, `gain`, `sample` and `rank`.

    It is NaN where there is no network.
    """
    run = _expanded(dataset)
    ratio = run["evaluation_loss"] / run["initial_loss"]
    best = ratio.min([dim for dim in ("start", "hidden_size") if dim in ratio.dims])
    ranks = ranks_of(dataset)
    found = best.sel(trained_rank=[str(rank) for rank in ranks]).rename(trained_rank="rank")
    return found.assign_coords(rank=ranks).transpose("task", "gain", "sample", "rank").reset_coords(drop=True)


def needed_rank(dataset: xr.Dataset) -> xr.DataArray:
    """Return the smallest rank trained to a loss below 5 %, along `task`, `gain` and `sample`; NaN for none."""
    loss = loss_at_rank(dataset)
    return loss["rank"].where(loss < LEARNED).min("rank")


def used_rank(dataset: xr.Dataset) -> xr.DataArray:
    """Return the functional rank of the networks without constraint that learned, along `task`, `gain` and `sample`."""
    run = _expanded(dataset)
    learned = run["evaluation_loss"] < LEARNED * run["initial_loss"]
    ranks = run["functional_rank"].where(learned).sel(trained_rank=FULL)
    found = ranks.max([dim for dim in ("start", "hidden_size") if dim in ranks.dims])
    return found.transpose("task", "gain", "sample").reset_coords(drop=True)


def needed_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return a row for each task, gain, sample and rank.

    Columns are the loss of the best start, relative to that before learning; whether it is below 5 %; the needed rank
    of that W0; and the functional rank of the network without constraint.
    """
    loss = loss_at_rank(dataset)
    table = loss.rename("loss_ratio").to_dataframe().reset_index().dropna(subset=["loss_ratio"])
    table["solved"] = table["loss_ratio"] < LEARNED
    for name, values in (("needed_rank", needed_rank(dataset)), ("functional_rank", used_rank(dataset))):
        table = table.merge(values.rename(name).to_dataframe()[name].reset_index(), how="left")
    return table.sort_values(["task", "gain", "sample", "rank"])


def _expanded(dataset: xr.Dataset) -> xr.Dataset:
    labels = ["task", "gain", "sample", "trained_rank", "start"]
    return dataset.expand_dims([name for name in labels if name not in dataset["status"].dims])


def _at(values: xr.DataArray, task: str, gain: float) -> Array:
    if task not in values["task"].values or not np.isclose(values["gain"].values, gain).any():
        return np.empty(0)
    found = values.sel(task=task).sel(gain=gain, method="nearest").values.astype(np.float64)
    finite: Array = found[np.isfinite(found)]
    return finite


def _has_all(dataset: xr.Dataset) -> bool:
    return {"evaluation_loss", "initial_loss", "functional_rank"} <= set(dataset) and bool(ranks_of(dataset))


@claim(
    "{task}: needs fewer than it uses",
    "{task}: with random connectivity (g > 0), the smallest rank that can be trained is below the functional rank",
    "not in the paper",
)
def _needs_fewer(dataset: xr.Dataset, task: str) -> Finding:
    if not _has_all(dataset):
        return NOT_IN_THIS_RUN
    needed, used = needed_rank(dataset), used_rank(dataset)
    texts, holds = [], []
    for gain in GAINS:
        one, other = _at(needed, task, gain), _at(used, task, gain)
        if not one.size or not other.size:
            continue
        texts.append(f"{mean_and_error(one)} trained, {mean_and_error(other)} truncated at g = {gain:g}")
        error = float(np.hypot(standard_error(one), standard_error(other)))
        if gain > 0:
            holds.append(bool(other.mean() - one.mean() > 2 * error))
    return Finding(", ".join(texts), all(holds)) if holds else NOT_IN_THIS_RUN


@claim(
    "{task}: connectivity helps",
    "{task}: random connectivity lowers the smallest rank that can be trained (g = 0.9 against 0)",
    "not in the paper",
)
def _connectivity_helps(dataset: xr.Dataset, task: str) -> Finding:
    if not _has_all(dataset):
        return NOT_IN_THIS_RUN
    needed, loss = needed_rank(dataset), loss_at_rank(dataset)
    beyond = int(loss["rank"].max()) + 1
    trained = loss.notnull().any("rank")
    without, within = (_at(needed.fillna(beyond).where(trained), task, gain) for gain in (0.0, 0.9))
    if not without.size or not within.size:
        return NOT_IN_THIS_RUN
    text = f"{mean_and_error(without)} at g = 0, {mean_and_error(within)} at g = 0.9"
    text += f" ({beyond} where no rank was enough)" if max(without.max(), within.max()) == beyond else ""
    return Finding(text, bool(within.mean() < without.mean()))


NEEDED = Experiment(
    name="needed",
    description="The rank that a task needs: W0 + m n^T trained at rank 1 to 6, beside the functional rank",
    presets={
        "quick": lambda: _jobs(QUICK_GAINS, 1, QUICK_SIZE, QUICK_RANKS, 1),
        "paper": lambda: _jobs(GAINS, 5, PAPER_SIZE, RANKS, STARTS),
    },
    claims=tuple(one.at(task=task) for task in PAPER_EPOCHS for one in (_needs_fewer, _connectivity_helps)),
    table=needed_table,
)
