"""Schuessler et al. 2020, supplement: spectra of W0, dW and W.

W keeps the full-rank bulk of the random W0, a disc of radius g; the change adds a few outliers, of eigenvalues and of
singular values.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from rankscope.experiments.base import NAMES, PAPER_EPOCHS, PAPER_SIZE, QUICK_SIZE, Experiment, nonlinear_jobs
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding, rows, values

GAINS = dict.fromkeys(PAPER_EPOCHS, (0.0, 0.9, 1.8))


def bulk_stays(dataset: xr.Dataset, task: str) -> Finding:
    """Check that nine in ten eigenvalues of the trained W lie within 1.1 g, at g = 0.9 and 1.8."""
    shares = {}
    for gain in (0.9, 1.8):
        real, imag = (
            values(dataset, f"eigenvalue_{part}", matrix="trained", task=task, gain=gain) for part in ("real", "imag")
        )
        if real.size:
            shares[gain] = np.mean(np.hypot(real, imag) < 1.1 * gain)
    if not shares:
        return NOT_IN_THIS_RUN
    text = ", ".join(f"{100 * share:.0f} % at g = {gain:g}" for gain, share in shares.items())
    return Finding(text, all(share > 0.9 for share in shares.values()))


def rank_contrast(dataset: xr.Dataset, task: str) -> Finding:
    """Check that W needs at least three times as many directions as dW for 80 % of its squared norm, at g > 0."""
    counts = {}
    for gain in (0.9, 1.8):
        few, many = (_directions(dataset, matrix, task, gain) for matrix in ("change", "trained"))
        if few:
            counts[gain] = few, many
    if not counts:
        return NOT_IN_THIS_RUN
    text = "; ".join(f"dW {few:g}, W {many:g} at g = {gain:g}" for gain, (few, many) in counts.items())
    return Finding(text, all(many >= 3 * few for few, many in counts.values()))


def _directions(dataset: xr.Dataset, matrix: str, task: str, gain: float) -> float:
    """Return the number of directions with 80 % of the squared norm, the mean over networks; 0 without networks."""
    spectra = rows(dataset, "singular_value", "singular_index", matrix=matrix, task=task, gain=gain)
    counts = [int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), 0.8) + 1) for s in spectra]
    return float(np.mean(counts)) if counts else 0.0


def outlier_near_one(dataset: xr.Dataset, task: str) -> Finding:
    """Check that W at g = 0, without eigenvalues but 0 before, has one of real part 0.8 or more after learning."""
    real = values(dataset, "eigenvalue_real", matrix="trained", task=task, gain=0.0)
    if not real.size:
        return NOT_IN_THIS_RUN
    return Finding(f"largest real part {real.max():.2f} at g = 0", bool(real.max() > 0.8))


def _claims(task: str) -> tuple[Claim, ...]:
    return (
        Claim(
            f"{task}: bulk stays",
            f"the bulk of W stays in the disc of radius g ({NAMES[task]}: 90 % of the eigenvalues within 1.1 g)",
            "bulk in the disc, few outliers",
            partial(bulk_stays, task=task),
        ),
        Claim(
            f"{task}: rank contrast",
            "W is of full rank while dW is not (three times as many directions for 80 % of the squared norm)",
            "dW low rank, W full rank",
            partial(rank_contrast, task=task),
        ),
        Claim(
            f"{task}: outlier",
            "learning puts eigenvalues near or beyond 1 (largest real part above 0.8 at g = 0)",
            "outliers about the line Re = 1",
            partial(outlier_near_one, task=task),
        ),
    )


SPECTRA = Experiment(
    name="spectra",
    description="Three tasks at g = 0, 0.9 and 1.8: singular values and eigenvalues (paper supplement)",
    presets={
        "quick": lambda: nonlinear_jobs(GAINS, 1, [QUICK_SIZE]),
        "paper": lambda: nonlinear_jobs(GAINS, 1, [PAPER_SIZE]),
    },
    claims=tuple(claim for task in GAINS for claim in _claims(task)),
)
