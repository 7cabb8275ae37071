"""Schuessler et al. 2020, supplement: spectra of W0, dW and W.

W keeps the full-rank bulk of the random W0, a disc of radius g; the change adds a few outliers, of eigenvalues and of
singular values.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.experiments.base import PAPER_EPOCHS, PAPER_SIZE, QUICK_SIZE, Experiment, nonlinear_jobs
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Finding, all_of, claim, rows, values

GAINS = dict.fromkeys(PAPER_EPOCHS, (0.0, 0.9, 1.8))


@claim(
    "{task}: bulk stays",
    "{task}: the bulk of W stays in the disc of radius g (90 % of the eigenvalues within 1.1 g)",
    "bulk in the disc, few outliers",
)
def _bulk_stays(dataset: xr.Dataset, task: str) -> Finding:
    shares = {}
    for gain in (0.9, 1.8):
        real, imag = (
            values(dataset, f"eigenvalue_{part}", matrix="trained", task=task, gain=gain) for part in ("real", "imag")
        )
        if real.size:
            shares[gain] = np.mean(np.hypot(real, imag) < 1.1 * gain)
    return all_of(shares, lambda share: f"{100 * share:.0f} %", lambda share: bool(share > 0.9))


@claim(
    "{task}: rank contrast",
    "{task}: W is of full rank while dW is not (three times as many directions for 80 % of the squared norm)",
    "dW low rank, W full rank",
)
def _rank_contrast(dataset: xr.Dataset, task: str) -> Finding:
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


@claim(
    "{task}: outlier",
    "{task}: learning puts eigenvalues near or beyond 1 (largest real part above 0.8 at g = 0)",
    "outliers about the line Re = 1",
)
def _outlier_near_one(dataset: xr.Dataset, task: str) -> Finding:
    # Before learning all eigenvalues are 0.
    networks = rows(dataset, "eigenvalue_real", "eigenvalue", matrix="trained", task=task, gain=0.0)
    if not networks:
        return NOT_IN_THIS_RUN
    # The least of all networks.
    largest = min(float(real.max()) for real in networks)
    return Finding(f"largest real part {largest:.2f} at g = 0", largest > 0.8)


SPECTRA = Experiment(
    name="spectra",
    description="Three tasks at g = 0, 0.9 and 1.8: singular values and eigenvalues (paper supplement)",
    presets={
        "quick": lambda: nonlinear_jobs(GAINS, 1, [QUICK_SIZE]),
        "paper": lambda: nonlinear_jobs(GAINS, 1, [PAPER_SIZE]),
    },
    claims=tuple(one.at(task=task) for task in GAINS for one in (_bulk_stays, _rank_contrast, _outlier_near_one)),
)
