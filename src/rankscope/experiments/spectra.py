"""Spectra of the connectivity before and after learning, and of the change. (paper supplement)

W keeps the full-rank bulk that random W0 gave it, a disc of radius g; the change adds a few outliers, of eigenvalues
and of singular values.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.experiments.base import (
    PAPER_EPOCHS,
    PAPER_SIZE,
    QUICK_SIZE,
    Experiment,
    nonlinear_cells,
)
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding, values
from rankscope.experiments.gain import NAMES

GAINS = dict.fromkeys(PAPER_EPOCHS, (0.0, 0.9, 1.8))


def _of(dataset: xr.Dataset, variable: str, matrix: str, task: str, gain: float) -> NDArray[np.float64]:
    return values(dataset[variable].sel(matrix=matrix).to_dataset(name="v"), "v", task=task, gain=gain)


def bulk_stays(dataset: xr.Dataset, task: str) -> Finding:
    """Find whether nine in ten eigenvalues of the trained W lie within 1.1 g, at g = 0.9 and 1.8."""
    shares = {}
    for gain in (0.9, 1.8):
        real, imag = (_of(dataset, f"eigenvalue_{part}", "trained", task, gain) for part in ("real", "imag"))
        if real.size:
            shares[gain] = np.mean(np.hypot(real, imag) < 1.1 * gain)
    if not shares:
        return NOT_IN_THIS_RUN
    text = ", ".join(f"{100 * share:.0f} % at g = {gain:g}" for gain, share in shares.items())
    return Finding(text, all(share > 0.9 for share in shares.values()))


def rank_contrast(dataset: xr.Dataset, task: str) -> Finding:
    """Find whether W needs at least three times as many directions as dW for 80 % of its squared norm, at g > 0."""
    counts = {}
    for gain in (0.9, 1.8):
        s_change, s_trained = (_of(dataset, "singular_value", m, task, gain) for m in ("change", "trained"))
        if s_change.size:
            counts[gain] = tuple(
                int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), 0.8) + 1) for s in (s_change, s_trained)
            )
    if not counts:
        return NOT_IN_THIS_RUN
    text = "; ".join(f"dW {few}, W {many} at g = {gain:g}" for gain, (few, many) in counts.items())
    return Finding(text, all(many >= 3 * few for few, many in counts.values()))


def outlier_near_one(dataset: xr.Dataset, task: str) -> Finding:
    """Find whether W at g = 0, which had no eigenvalue but 0, has one whose real part reaches 0.8 after learning."""
    real = _of(dataset, "eigenvalue_real", "trained", task, 0.0)
    if not real.size:
        return NOT_IN_THIS_RUN
    return Finding(f"largest real part {real.max():.2f} at g = 0", bool(real.max() > 0.8))


def _claims(task: str) -> tuple[Claim, ...]:
    return (
        Claim(
            f"{task}: bulk stays",
            f"the bulk of W stays in the disc of radius g ({NAMES[task]}: 90 % of the eigenvalues within 1.1 g)",
            "bulk in the disc, few outliers",
            lambda dataset: bulk_stays(dataset, task),
        ),
        Claim(
            f"{task}: rank contrast",
            "W is of full rank while dW is not (three times as many directions for 80 % of the squared norm)",
            "dW low rank, W full rank",
            lambda dataset: rank_contrast(dataset, task),
        ),
        Claim(
            f"{task}: outlier",
            "learning puts eigenvalues near or beyond 1 (largest real part above 0.8 at g = 0)",
            "outliers about the line Re = 1",
            lambda dataset: outlier_near_one(dataset, task),
        ),
    )


SPECTRA = Experiment(
    name="spectra",
    description="Three tasks at g = 0, 0.9 and 1.8: singular values and eigenvalues (paper supplement)",
    presets={
        "quick": lambda: nonlinear_cells(GAINS, 1, [QUICK_SIZE]),
        "paper": lambda: nonlinear_cells(GAINS, 1, [PAPER_SIZE]),
    },
    claims=tuple(claim for task in GAINS for claim in _claims(task)),
)
