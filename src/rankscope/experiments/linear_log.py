"""Schuessler et al. 2020, supplement: singular values of the change in the linear network, on a logarithmic scale.

The networks are those of `linear`. Each direction beyond the first grows with a higher power of learning time and of
the target: dW is of rank one for a small target, and a larger one adds a second direction. Below about 1e-6 there is
only the rounding of single precision.
"""

from __future__ import annotations

import itertools

import numpy as np
import xarray as xr

from rankscope.experiments.base import Experiment
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Finding, claim
from rankscope.experiments.linear import PRESETS
from rankscope.experiments.linear_agreement import comparisons, exact_theory


@claim("rank one", "dW is about of rank one at the smallest target (99 % of |dW|^2)", "rank one")
def _rank_one(dataset: xr.Dataset) -> Finding:
    there = [comparison for comparison in comparisons(dataset) if comparison.measured["s1"].size]
    if not there:
        return NOT_IN_THIS_RUN
    smallest = min(comparison.target for comparison in there)
    shares = {
        c.gain: float(np.mean((c.measured["s1"] / c.measured["change_norm"]) ** 2))
        for c in there
        if c.target == smallest
    }
    least = min(shares, key=lambda gain: shares[gain])
    text = f"{100 * shares[least]:.2f} % or more at target {smallest:g} (the least at g = {least:g})"
    return Finding(text, shares[least] > 0.99)


@claim("second direction", "s2 / s1 of dW grows with the target, and with g", "s2 of higher order, z_hat^3")
def _second_grows(dataset: xr.Dataset) -> Finding:
    ratios = {
        (c.gain, c.target): float(np.mean(c.measured["s2"] / c.measured["s1"]))
        for c in comparisons(dataset)
        if c.settles and c.measured["s1"].size
    }
    gains, targets = (sorted({key[axis] for key in ratios}) for axis in (0, 1))
    in_target = [[ratios[g, z] for z in targets if (g, z) in ratios] for g in gains]
    in_gain = [[ratios[g, z] for g in gains if (g, z) in ratios] for z in targets]
    if not any(len(row) > 1 for row in in_target) or not any(len(row) > 1 for row in in_gain):
        return NOT_IN_THIS_RUN
    grows = all(a < b for row in in_target for a, b in itertools.pairwise(row))
    text = "; ".join(
        f"{row[0]:.3f} to {row[-1]:.3f} along g at target {z:g}" for z, row in zip(targets, in_gain, strict=True)
    )
    return Finding(text, grows and all(row[-1] > row[0] for row in in_gain if len(row) > 1))


LINEAR_LOG = Experiment(
    name="linear-log",
    description="The networks of linear: s1 to s5 of dW on a logarithmic scale (paper supplement)",
    presets=PRESETS,
    claims=(
        _rank_one,
        _second_grows,
        exact_theory("s1, s2 and s3 of dW", "s1", "s2", "s3"),
    ),
)
