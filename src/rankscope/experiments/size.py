"""Schuessler et al. 2020, supplement: dependence on the number of units, N = 64 to 1024.

|W| grows as the square root of N; the change, and the number of directions that the task needs, do not grow.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.experiments.base import PAPER_EPOCHS, Experiment, nonlinear_jobs
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Finding, claim, mean_and_error, standard_error, values
from rankscope.experiments.size_limit import limit_for, networks_without_weights

GAINS = dict.fromkeys(PAPER_EPOCHS, (0.0, 0.9, 1.8))
SIZES = (64, 128, 256, 512, 1024)
SHORTER_SIZES = (64, 128, 256, 512)  # with three samples, an eighth of the work
QUICK_SIZES = (32, 64, 128)
GAIN = 0.9
RECORDS = 2  # recording singular values more often costs as much as the training at these sizes


def _means(dataset: xr.Dataset, variable: str, task: str) -> dict[int, float]:
    sizes = [int(N) for N in np.atleast_1d(dataset["hidden_size"].values)]
    found = {N: values(dataset, variable, task=task, gain=GAIN, hidden_size=N) for N in sizes}
    return {N: float(v.mean()) for N, v in found.items() if v.size}


def _listed(means: dict[int, float]) -> str:
    return ", ".join(f"{mean:.3g} at N = {N}" for N, mean in means.items())


@claim("{task}: |W| grows", "{task}: |W| grows as g sqrt(N) (g = 0.9)", "as sqrt(N)")
def _norm_grows(dataset: xr.Dataset, task: str) -> Finding:
    # To 15 %, of sqrt(g^2 N + |dW|^2).
    trained, change = _means(dataset, "trained_norm", task), _means(dataset, "change_norm", task)
    if len(trained) < 2:
        return NOT_IN_THIS_RUN
    expected = {N: float(np.hypot(GAIN * np.sqrt(N), change[N])) for N in trained}
    return Finding(_listed(trained), all(abs(trained[N] / expected[N] - 1) < 0.15 for N in trained))


@claim(
    "{task}: rank does not grow",
    "{task}: the functional rank does not grow with N (less than twofold, g = 0.9)",
    "about constant",
)
def _rank_does_not_grow(dataset: xr.Dataset, task: str) -> Finding:
    # While N grows fourfold or more.
    ranks = _means(dataset, "functional_rank", task)
    if len(ranks) < 2 or max(ranks) < 4 * min(ranks):
        return NOT_IN_THIS_RUN
    return Finding(_listed(ranks), ranks[max(ranks)] < 2 * ranks[min(ranks)] + 1)


@claim(
    "{task}: |dW| of infinitely many units",
    "{task}: |dW| is that of infinitely many units (g = 0, the largest N, within 2 standard errors and 5 %)",
    "(not in the paper)",
)
def _change_as_at_infinite_width(dataset: xr.Dataset, task: str) -> Finding:
    # 5 %: the finite size, and the input weights, which learn in the networks only.
    limit, networks = limit_for(dataset, task, "change_norm"), networks_without_weights(dataset, task)
    if limit is None or networks is None:
        return NOT_IN_THIS_RUN
    converged = networks["change_norm"].where(networks["convergence_epoch"].notnull())
    found = {
        int(N): values(converged.to_dataset(name="norm"), "norm", hidden_size=N) for N in networks["hidden_size"].values
    }
    sizes = [N for N, norms in found.items() if norms.size > 1]
    if not sizes:
        return NOT_IN_THIS_RUN
    norms = found[max(sizes)]
    allowed = 2 * float(np.hypot(standard_error(norms), limit.error)) + 0.05 * limit.value
    measured = f"{mean_and_error(norms)} at N = {max(sizes)}, limit {limit.value:.3g} ± {limit.error:.2g}"
    return Finding(measured, bool(abs(norms.mean() - limit.value) < allowed))


SIZE = Experiment(
    name="size",
    description="Three tasks at g = 0, 0.9 and 1.8, N = 64 to 1024, five networks each (paper supplement)",
    presets={
        "quick": lambda: nonlinear_jobs(GAINS, 2, QUICK_SIZES),  # with those of `gain` at 128 units
        "shorter": lambda: nonlinear_jobs(GAINS, 3, SHORTER_SIZES, RECORDS),
        "paper": lambda: nonlinear_jobs(GAINS, 5, SIZES, RECORDS),
    },
    claims=tuple(
        one.at(task=task) for task in GAINS for one in (_norm_grows, _rank_does_not_grow, _change_as_at_infinite_width)
    ),
)
