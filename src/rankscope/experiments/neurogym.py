"""Do the paper's findings hold for the tasks of NeuroGym? Every environment that it tags as supervised.

Each is learned from no connectivity and from strong random connectivity. Which are learned at all, how fast, and how
many directions of the change do the decisions need?
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.experiments.base import PAPER_SIZE, Experiment, seed_of, work
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding
from rankscope.experiments.neurogym_cell import UNSUITABLE, NeuroGymCell
from rankscope.tasks.neurogym import PARAMETERS, STEPS, environments, installed

TAG = "supervised"
GAINS, QUICK_GAINS = (0.0, 0.9, 1.5), (0.0, 0.9)
QUICK_SIZE, QUICK_EPOCHS, EPOCHS = 64, 500, 3000
# Its rule changes every ten to twenty trials without notice, and a network that sees one trial cannot know it.
NOT_IN_THE_TRIAL = ("HierarchicalReasoning",)
FEW = 10


def neurogym_cells(gains: Iterable[float], samples: int, hidden_size: int, epochs: int) -> list[NeuroGymCell]:
    """Return one cell for each environment, gain and sample, the longest first."""
    names = environments(TAG) if installed() else tuple(STEPS)
    cells = [
        NeuroGymCell(
            name,
            gain=float(gain),
            hidden_size=hidden_size,
            epochs=epochs,
            sample=sample,
            seed=seed_of("neurogym", name, float(gain), hidden_size, sample),
            parameters=PARAMETERS.get(name, {}),
            training={"recorded_epochs": 2},
        )
        for name in names
        for gain in gains
        for sample in range(samples)
    ]
    return sorted(cells, key=work, reverse=True)


def all_are_tasks(dataset: xr.Dataset) -> Finding:
    """Find whether every environment could be trained on, without diverging."""
    if "status" not in dataset:
        return NOT_IN_THIS_RUN
    status = np.atleast_1d(dataset["status"].values)
    there = status[status != ""]
    done = int((there == "finished").sum())
    text = f"{done} of {there.size} networks"
    bad = {name: int((there == name).sum()) for name in (UNSUITABLE, "diverged")}
    text += "".join(f", {count} {name}" for name, count in bad.items() if count)
    return Finding(text, done == there.size) if there.size else NOT_IN_THIS_RUN


def best_scores(dataset: xr.Dataset) -> dict[str, tuple[float, float]]:
    """Return, for each environment, the best score of its networks and what chance has."""
    found = {}
    for name in np.atleast_1d(dataset["task"].values) if {"score", "chance"} <= set(dataset) else ():
        one = dataset[["score", "chance"]]
        one = one.sel(task=name) if "task" in one["score"].dims else one
        scores = np.asarray(one["score"].values, dtype=float)
        if np.isfinite(scores).any():
            found[str(name)] = (float(np.nanmax(scores)), float(np.nanmax(one["chance"].values)))
    return found


def learned(score: float, chance: float) -> bool:
    """Return whether a score is more than half-way from chance to perfect."""
    return score > (1 + chance) / 2


def most_are_learned(dataset: xr.Dataset) -> Finding:
    """Find whether three in four of the environments that can be known from the trial are learned by some network."""
    found = {name: pair for name, pair in best_scores(dataset).items() if name not in NOT_IN_THE_TRIAL}
    if not found:
        return NOT_IN_THIS_RUN
    missed = [name for name, pair in found.items() if not learned(*pair)]
    text = f"{len(found) - len(missed)} of {len(found)}"
    return Finding(text + (f"; not {', '.join(missed)}" if missed else ""), len(missed) <= len(found) / 4)


def unknowable_is_not_learned(dataset: xr.Dataset) -> Finding:
    """Find whether a task whose answer depends on earlier trials stays below half-way."""
    found = {name: pair for name, pair in best_scores(dataset).items() if name in NOT_IN_THE_TRIAL}
    if not found:
        return NOT_IN_THIS_RUN
    text = ", ".join(f"{name}: {score:.2f}, chance {chance:.2f}" for name, (score, chance) in found.items())
    return Finding(text, not any(learned(*pair) for pair in found.values()))


def few_directions(dataset: xr.Dataset) -> Finding:
    """Find whether, of the networks that learned, nine in ten keep 95 % of their score at rank ten."""
    if not {"score", "chance", "score_rank"} <= set(dataset):
        return NOT_IN_THIS_RUN
    there = learned_networks(dataset)
    ranks = dataset["score_rank"].values[there]
    if not ranks.size:
        return NOT_IN_THIS_RUN
    few, known = int((ranks <= FEW).sum()), ranks[np.isfinite(ranks)]
    text = f"{few} of {ranks.size} networks"
    text += f"; median {np.median(known):g}, largest {known.max():g}" if known.size else ""
    return Finding(text, few >= 0.9 * ranks.size)


def learned_networks(dataset: xr.Dataset) -> NDArray[Any]:
    """Return which networks learned their task, in the shape of `score`."""
    scores = np.asarray(dataset["score"].values, dtype=float)
    return scores > (1 + np.asarray(dataset["chance"].values, dtype=float)) / 2


def _of_both_gains(dataset: xr.Dataset, variable: str) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return a variable at the lowest and the highest gain, for environments that some network learned at both."""
    if not {"score", "chance", variable} <= set(dataset) or "gain" not in dataset["score"].dims:
        return None
    values = dataset[variable].where(dataset["score"] > (1 + dataset["chance"]) / 2)
    if "sample" in values.dims:
        values = values.mean("sample")
    low, high = (np.atleast_1d(values.isel(gain=at).values) for at in (0, -1))
    both = np.isfinite(low) & np.isfinite(high)
    return (low[both], high[both]) if both.any() else None


def faster_with_connectivity(dataset: xr.Dataset) -> Finding:
    """Find whether most environments that are learned at both gains are learned faster at the higher."""
    return _mostly_less(dataset, "fall_epoch", unit=" epochs")


def smaller_with_connectivity(dataset: xr.Dataset) -> Finding:
    """Find whether the change is smaller at the higher gain in most environments that are learned at both."""
    return _mostly_less(dataset, "change_norm")


def _mostly_less(dataset: xr.Dataset, variable: str, unit: str = "") -> Finding:
    """Find whether a variable is less at the higher gain in most environments that are learned at both."""
    found = _of_both_gains(dataset, variable)
    if found is None:
        return NOT_IN_THIS_RUN
    low, high = found
    less = int((high < low).sum())
    text = f"{less} of {low.size}; in the median {np.median(low):.3g} and {np.median(high):.3g}{unit}"
    return Finding(text, less > low.size / 2)


NEUROGYM = Experiment(
    name="neurogym",
    description="Every supervised environment of NeuroGym, g = 0 to 1.5 (needs the extra rankscope[neurogym])",
    presets={
        "quick": lambda: neurogym_cells(QUICK_GAINS, 1, QUICK_SIZE, QUICK_EPOCHS),
        "paper": lambda: neurogym_cells(GAINS, 1, PAPER_SIZE, EPOCHS),
    },
    claims=(
        Claim("all are tasks", "every environment can be trained on, and no network diverges", "-", all_are_tasks),
        Claim(
            "most are learned",
            "three in four are learned: the best score is more than half-way from chance to perfect",
            "-",
            most_are_learned,
        ),
        Claim(
            "the unknowable is not",
            "not HierarchicalReasoning, whose rule depends on the trials before",
            "-",
            unknowable_is_not_learned,
        ),
        Claim(
            "few directions",
            f"where learned, rank {FEW} of the change keeps 95 % of the score above chance (nine in ten networks)",
            "a handful of directions",
            few_directions,
        ),
        Claim(
            "faster with connectivity",
            "most environments are learned faster from strong random connectivity",
            "fastest at intermediate g",
            faster_with_connectivity,
        ),
        Claim(
            "smaller with connectivity",
            "in most, the change is smaller",
            "|dW| shrinks with g",
            smaller_with_connectivity,
        ),
    ),
)
