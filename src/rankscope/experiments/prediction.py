"""Predictions of the theories for a linear network, and trained networks to compare them with.

`predict` returns the paper's expansion and the exact solution of infinitely many units; `jobs_to_compare` and
`simulate` train networks with one gain on one target and return the same quantities over the same learning time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from rankscope.errors import InputError
from rankscope.experiments.base import seed_of
from rankscope.experiments.linear import linear_job
from rankscope.sweep import Job
from rankscope.sweep.processes import OnProgress, Report, run_side_by_side
from rankscope.theory import InfiniteWidth, ThirdOrder
from rankscope.validation import integer

#: The two theories, as tables and legends name them.
EXACT, EXPANSION = "exact", "third order"
TIMES = 200
STEP = 0.1  # of the largest stable learning rate: small enough to approximate gradient flow
MAX_STEPS = 20_000
RECORDS = 50
SETTLING = 12  # time constants of the slowest mode in a trial
SHORTEST_TRIAL = 101.0
RATE_ACCURACY, RATE_ERROR = 1e-3, 0.02  # enough for the learning rates of a logarithmic axis


def predict(gain: float, target: float, until: float | None = None) -> xr.Dataset:
    """Return the predictions of both theories over learning time.

    Parameters
    ----------
    gain, target
        g in [0, 1), and z_hat.
    until
        The last learning time; by default twice the time in which the loss falls to 5 %.

    Returns
    -------
    xr.Dataset
        Over `theory` ("exact", "third order") and `tau`: the quantities of `InfiniteWidth.solve`, NaN where the
        expansion has no such quantity; and `convergence_time` over `theory`.

    Raises
    ------
    InputError
        If an argument is out of range.
    """
    exact, expansion = InfiniteWidth(gain, target), ThirdOrder(gain, target)
    last = 2 * exact.convergence_time() if until is None else until
    times = np.linspace(0, last, TIMES)
    both = [exact.solve(times), expansion.solve(times)]
    together = xr.concat(both, xr.Variable("theory", [EXACT, EXPANSION]), join="outer", data_vars="all")
    times_needed = [exact.convergence_time(), expansion.convergence_time()]
    together["convergence_time"] = ("theory", times_needed, {"long_name": "learning time to a loss of 5 %"})
    together.attrs |= {"gain": gain, "target": target, "stable_learning_rate": exact.stable_learning_rate}
    return together


def jobs_to_compare(gain: float, target: float, until: float, networks: int, hidden_size: int, seed: int) -> list[Job]:
    """Return jobs with steps short enough for gradient flow, and trials long enough for the fixed point.

    Parameters
    ----------
    until
        Learning time of the training.
    networks, hidden_size
        Number of networks, and of units N.

    Raises
    ------
    InputError
        If there are no networks, or the training takes too many steps.
    """
    theory = InfiniteWidth(gain, target)
    rate = min(until / TIMES, STEP * theory.stable_learning_rate)
    steps = math.ceil(until / rate)
    if steps > MAX_STEPS:
        raise InputError(
            f"until must be shorter to be simulated: {until:g} takes {steps} steps of at most {rate:.2g}, "
            f"more than {MAX_STEPS}"
        )
    outlier = float(theory.solve([np.inf])["outlier"].fillna(gain).item())
    duration = max(SHORTEST_TRIAL, math.ceil(SETTLING / (1 - outlier)))
    return [
        linear_job(
            {"name": "fixed_point", "target": target, "duration": duration},
            {"gain": gain, "hidden_size": hidden_size},
            seed_of("prediction", seed, target, gain, hidden_size, sample),
            {"sample": sample},
            ("shuffle",),
            epochs=steps + 1,
            learning_rate=rate,
            recorded_epochs=RECORDS,
            singular_values=5,
            eigenvalues=1,
        )
        for sample in range(integer("networks", networks, minimum=1))
    ]


def simulate(jobs: Sequence[Job], workers: int | None = None, on_progress: OnProgress | None = None) -> xr.Dataset:
    """Train networks on several processes and return what `predict` returns, over `sample` and `tau`.

    Parameters
    ----------
    jobs
        As `jobs_to_compare` returns them.

    Returns
    -------
    xr.Dataset
        `loss`, `singular_value`, `change_norm` and `outlier` (NaN within the bulk of radius g) over `sample` and `tau`;
        `shuffled_loss`, at the end, and `convergence_time` over `sample`.
    """
    networks = run_side_by_side(simulate_one, jobs, workers, on_progress)
    return xr.concat(networks, "sample", join="outer")


def simulate_one(job: Job, progress: Report) -> xr.Dataset:
    """Train the network of one job and return the same quantities over `tau`."""
    measured = job.run(progress).measurements
    rate, gain = measured["learning_rate"].item(), measured["gain"].item()
    recorded = measured["recorded_epoch"].values
    singular = measured["singular_value_history"].values
    outlier = measured["eigenvalue_real_history"].values[:, 0]
    return xr.Dataset(
        {
            "loss": ("tau", measured["loss"].values[recorded]),
            "singular_value": (("tau", "singular_index"), singular),
            "change_norm": ("tau", np.linalg.norm(singular, axis=1)),
            "outlier": ("tau", np.where(outlier > gain, outlier, np.nan)),
            "shuffled_loss": ((), measured["shuffled_loss"].item()),
            "convergence_time": ((), measured["convergence_epoch"].item() * rate),
        },
        {
            "tau": recorded * rate,
            "singular_index": measured["leading_index"].values,
            "hidden_size": measured["hidden_size"].item(),
        },
    )


def learning_rates(gains: Sequence[float], targets: Sequence[float]) -> xr.Dataset:
    """Return the largest learning rates of gradient descent in infinitely wide networks.

    Parameters
    ----------
    gains, targets
        Values of g in [0, 1) and of z_hat.

    Returns
    -------
    xr.Dataset
        Over `gain` and `target`, in units of (1 - g^2)^2: `settles`, the learning rate up to which descent settles
        where gradient flow ends, and `diverges`, the one from which an eigenvalue of W reaches 1.

    Raises
    ------
    InputError
        If a gain or a target is out of range.
    """
    theories = [[InfiniteWidth(gain, target, RATE_ACCURACY) for target in targets] for gain in gains]
    unit = ((1 - np.square(gains)) ** 2)[:, None]
    rates = {
        "settles": [[theory.stable_learning_rate for theory in row] for row in theories],
        "diverges": [[theory.largest_learning_rate(RATE_ERROR) for theory in row] for row in theories],
    }
    return xr.Dataset(
        {name: (("gain", "target"), np.array(values) / unit) for name, values in rates.items()},
        {"gain": list(gains), "target": list(targets)},
    )
