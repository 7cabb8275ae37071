"""The supervised environments of NeuroGym: do the paper's findings hold for other tasks?

Each is learned without and with random connectivity. Most cannot be solved without error, as their stimuli are noisy,
so learning is measured by the score of the decisions (`measurements.score`). NeuroGym is an extra; without it the jobs
can be listed but not run.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.experiments.base import PAPER_SIZE, Experiment, seed_of
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding, claim, mean_and_error, standard_error
from rankscope.sweep import Job
from rankscope.tasks.neurogym import PARAMETERS, STEPS

GAINS, QUICK_GAINS = (0.0, 0.9, 1.5), (0.0, 0.9)
QUICK_SIZE, QUICK_EPOCHS, EPOCHS = 64, 500, 3000
SAMPLES = 3
POOL = 4096
MEASURED = ("learning", "norms", "evaluation", "truncation", "trial", "score")
# Its rule changes every ten to twenty trials without notice, so that a single trial does not determine the answer.
NOT_IN_THE_TRIAL = ("HierarchicalReasoning",)
FEW = 10

Array = NDArray[Any]


def neurogym_jobs(gains: Iterable[float], samples: int, hidden_size: int, epochs: int) -> list[Job]:
    """Return a job for each environment, gain and sample."""
    return [
        _job(name, float(gain), hidden_size, epochs, sample)
        for name in STEPS
        for gain in gains
        for sample in range(samples)
    ]


def _job(environment: str, gain: float, hidden_size: int, epochs: int, sample: int) -> Job:
    seed = seed_of("neurogym", environment, gain, hidden_size, sample)
    # The first two children of the seed are the streams of the weights and of the training.
    pool_stream = np.random.SeedSequence(seed).spawn(4)[3]
    return Job(
        task={
            "name": "neurogym",
            "environment": environment,
            "weights": "balanced",
            "pool": POOL,
            "pool_seed": int(np.random.default_rng(pool_stream).integers(2**32)),
            **PARAMETERS.get(environment, {}),
        },
        network={"kind": "rate", "gain": gain, "hidden_size": hidden_size},
        training={"epochs": epochs, "recorded_epochs": 2},
        measurements=MEASURED,
        seed=seed,
        labels={"task": environment.removesuffix("-v0"), "sample": sample},
    )


@claim("all are tasks", "every environment can be trained on, and no network diverges", "-")
def _all_are_tasks(dataset: xr.Dataset) -> Finding:
    if "status" not in dataset or "score" not in dataset:
        return NOT_IN_THIS_RUN
    status = np.atleast_1d(dataset["status"].values)
    done, diverged = (int((status == name).sum()) for name in ("finished", "diverged"))
    text = f"{done} of {status.size} networks" + (f", {diverged} diverged" if diverged else "")
    failed = status.size - done - diverged
    return Finding(text + (f", {failed} not in the run" if failed else ""), done == status.size)


def learned(dataset: xr.Dataset) -> xr.DataArray:
    """Return whether the score of each network is more than half-way from chance to perfect."""
    return dataset["score"] > (1 + dataset["chance"]) / 2


def best_networks(dataset: xr.Dataset) -> dict[str, tuple[float, float, bool]]:
    """Return environment -> score of its best network, chance, and whether it was learned."""
    if not {"score", "chance"} <= set(dataset):
        return {}
    found = {}
    for name in np.atleast_1d(dataset["task"].values):
        one = dataset[["score", "chance"]]
        one = one.sel(task=name) if "task" in one.dims else one
        if bool(np.isfinite(one["score"]).any()):
            found[str(name)] = (float(one["score"].max()), float(one["chance"].max()), bool(learned(one).any()))
    return found


@claim(
    "most are learned",
    "three in four are learned: the best score is more than half-way from chance to perfect",
    "-",
)
def _most_are_learned(dataset: xr.Dataset) -> Finding:
    found = {name: done for name, (_, _, done) in best_networks(dataset).items() if name not in NOT_IN_THE_TRIAL}
    if not found:
        return NOT_IN_THIS_RUN
    missed = [name for name, done in found.items() if not done]
    text = f"{len(found) - len(missed)} of {len(found)}"
    return Finding(text + (f"; not {', '.join(missed)}" if missed else ""), len(missed) <= len(found) / 4)


@claim("the unknowable is not", "not HierarchicalReasoning, whose rule depends on the trials before", "-")
def _unknowable_is_not_learned(dataset: xr.Dataset) -> Finding:
    found = {name: best for name, best in best_networks(dataset).items() if name in NOT_IN_THE_TRIAL}
    if not found:
        return NOT_IN_THIS_RUN
    text = ", ".join(f"{name}: {score:.2f}, chance {chance:.2f}" for name, (score, chance, _) in found.items())
    return Finding(text, not any(done for _, _, done in found.values()))


@claim(
    "few directions",
    f"where learned, rank {FEW} of the change keeps 95 % of the score above chance (nine in ten networks)",
    "a handful of directions",
)
def _few_directions(dataset: xr.Dataset) -> Finding:
    # It fails only if the share is below nine in ten by two standard errors: those of the mean over samples, as the
    # environments are the same in each.
    if not {"score", "chance", "score_rank"} <= set(dataset):
        return NOT_IN_THIS_RUN
    done = learned(dataset).astype(bool)
    ranks = dataset["score_rank"].where(done)
    networks = int(done.sum())
    if not networks:
        return NOT_IN_THIS_RUN
    few, known = ranks <= FEW, ranks.values[np.isfinite(ranks.values)]
    other = [dim for dim in done.dims if dim != "sample"]
    shares = np.atleast_1d((few.sum(other) / done.sum(other)).values)
    shares = 100 * shares[np.isfinite(shares)]
    text = f"{int(few.sum())} of {networks} networks"
    text += f", {mean_and_error(shares)} % over samples" if shares.size > 1 else ""
    text += f"; median {np.median(known):g}, largest {known.max():g}" if known.size else ""
    return Finding(text, bool(shares.mean() + 2 * standard_error(shares) >= 90))


def mostly_less(dataset: xr.Dataset, variable: str, unit: str = "") -> Finding:
    """Check that a variable is less at the highest gain than at the lowest, in most environments learned at both."""
    if not {"score", "chance", variable} <= set(dataset) or "gain" not in dataset["score"].dims:
        return NOT_IN_THIS_RUN
    found = dataset[variable].where(learned(dataset))
    found = found.mean("sample") if "sample" in found.dims else found
    low, high = (np.atleast_1d(found.isel(gain=at).values) for at in (0, -1))
    both = np.isfinite(low) & np.isfinite(high)
    if not both.any():
        return NOT_IN_THIS_RUN
    low, high = low[both], high[both]
    less = int((high < low).sum())
    text = f"{less} of {low.size}; in the median {np.median(low):.3g} and {np.median(high):.3g}{unit}"
    return Finding(text, less > low.size / 2)


NEUROGYM = Experiment(
    name="neurogym",
    description="Every supervised environment of NeuroGym, g = 0 to 1.5 (needs the extra rankscope[neurogym])",
    presets={
        "quick": lambda: neurogym_jobs(QUICK_GAINS, 1, QUICK_SIZE, QUICK_EPOCHS),
        "paper": lambda: neurogym_jobs(GAINS, SAMPLES, PAPER_SIZE, EPOCHS),
    },
    claims=(
        _all_are_tasks,
        _most_are_learned,
        _unknowable_is_not_learned,
        _few_directions,
        Claim(
            "faster with connectivity",
            "most environments are learned faster from strong random connectivity",
            "fastest at intermediate g",
            partial(mostly_less, variable="fall_epoch", unit=" epochs"),
        ),
        Claim(
            "smaller with connectivity",
            "in most, the change is smaller",
            "|dW| shrinks with g",
            partial(mostly_less, variable="change_norm"),
        ),
    ),
)
