"""The linear networks of a run beside the exact theory of infinitely many units, place by place.

A *place* is a gain and a target; its networks differ by their random weights alone, and their mean is compared with
gradient descent at that very learning rate in the theory, which has no parameter to adjust. It is left out where the
theory says that the steps are too long for learning to settle: there the end of a training is an accident.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import stdtr

from rankscope.experiments.claims import NOT_IN_THIS_RUN, Finding, standard_error, values
from rankscope.theory import InfiniteWidth
from rankscope.training.convergence import convergence_epoch

SCALARS = ("convergence_epoch", "average_gradient", "change_norm", "outlier", "shuffled_loss")
# Differences that mean nothing: an epoch is a whole number; of a loss that has vanished rounding is left, and of a
# direction that is not there the noise of W in single precision, some eps sqrt(N).
RESOLUTION = {"convergence_epoch": 1.0, "shuffled_loss": 1e-3, "s1": 1e-6, "s2": 1e-6, "s3": 1e-6}
UNLIKELY = 0.05
# How well values are read off the paper's figures.
BY_EYE = 0.1
# The bulk of finite W reaches beyond g; an outlier is told from it only further out.
BEYOND_THE_BULK = 1.1


@dataclass(frozen=True, eq=False)
class Place:
    """The networks of one gain and target, and what the theory says of them.

    Attributes
    ----------
    networks
        How many there are.
    rate
        Their learning rate.
    measured
        Quantity -> values at the end of training, of those that converged.
    theory
        Quantity -> value; NaN where it has none.
    settles
        Whether a step is shorter than 2 / curvature of the loss where learning ends, so that it can end there.
    """

    gain: float
    target: float
    networks: int
    rate: float
    measured: Mapping[str, NDArray[np.float64]]
    theory: Mapping[str, float]
    settles: bool

    def __str__(self) -> str:
        return f"g = {self.gain:g}, target {self.target:g}"


def places(dataset: xr.Dataset) -> list[Place]:
    """Return every place of a run of linear networks that learned one number, for g < 1; none of any other run."""
    if "target" not in dataset.coords:
        return []
    done = dataset["convergence_epoch"].notnull() & (dataset["status"] == "finished")
    # The last record is of the epoch before the last step.
    s = dataset["singular_value_history"].isel(record=-1)
    directions = {f"s{index}": s.sel(leading_index=index, drop=True) for index in (1, 2, 3)}
    converged = dataset[list(SCALARS)].assign(directions).where(done).load()
    found = []
    for target in map(float, np.atleast_1d(dataset["target"])):
        for gain in map(float, np.atleast_1d(dataset["gain"])):
            rate = values(dataset, "learning_rate", task="fixed_point", target=target, gain=gain)
            if not rate.size or gain >= 1:
                continue
            theory, settles = predicted(gain, target, float(rate[0]), dataset.sizes["epoch"])
            measured = {name: values(converged, name, target=target, gain=gain) for name in theory}
            found.append(Place(gain, target, rate.size, float(rate[0]), measured, theory, settles))
    return found


@functools.lru_cache(maxsize=256)
def predicted(gain: float, target: float, rate: float, epochs: int) -> tuple[dict[str, float], bool]:
    """Return what so many epochs of gradient descent leave in an infinitely wide network, and whether it settles."""
    theory = InfiniteWidth(gain, target)
    steps = theory.descend(rate, epochs + 1)
    last = steps.isel(tau=-1)
    s = np.append(steps["singular_value"].isel(tau=-2), [0.0, 0.0])
    convergence = convergence_epoch(steps["loss"])
    outlier = float(last["outlier"])
    return {
        "convergence_epoch": np.nan if convergence is None else float(convergence),
        "average_gradient": float(steps["gradient_norm"][:convergence].mean()) if convergence else np.nan,
        "change_norm": float(last["change_norm"]),
        "s1": float(s[0]),
        "s2": float(s[1]),
        "s3": float(s[2]),
        "outlier": outlier if outlier > BEYOND_THE_BULK * gain else np.nan,
        "shuffled_loss": float(last["shuffled_loss"]),
    }, rate < theory.stable_learning_rate


def agreement(dataset: xr.Dataset, quantities: Sequence[str]) -> Finding:
    """Compare the means of quantities with the exact theory at every place that has three networks or more."""
    there = places(dataset)
    chances = {
        f"{name} at {place}": chance(x, place.theory[name], RESOLUTION.get(name, 0.0))
        for place in there
        for name in quantities
        if (x := place.measured[name]).size >= 3
        and x.size == place.networks
        and np.isfinite(place.theory[name])
        and place.settles
    }
    finding = judged(chances)
    unsettled = sum(not place.settles for place in there)
    text = f"; {unsettled} of {len(there)} places have steps too long to settle" if unsettled and chances else ""
    return Finding(finding.measured + text, finding.holds)


def judged(chances: Mapping[str, float]) -> Finding:
    """Judge many comparisons together, given the chance of each.

    Of so many, one in twenty is expected below 5 %. They agree if it is not more than one in ten, and none so far off
    that one would not expect it among all of them (a chance of 1 % in all).
    """
    if not chances:
        return NOT_IN_THIS_RUN
    beyond = [name for name, p in chances.items() if p < UNLIKELY]
    text = f"{len(chances) - len(beyond)} of {len(chances)} agree (t-test at {100 * UNLIKELY:g} %)"
    text += f" (beyond: {'; '.join(beyond)})" if beyond else ""
    return Finding(text, len(beyond) <= 0.1 * len(chances) and min(chances.values()) > 0.01 / len(chances))


def chance(found: NDArray[np.float64], expected: float, resolution: float = 0.0) -> float:
    """Return the chance of a mean so far from what is expected, counting only what is beyond the resolution.

    By Student's t: that it is above 5 % is, for many networks, "within two standard errors".
    """
    difference, error = max(abs(found.mean() - expected) - resolution, 0.0), standard_error(found)
    if difference == 0 or error == 0:
        return float(difference == 0)
    return float(2 * stdtr(found.size - 1, -difference / error))
