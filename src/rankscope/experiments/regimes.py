"""Does the rank of the change follow the regime of learning? Norm of the output weights times gain, two tasks.

Output weights of norm 1 / sqrt(N) lead to aligned solutions, of norm 1 to oblique ones (Schuessler et al., eLife 2024).
The gain of the random connectivity sets how much of the task the untrained network does already. Functional rank and
size of the change are shown beside the meters of the regime.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.experiments.base import PAPER_SIZE, QUICK_SIZE, Experiment, seed_of
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Finding, by_gain, claim
from rankscope.sweep import Job

GAINS = (0.0, 0.9, 1.8)
TRAINING = {"cosine": {"epochs": 500, "batch_size": 1}, "flipflop": {"epochs": 400}}
"""The cosine has one trial. Both tasks converge within a few hundred epochs at every gain."""
MEASURED = ("learning", "norms", "evaluation", "truncation", "activity", "kernel", "noise")


@claim(
    "{task}: aligned",
    "{task}: small output weights lead to aligned activity (ρ above twice 1/√N at every g)",
    "aligned (Schuessler et al., eLife 2024)",
)
def _aligned(dataset: xr.Dataset, task: str) -> Finding:
    norms = _norms(dataset)
    found = by_gain(dataset, "output_alignment", task=task, output_norm=norms[0]) if norms else {}
    nulls = by_gain(dataset, "output_alignment_null", task=task, output_norm=norms[0]) if norms else {}
    if not found:
        return NOT_IN_THIS_RUN
    text = ", ".join(f"ρ = {rho.mean():.2f} at g = {gain:g}" for gain, rho in found.items())
    return Finding(text, all(rho.mean() > 2 * nulls[gain].mean() for gain, rho in found.items()))


@claim(
    "{task}: oblique",
    "{task}: output weights of norm 1 lead to activity that is less aligned with them, at every g",
    "oblique (Schuessler et al., eLife 2024)",
)
def _oblique(dataset: xr.Dataset, task: str) -> Finding:
    norms = _norms(dataset)
    if len(norms) < 2 or norms[-1] != 1:
        return NOT_IN_THIS_RUN
    small, large = (by_gain(dataset, "output_alignment", task=task, output_norm=norm) for norm in (norms[0], 1.0))
    gains = [gain for gain in small if gain in large]
    if not gains:
        return NOT_IN_THIS_RUN
    text = ", ".join(f"ρ = {large[g].mean():.2f} instead of {small[g].mean():.2f} at g = {g:g}" for g in gains)
    return Finding(text, all(large[g].mean() < small[g].mean() for g in gains))


def _norms(dataset: xr.Dataset) -> list[float]:
    if "output_norm" not in dataset.coords:
        return []
    return sorted(float(norm) for norm in np.atleast_1d(dataset["output_norm"].values))


def _jobs(samples: int, size: int, norms: int) -> list[Job]:
    """Return a job for each task, gain, norm (from 1 / sqrt(N) to 1) and sample; W0 and directions are paired."""
    return [
        Job(
            task=task,
            network={"kind": "rate", "gain": gain, "hidden_size": size, "output_norm": float(norm)},
            training={**training, "recorded_epochs": 0},
            measurements=MEASURED,
            seed=seed_of("regimes", task, gain, size, sample),
            labels={"sample": sample, "output_norm": float(norm)},
        )
        for task, training in TRAINING.items()
        for gain in GAINS
        for norm in np.round(np.geomspace(size**-0.5, 1, norms), 4)
        for sample in range(samples)
    ]


REGIMES = Experiment(
    name="regimes",
    description="Cosine and flip-flop, norm of the outputs times gain: does rank follow the regime of learning?",
    presets={"quick": lambda: _jobs(1, QUICK_SIZE, 3), "paper": lambda: _jobs(5, PAPER_SIZE, 4)},
    claims=tuple(one.at(task=task) for task in TRAINING for one in (_aligned, _oblique)),
)
