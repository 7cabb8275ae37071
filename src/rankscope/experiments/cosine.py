"""A linear network learns to oscillate by itself: two eigenvalues of W move to 1 ± 2 pi i / period. (paper supplement)

Without input, what a linear network does is the sum of its eigenmodes. An oscillation that neither grows nor decays
needs a pair of eigenvalues with real part 1, and of imaginary part 2 pi / period; learning has to put them there. (In
steps of dt the pair is at (exp(2 pi i dt / period) - 1 + dt) / dt instead: at 0.92 ± 1.25i for a step of 0.1.)

Without random connectivity it cannot: input and output vector are one and the same, no other direction ever takes part,
and the one eigenvalue of that direction stays real.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.experiments.base import Experiment, seed_of
from rankscope.experiments.cell import Cell
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding, mean_and_error, values
from rankscope.experiments.linear import LINEAR_NETWORK, RECURRENT_SGD
from rankscope.tasks import Cosine

RATES = {0.0: 0.2, 0.4: 0.15, 0.8: 0.05}
EPOCHS = 1000
RECORDS = 200
SIZE = 256
SAMPLES = 5
PERIOD, STEP = Cosine().period, Cosine().dt
# Of the networks that learn, read off the figure.
PAPER_EPOCH = 350
UNDAMPED = (np.exp(2j * np.pi * STEP / PERIOD) - 1 + STEP) / STEP


def cells() -> list[Cell]:
    """Return one cell for each gain and sample."""
    return [
        Cell(
            Cosine(),
            gain=gain,
            hidden_size=SIZE,
            epochs=EPOCHS,
            sample=sample,
            seed=seed_of("cosine", gain, sample),
            network=LINEAR_NETWORK | {"input_is_output": True},
            training=RECURRENT_SGD | {"learning_rate": rate, "recorded_epochs": RECORDS, "eigenvalues": 5},
            measurements=("trial", "outlier"),
        )
        for gain, rate in RATES.items()
        for sample in range(SAMPLES)
    ]


def never_without_w0(dataset: xr.Dataset) -> Finding:
    """Find whether no network learns at g = 0."""
    epochs, networks = _convergence(dataset, gain=0.0)
    return Finding(f"{epochs.size} of {networks} converged", not epochs.size) if networks else NOT_IN_THIS_RUN


def learned(dataset: xr.Dataset, gain: float) -> Finding:
    """Find whether all networks of a gain learn, about as fast as the paper's one did.

    A third more or less: ours differ by some 10 % from one to the next (one standard deviation), and the figure is read
    to 10 %.
    """
    epochs, networks = _convergence(dataset, gain)
    if not networks:
        return NOT_IN_THIS_RUN
    when = f", after {mean_and_error(epochs)} epochs" if epochs.size else ""
    near = bool(epochs.size) and bool(abs(epochs.mean() / PAPER_EPOCH - 1) < 1 / 3)
    return Finding(f"{epochs.size} of {networks} converged{when}", epochs.size == networks and near)


def _convergence(dataset: xr.Dataset, gain: float) -> tuple[NDArray[np.float64], int]:
    """Return the convergence epochs of the networks that converged, and how many networks there are."""
    epochs, losses = (values(dataset, n, task="cosine", gain=gain) for n in ("convergence_epoch", "initial_loss"))
    return epochs, losses.size


def undamped_pair(dataset: xr.Dataset, gain: float) -> Finding:
    """Find whether the leading eigenvalues end up where the oscillation of the task is undamped in steps of dt.

    Within 0.05: over the two periods that count, an amplitude that grows or decays by that rate is off by the 22 % (in
    the mean square) at which a network counts as converged.
    """
    if "eigenvalue_real_history" not in dataset:
        return NOT_IN_THIS_RUN
    first = dataset.isel(record=-1).sel(leading_eigenvalue=1)
    real, imag = (values(first, f"eigenvalue_{part}_history", task="cosine", gain=gain) for part in ("real", "imag"))
    if not real.size:
        return NOT_IN_THIS_RUN
    undamped = f"{UNDAMPED.real:.3f} ± {UNDAMPED.imag:.3f}i"
    text = f"{real.mean():.3f} ± {imag.mean():.3f}i (undamped in steps of {STEP:g}: {undamped})"
    return Finding(text, bool(np.all(np.abs(real + 1j * imag - UNDAMPED) < 0.05)))


COSINE = Experiment(
    name="cosine",
    description="Linear network without input learns to oscillate: outputs and eigenvalues (paper supplement)",
    presets={"quick": cells, "paper": cells},
    claims=(
        Claim(
            "needs W0", "the cosine is not learned from g = 0, in 1000 epochs", "not in 1000 epochs", never_without_w0
        ),
        *(
            Claim(
                f"learned at g = {gain:g}",
                f"it is learned from g = {gain:g} (within a third of the paper's epochs)",
                f"near epoch {PAPER_EPOCH}",
                partial(learned, gain=gain),
            )
            for gain in (0.4, 0.8)
        ),
        *(
            Claim(
                f"undamped pair at g = {gain:g}",
                f"W has a pair of eigenvalues for an undamped oscillation of that period (g = {gain:g})",
                "near 1 ± 1.26i",
                partial(undamped_pair, gain=gain),
            )
            for gain in (0.4, 0.8)
        ),
    ),
)
