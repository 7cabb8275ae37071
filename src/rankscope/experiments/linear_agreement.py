"""Comparison of the linear networks of a run with the exact theory of infinitely many units.

The networks of one gain and one target differ by their random weights alone. Their mean is compared with gradient
descent at the same learning rate in the theory, which has no free parameter. Combinations where, by the theory, the
steps are too long to settle are left out: the end of such a training is arbitrary.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import stdtr

from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding, standard_error, values
from rankscope.theory import InfiniteWidth
from rankscope.training.convergence import convergence_epoch

SCALARS = ("convergence_epoch", "change_norm", "average_gradient", "shuffled_loss", "outlier")
# Differences below these mean nothing: an epoch is a whole number; a vanished loss is rounding; and a direction that is
# absent shows the rounding of W in single precision, eps sqrt(N).
RESOLUTION = {"convergence_epoch": 1.0, "shuffled_loss": 1e-3, "s1": 1e-6, "s2": 1e-6, "s3": 1e-6}
UNLIKELY = 0.05
BY_EYE = 0.1  # accuracy of values read off the paper's figures
BEYOND_THE_BULK = 1.1  # the bulk of a finite W extends beyond g; an outlier is distinct from it only further out


@dataclass(frozen=True, eq=False)
class Comparison:
    """The networks of one gain and target, with the predictions of the exact theory.

    Attributes
    ----------
    networks
        Number of networks.
    rate
        Their learning rate.
    measured
        Quantity -> values at the end of training, of the networks that converged.
    theory
        Quantity -> predicted value; NaN where there is none.
    settles
        Whether a step is shorter than 2 / curvature of the loss at the end of learning.
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


def comparisons(dataset: xr.Dataset) -> list[Comparison]:
    """Return the comparisons with g < 1 of a run of linear networks on the fixed-point task; none of any other run."""
    needed = {"target", "gain", "singular_value_history", "convergence_epoch", "status", "epoch", *SCALARS}
    if not needed <= set(dataset.variables):
        return []
    done = dataset["convergence_epoch"].notnull() & (dataset["status"] == "finished")
    s = dataset["singular_value_history"].isel(record=-1)  # before the last step
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
            found.append(Comparison(gain, target, rate.size, float(rate[0]), measured, theory, settles))
    return found


@functools.lru_cache(maxsize=256)
def predicted(gain: float, target: float, rate: float, epochs: int) -> tuple[dict[str, float], bool]:
    """Return the quantities of an infinitely wide network after gradient descent, and whether the descent settles."""
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
        **{f"s{index + 1}": float(s[index]) for index in range(3)},
        "outlier": outlier if outlier > BEYOND_THE_BULK * gain else np.nan,
        "shuffled_loss": float(last["shuffled_loss"]),
    }, rate < theory.stable_learning_rate


def comparison_at(dataset: xr.Dataset, gain: float, target: float) -> Comparison | None:
    """Return the comparison of one gain and target; None if the run has none."""
    return next((one for one in comparisons(dataset) if (one.gain, one.target) == (gain, target)), None)


def exact_theory(subject: str, *quantities: str) -> Claim:
    """Return the claim that quantities agree with the exact theory."""
    return Claim(
        "exact theory",
        f"{subject} are those of the exact theory of infinitely many units",
        "(not in the paper)",
        lambda dataset: agreement(dataset, quantities),
    )


def agreement(dataset: xr.Dataset, quantities: Sequence[str]) -> Finding:
    """Compare means of quantities with the exact theory, wherever three networks or more converged, and all did."""
    there = comparisons(dataset)
    probabilities = {
        f"{name} at {comparison}": probability(x, comparison.theory[name], RESOLUTION.get(name, 0.0))
        for comparison in there
        for name in quantities
        if (x := comparison.measured[name]).size >= 3
        and x.size == comparison.networks
        and np.isfinite(comparison.theory[name])
        and comparison.settles
    }
    finding = judged(probabilities)
    unsettled = sum(not comparison.settles for comparison in there)
    text = f"; {unsettled} of {len(there)} places have steps too long to settle" if unsettled and probabilities else ""
    return Finding(finding.measured + text, finding.holds)


def judged(probabilities: Mapping[str, float]) -> Finding:
    """Judge many comparisons together, given the p-value of each.

    One in twenty is expected below 5 %. They agree if no more than one in ten is, and if none is below 1 % after
    Bonferroni's correction.
    """
    if not probabilities:
        return NOT_IN_THIS_RUN
    beyond = [name for name, p in probabilities.items() if p < UNLIKELY]
    count = len(probabilities)
    text = f"{count - len(beyond)} of {count} agree (t-test at {100 * UNLIKELY:g} %)"
    text += f" (beyond: {'; '.join(beyond)})" if beyond else ""
    return Finding(text, len(beyond) <= 0.1 * count and min(probabilities.values()) > 0.01 / count)


def probability(found: NDArray[np.float64], expected: float, resolution: float = 0.0) -> float:
    """Return the two-sided p-value of Student's t-test, counting only differences beyond the resolution."""
    difference, error = max(abs(found.mean() - expected) - resolution, 0.0), standard_error(found)
    if difference == 0 or error == 0:
        return float(difference == 0)
    return float(2 * stdtr(found.size - 1, -difference / error))
