"""The five tasks of Dubreuil et al. 2022: accuracy of truncated, resampled and low-rank networks.

Networks of 512 units are trained as published, from random connectivity of gain rho = 0.1 and 1.0. Truncating the
change says how many directions are enough; drawing the units anew from one Gaussian, or from a mixture, says whether
the statistics of the directions are. For two of the tasks, networks are also trained in W = m n^T of rank 1, 2 and 3.

The published numbers are means over 100 networks each, of two families that differ in rho.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from rankscope.experiments.base import Experiment, seed_of
from rankscope.experiments.claims import (
    NOT_IN_THIS_RUN,
    Array,
    Finding,
    claim,
    mean_and_error,
    standard_error,
    values,
)
from rankscope.sweep import Job

SIZE, QUICK_SIZE = 512, 128
GAINS = (0.1, 1.0)
MEASURED = ("learning", "norms", "evaluation", "trial_accuracy", "populations")
NOISE = 0.05 / math.sqrt(0.2)
"""Standard deviation of the noise: 0.05 on the state in each step of 0.2 time constants."""
FULL = "full"
LOW_RANKS = (1, 2, 3)
LOW_RANK_GAIN = 0.0

# The published loss is twice ours, so that bounds on loss and gradient, and the epsilon of Adam, are halves here.
STOP, CLIP, EPSILON = {"stop_loss": 0.05 / 2}, {"clip_norm": 1.0 / 2}, 1e-8 / 2
INPUTS = ("input", "recurrent")
PROTOCOL: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {
    "perceptual_decision": (("recurrent",), {"epochs": 30, "learning_rate": 1e-4, **STOP}),
    "parametric_working_memory": (("recurrent",), {"epochs": 30, "learning_rate": 1e-5, **STOP}),
    "multisensory_decision": (INPUTS, {"epochs": 40, "learning_rate": 1e-4}),
    "context_dependent_decision": (INPUTS, {"epochs": 60, "learning_rate": 1e-4, **CLIP, **STOP}),
    "delayed_match": (INPUTS, {"epochs": 100, "learning_rate": 1e-4, **CLIP, **STOP}),
}
"""Task -> what is trained, and options of the training."""
SHORT = {
    "perceptual_decision": "DM",
    "parametric_working_memory": "WM",
    "multisensory_decision": "MDM",
    "context_dependent_decision": "CDM",
    "delayed_match": "DMS",
}
"""Task -> its name in the paper."""
DM, CDM = "perceptual_decision", "context_dependent_decision"
LEARNED = {"delayed_match": 0.95}
"""Task -> accuracy below which networks are left out, as published."""

Published = Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]
PUBLISHED: dict[str, Published] = {
    DM: {
        "a": ((0.992, 0.998, 0.998), (0.002,)),
        "b": ((0.920, 0.999, 1.0), (0.022, 0.003)),
    },
    CDM: {
        "a": ((0.527, 0.679, 0.781, 0.820, 0.858, 0.905, 0.941, 0.971, 0.987), (0.03, 0.05, 0.04)),
        "b": ((0.544, 0.648, 0.719, 0.795, 0.940, 0.973, 0.981, 0.986, 0.988), (0.03, 0.04, 0.06, 0.07, 0.04)),
    },
}
"""Task -> family -> mean accuracy at rank 1, 2, ..., and the standard deviations that are known, of the first ranks."""
PUBLISHED_NETWORKS = 100
TRIALS = 512  # of an accuracy of ours
ROUNDING = 0.0005  # of the published means
RESAMPLED = {DM: (3, "0.997 and 0.994"), CDM: (9, "0.679 ± 0.08 and 0.518 ± 0.11")}
"""Task -> rank at which the published networks were resampled from one Gaussian, and their accuracies."""


def full_job(task: str, gain: float, sample: int, hidden_size: int = SIZE) -> Job:
    """Return the job of a network that is trained without constraints, as published.

    At another size the learning rate is scaled with 1 / N.
    """
    trained, options = PROTOCOL[task]
    return _job(
        task,
        gain,
        sample,
        hidden_size,
        {"trained": list(trained)},
        options | {"learning_rate": options["learning_rate"] * SIZE / hidden_size},
        FULL,
    )


def low_rank_job(task: str, rank: int, sample: int, hidden_size: int = SIZE) -> Job:
    """Return the job of a network W = m n^T, trained at the published rate of 0.01 for entries of order 1.

    Entries of our m and n are smaller by sqrt(N), as W = m n^T / N there. m starts at 0.
    """
    options = PROTOCOL[task][1] | {"learning_rate": 0.01, **CLIP}
    return _job(
        task,
        LOW_RANK_GAIN,
        sample,
        hidden_size,
        {"trained": list(INPUTS), "rank": rank},
        options | {"learning_rates": {"recurrent_weights": 0.01 / math.sqrt(hidden_size)}},
        str(rank),
    )


def _job(
    task: str,
    gain: float,
    sample: int,
    hidden_size: int,
    network: Mapping[str, Any],
    training: Mapping[str, Any],
    trained_rank: str,
) -> Job:
    seed = seed_of("populations", task, gain, hidden_size, trained_rank, sample)
    # The first two children of the seed are the streams of the weights and of the training.
    trials_stream = np.random.SeedSequence(seed).spawn(4)[3]
    return Job(
        task={"name": task, "trials_seed": int(np.random.default_rng(trials_stream).integers(2**32))},
        network={
            "kind": "rate",
            "gain": gain,
            "hidden_size": hidden_size,
            "noise_std": NOISE,
            "exact_norms": False,
            **network,
        },
        training={"optimizer": {"name": "adam", "eps": EPSILON}, "recorded_epochs": 2, **training},
        measurements=MEASURED,
        seed=seed,
        labels={"sample": sample, "trained_rank": trained_rank},
    )


def _jobs(samples: Mapping[str, int], low_rank: Iterable[str], low_samples: int, hidden_size: int) -> list[Job]:
    full = [
        full_job(task, gain, sample, hidden_size)
        for task, count in samples.items()
        for gain in GAINS
        for sample in range(count)
    ]
    low = [
        low_rank_job(task, rank, sample, hidden_size)
        for task in low_rank
        for rank in LOW_RANKS
        for sample in range(low_samples)
    ]
    return [*full, *low]


def accuracies(dataset: xr.Dataset, task: str, gain: float, rank: int, trained_rank: str = FULL) -> Array:
    """Return accuracies with the change truncated to a rank, without networks that did not learn (`LEARNED`)."""
    kept = dataset
    if task in LEARNED and "trial_accuracy" in dataset and "accuracy_of_rank" in dataset:
        learned = dataset["trial_accuracy"] >= LEARNED[task]
        kept = dataset.assign(accuracy_of_rank=dataset["accuracy_of_rank"].where(learned))
    return values(kept, "accuracy_of_rank", task=task, gain=gain, trained_rank=trained_rank, accuracy_rank=rank)


def deviations(dataset: xr.Dataset, task: str, gain: float, family: str) -> list[float]:
    """Return the differences from the published means at rank 1, 2, ..., in units of their standard errors.

    The error joins that of our mean, at least that of one trial in all, and that of the published one, with its
    rounding. A standard deviation that is not known is taken to be that of the rank before.
    """
    means, spreads = PUBLISHED[task][family]
    found = []
    for index, mean in enumerate(means):
        ours = accuracies(dataset, task, gain, index + 1)
        if ours.size < 2:
            return []
        theirs = spreads[min(index, len(spreads) - 1)] / math.sqrt(PUBLISHED_NETWORKS)
        error = math.hypot(max(standard_error(ours), 1 / (TRIALS * ours.size)), theirs, ROUNDING)
        found.append((float(ours.mean()) - mean) / error)
    return found


@claim(
    "{task}: as published",
    "{task}: truncated to rank 1, 2, ..., accuracies are within two standard errors of one published family",
    {DM: "two families", CDM: "two families"},
)
def _as_published(dataset: xr.Dataset, task: str) -> Finding:
    texts, holds = [], False
    for gain in GAINS if _is_of_published_size(dataset) else ():
        by_family = {family: deviations(dataset, task, gain, family) for family in PUBLISHED[task]}
        worst = {family: max(map(abs, found)) for family, found in by_family.items() if found}
        if worst:
            best = min(worst, key=worst.__getitem__)
            texts.append(f"ρ = {gain:g} is nearest to family {best}: at most {worst[best]:.1f} standard errors away")
            holds |= worst[best] <= 2
    return Finding("; ".join(texts), holds) if texts else NOT_IN_THIS_RUN


def _is_of_published_size(dataset: xr.Dataset) -> bool:
    return SIZE in np.atleast_1d(dataset["hidden_size"].values)


def _resampled(dataset: xr.Dataset, task: str, gain: float, rank: int, count: int, trained: str = FULL) -> Array:
    at = {"resampled_rank": rank, "populations": count, "trained_rank": trained}
    return values(dataset, "resampled_accuracy", task=task, gain=gain, **at)


@claim(
    "DM: one Gaussian is enough",
    "DM: at rank 3, units drawn from one Gaussian keep an accuracy above 0.99",
    RESAMPLED[DM][1],
)
def _one_is_enough(dataset: xr.Dataset) -> Finding:
    found = {gain: _resampled(dataset, DM, gain, RESAMPLED[DM][0], 1) for gain in GAINS}
    found = {gain: x for gain, x in found.items() if x.size and _is_of_published_size(dataset)}
    texts = [f"{mean_and_error(x)} at ρ = {gain:g}" for gain, x in found.items()]
    return Finding(", ".join(texts), all(x.mean() > 0.99 for x in found.values())) if found else NOT_IN_THIS_RUN


@claim(
    "CDM: one Gaussian is not enough",
    "CDM: at rank 9, units drawn from one Gaussian lose more than a tenth of the accuracy; more populations lose less",
    RESAMPLED[CDM][1],
)
def _one_is_not_enough(dataset: xr.Dataset) -> Finding:
    rank = RESAMPLED[CDM][0]
    texts, holds = [], []
    for gain in GAINS:
        truncated = accuracies(dataset, CDM, gain, rank)
        one, two, three = (_resampled(dataset, CDM, gain, rank, count) for count in (1, 2, 3))
        if truncated.size and one.size and two.size and three.size:
            texts.append(
                f"{truncated.mean():.3f}, with one population {mean_and_error(one)}, two {mean_and_error(two)}, "
                f"three {mean_and_error(three)} at ρ = {gain:g}"
            )
            holds.append(one.mean() < truncated.mean() - 0.1 and max(two.mean(), three.mean()) > one.mean())
    return Finding("; ".join(texts), all(holds)) if texts else NOT_IN_THIS_RUN


@claim(
    "CDM: two populations at rank one",
    "CDM, trained at rank 1: two populations do better than one, by 0.1 (four times as many units)",
    "0.76 with one, 0.94 with two",
)
def _two_at_rank_one(dataset: xr.Dataset) -> Finding:
    trained = accuracies(dataset, CDM, LOW_RANK_GAIN, 1, "1")
    at = {"gain": LOW_RANK_GAIN, "resampled_rank": 1, "trained_rank": "1"}
    found = [values(dataset, "resampled_accuracy_larger", task=CDM, populations=count, **at) for count in (1, 2, 3)]
    if not trained.size or not all(x.size for x in found):
        return NOT_IN_THIS_RUN
    text = f"{mean_and_error(trained)} trained"
    text += "".join(f", {mean_and_error(x)} with {n}" for n, x in zip(("one", "two", "three"), found, strict=True))
    return Finding(text, bool(found[1].mean() > found[0].mean() + 0.1))


@claim("rank one can be trained", "DM and CDM can be trained at rank 1: accuracy above 0.95", "rank 1 for both")
def _rank_one_suffices(dataset: xr.Dataset) -> Finding:
    found = {task: accuracies(dataset, task, LOW_RANK_GAIN, 1, "1") for task in (DM, CDM)}
    if not all(x.size for x in found.values()):
        return NOT_IN_THIS_RUN
    text = ", ".join(f"{SHORT[task]} {mean_and_error(x)}" for task, x in found.items())
    return Finding(text, all(x.mean() > 0.95 for x in found.values()))


@claim(
    "all tasks are learned", "every task is learned: a mean accuracy above 0.95 with nothing truncated", "above 0.95"
)
def _all_are_learned(dataset: xr.Dataset) -> Finding:
    found = {
        (task, gain): values(dataset, "trial_accuracy", task=task, gain=gain, trained_rank=FULL)
        for task in PROTOCOL
        for gain in GAINS
    }
    found = {place: x for place, x in found.items() if x.size}
    texts = [f"{SHORT[task]} {x.mean():.3f} at ρ = {gain:g}" for (task, gain), x in found.items()]
    return Finding(", ".join(texts), all(x.mean() > 0.95 for x in found.values())) if found else NOT_IN_THIS_RUN


def accuracy_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return a row for each network and rank.

    Networks that were trained at a low rank have no rows beyond it. Columns are task, rho, sample, trained_rank
    ("full", or the rank of W = m n^T in training), rank of the truncated change, accuracy, and the accuracy of units
    drawn from one, two and three Gaussians (NaN where they were not), also with four times as many units where W0 is
    zero.
    """
    labels = ["task", "gain", "sample", "trained_rank"]
    run = dataset.expand_dims([name for name in labels if name not in dataset["status"].dims])
    frames = []
    for name, column in _columns(run).items():
        stacked = column.rename(name).to_dataframe()[name]
        frames.append(stacked.reorder_levels([*labels, "rank"]))
    table = pd.concat(frames, axis=1, join="outer").dropna(subset=["accuracy"]).reset_index()
    largest = pd.to_numeric(table["trained_rank"], errors="coerce").fillna(np.inf)
    table = table[table["rank"] <= largest]
    return table.rename(columns={"gain": "rho"}).sort_values(["task", "trained_rank", "rho", "sample", "rank"])


def _columns(run: xr.Dataset) -> dict[str, xr.DataArray]:
    drop: Callable[[xr.DataArray], xr.DataArray] = lambda x: x.reset_coords(drop=True)  # noqa: E731
    found = {"accuracy": drop(run["accuracy_of_rank"]).rename(accuracy_rank="rank")}
    for name in ("resampled_accuracy", "resampled_accuracy_larger"):
        if name in run:
            for count in run["populations"].values.tolist():
                one = drop(run[name].sel(populations=count)).rename(resampled_rank="rank")
                found[name if count == 1 else f"{name}_{count}_populations"] = one
    return found


POPULATIONS = Experiment(
    name="populations",
    description="Five tasks of Dubreuil et al. 2022: truncated, resampled and low-rank networks "
    "(needs the extra rankscope[populations])",
    presets={
        "quick": lambda: _jobs({DM: 2, CDM: 2}, (CDM,), 1, QUICK_SIZE),
        "paper": lambda: _jobs(
            {task: 10 if task in PUBLISHED else 3 if task == "delayed_match" else 5 for task in PROTOCOL},
            (DM, CDM),
            5,
            SIZE,
        ),
    },
    claims=(
        _as_published.at(task=DM),
        _as_published.at(task=CDM),
        _one_is_enough,
        _one_is_not_enough,
        _two_at_rank_one,
        _rank_one_suffices,
        _all_are_learned,
    ),
    table=accuracy_table,
)
