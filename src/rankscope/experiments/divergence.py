"""Schuessler et al. 2020, supplement: learning fails when the outlier eigenvalue of the connectivity reaches 1.

A linear network answers with a finite number only while all eigenvalues of W have a real part below 1. A larger target
takes the outlier closer to 1, where the answer depends so strongly on W that a step of gradient descent overshoots:
learning settles only if steps are shorter than 2 / curvature of the loss. At g = 0.8 and a target of 4 they are eight
times as long. Some networks are then thrown back and start again; in others the outlier passes 1, which is final.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.experiments.base import Experiment, seed_of
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Finding, claim, mean_and_error, values
from rankscope.experiments.linear import linear_job
from rankscope.experiments.linear_agreement import comparison_at, comparisons
from rankscope.sweep import Job
from rankscope.theory import InfiniteWidth

GAINS = (0.6, 0.8)
#: Target z_hat -> learning rate at g = 0; it falls as (1 - g^2)^2, as in `linear`.
RATES = {2.0: 0.002, 4.0: 0.001}
DURATION = 201.0
EPOCHS = 200
SIZE, QUICK_SIZE = 256, 128
QUICK_SAMPLES = 8
SAMPLES = 10  # whether and when a network diverges differs from one to the next; five are too few to show it
FAILS = (0.8, 4.0)


def divergence_jobs(N: int, samples: int) -> list[Job]:
    """Return a job for each target, gain and sample."""
    return [
        linear_job(
            {"name": "fixed_point", "target": target, "duration": DURATION},
            {"gain": gain, "hidden_size": N},
            seed_of("divergence", target, gain, sample),
            {"sample": sample, "target": target},
            epochs=EPOCHS,
            learning_rate=rate * (1 - gain**2) ** 2,
            recorded_epochs=EPOCHS,
            eigenvalues=5,
        )
        for target, rate in RATES.items()
        for gain in GAINS
        for sample in range(samples)
    ]


@claim(
    "fails",
    "learning diverges at g = 0.8, target 4 (in some networks), and nowhere else",
    "blows up near epoch 50",
)
def _fails_at_one_place(dataset: xr.Dataset) -> Finding:
    there = {(c.gain, c.target): c for c in comparisons(dataset)}
    if FAILS not in there:
        return NOT_IN_THIS_RUN
    lasted = (dataset["loss"] < np.inf).sum("epoch").where(dataset["status"] == "diverged")
    epochs = {(g, z): values(dataset.assign(lasted=lasted), "lasted", gain=g, target=z) for g, z in there}
    here = epochs.pop(FAILS)
    elsewhere = sum(found.size for found in epochs.values())
    when = f", at epochs {', '.join(f'{epoch:.0f}' for epoch in np.sort(here))}" if here.size else ""
    exact = int(InfiniteWidth(*FAILS).descend(there[FAILS].rate, dataset.sizes["epoch"])["loss"].notnull().sum())
    text = f"{here.size} of {there[FAILS].networks} diverge{when} (exact theory {exact}); {elsewhere} elsewhere"
    return Finding(text, here.size > 0 and elsewhere == 0)


@claim(
    "outlier crosses 1",
    "the largest eigenvalue of W went beyond 1 in every network that diverged, and in no other",
    "as its outlier reaches 1",
)
def _outlier_crosses(dataset: xr.Dataset) -> Finding:
    if "eigenvalue_real_history" not in dataset:
        return NOT_IN_THIS_RUN
    highest = dataset["eigenvalue_real_history"].sel(leading_eigenvalue=1).max("record")
    failed, others = (
        highest.where(which).values for which in (dataset["status"] == "diverged", dataset["status"] == "finished")
    )
    failed, others = failed[np.isfinite(failed)], others[np.isfinite(others)]
    if not failed.size or not others.size:
        return NOT_IN_THIS_RUN
    text = f"{failed.min():.3f} or more in the {failed.size} that diverged, {others.max():.3f} or less in the others"
    return Finding(text, bool(failed.min() > 1 > others.max()))


@claim("outlier", "the outlier of W ends near 0.88 at g = 0.6, target 2", "0.88")
def _outlier_at_the_end(dataset: xr.Dataset) -> Finding:
    # The paper shows one network, so the tolerance is two standard deviations of ours.
    found = comparison_at(dataset, 0.6, 2.0)
    if found is None or found.measured["outlier"].size < 2:
        return NOT_IN_THIS_RUN
    x = found.measured["outlier"]
    text = f"{mean_and_error(x)} (exact theory {found.theory['outlier']:.3f})"
    return Finding(text, bool(abs(x.mean() - 0.88) < 2 * x.std(ddof=1)))


@claim(
    "steps too long",
    "most networks settle where a step is shorter than 2 / curvature in the exact theory, and only there",
    "(not in the paper)",
)
def _settles_as_the_theory_says(dataset: xr.Dataset) -> Finding:
    relative = dataset.isel(epoch=-1)["loss"] / dataset.isel(epoch=0)["loss"]
    texts, holds = [], True
    for comparison in comparisons(dataset):
        left = values(dataset.assign(left=relative), "left", gain=comparison.gain, target=comparison.target)
        settled = int(np.sum(left < 1e-6))  # the last loss relative to the first one
        holds &= (settled > comparison.networks / 2) == comparison.settles
        texts.append(
            f"{settled} of {comparison.networks} at {comparison} ({'shorter' if comparison.settles else 'longer'})"
        )
    return Finding(", ".join(texts), holds) if texts else NOT_IN_THIS_RUN


DIVERGENCE = Experiment(
    name="divergence",
    description="Linear network, large targets: learning fails when the outlier of W reaches 1 (paper supplement)",
    presets={
        "quick": lambda: divergence_jobs(QUICK_SIZE, QUICK_SAMPLES),
        "paper": lambda: divergence_jobs(SIZE, SAMPLES),
    },
    claims=(_fails_at_one_place, _outlier_crosses, _outlier_at_the_end, _settles_as_the_theory_says),
)
