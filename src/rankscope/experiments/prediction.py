"""What the theories say of a linear network, side by side, and networks trained to see who is right.

`predict` puts the paper's expansion beside the exact solution; `simulate` trains networks of one gain on one target and
returns the same quantities, over the same learning time. (theory.md)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from rankscope.errors import InputError
from rankscope.experiments.base import seed_of
from rankscope.experiments.cell import Cell, run
from rankscope.experiments.linear import LINEAR_NETWORK, RECURRENT_SGD
from rankscope.sweep.processes import OnProgress, Report, run_side_by_side
from rankscope.tasks import FixedPoint
from rankscope.theory import InfiniteWidth, ThirdOrder
from rankscope.validation import integer

#: The two theories, by the names that tables and legends give them.
EXACT, EXPANSION = "exact", "third order"
TIMES = 200
# A step this small against the largest stable one is a good approximation of gradient flow.
STEP = 0.1
MOST_STEPS = 20_000
RECORDS = 50
# Time constants that the slowest mode is given to settle, in units of its own.
SETTLING = 12
SHORTEST_TRIAL = 101.0
# Of learning rates, which are drawn on a logarithmic axis.
RATE_ACCURACY, RATE_ERROR = 1e-3, 0.02


def predict(gain: float, target: float, until: float | None = None) -> xr.Dataset:
    """Return both theories over learning time.

    Parameters
    ----------
    gain, target
        g in [0, 1), and z_hat.
    until
        The last learning time; by default twice the time in which the loss falls to 5 %.

    Returns
    -------
    xr.Dataset
        Over `theory` ("exact", "third order") and `tau`: what `InfiniteWidth.solve` returns, NaN where the expansion
        has no such quantity, and `convergence_time` over `theory`.

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


def cells_to_compare(
    gain: float, target: float, until: float, networks: int, hidden_size: int, seed: int
) -> list[Cell]:
    """Return the networks to train: steps small enough for gradient flow, trials long enough for the fixed point.

    Parameters
    ----------
    until
        The learning time that training lasts.
    networks, hidden_size
        How many, and of how many units N.

    Raises
    ------
    InputError
        If there are no networks, or they would have to take too many steps.
    """
    theory = InfiniteWidth(gain, target)
    rate = min(until / TIMES, STEP * theory.stable_learning_rate)
    steps = math.ceil(until / rate)
    if steps > MOST_STEPS:
        raise InputError(
            f"until must be shorter to be simulated: {until:g} takes {steps} steps of at most {rate:.2g}, "
            f"more than {MOST_STEPS}"
        )
    outlier = float(theory.solve([np.inf])["outlier"].fillna(gain).item())
    task = FixedPoint(target=target, duration=max(SHORTEST_TRIAL, math.ceil(SETTLING / (1 - outlier))))
    return [
        Cell(
            task,
            gain=gain,
            hidden_size=hidden_size,
            epochs=steps + 1,
            seed=seed_of("prediction", seed, target, gain, hidden_size, sample),
            sample=sample,
            network=LINEAR_NETWORK,
            training=RECURRENT_SGD
            | {"learning_rate": rate, "recorded_epochs": RECORDS, "singular_values": 5, "eigenvalues": 1},
            measurements=(),
        )
        for sample in range(integer("networks", networks, minimum=1))
    ]


def simulate(cells: Sequence[Cell], workers: int | None = None, on_progress: OnProgress | None = None) -> xr.Dataset:
    """Train networks side by side and return what `predict` does, over `sample` and `tau`.

    Parameters
    ----------
    cells
        As `cells_to_compare` returns them.

    Returns
    -------
    xr.Dataset
        `loss`, `singular_value`, `change_norm` and `outlier` (NaN within the bulk of radius g) over `sample` and `tau`;
        `shuffled_loss`, at the end, and `convergence_time` over `sample`.
    """
    networks = run_side_by_side(simulate_one, cells, workers, on_progress)
    together = xr.concat(networks, "sample", join="outer")
    return together.assign_coords(hidden_size=cells[0].hidden_size)


def simulate_one(cell: Cell, report: Report) -> xr.Dataset:
    """Train the network of one cell and return the same of it, over `tau` and without `sample`."""
    measured, rate = run(cell, report).measurements, cell.training["learning_rate"]
    recorded = measured["recorded_epoch"].values
    singular = measured["singular_value_history"].values
    outlier = measured["eigenvalue_real_history"].values[:, 0]
    return xr.Dataset(
        {
            "loss": ("tau", measured["loss"].values[recorded]),
            "singular_value": (("tau", "singular_index"), singular),
            "change_norm": ("tau", np.linalg.norm(singular, axis=1)),
            "outlier": ("tau", np.where(outlier > cell.gain, outlier, np.nan)),
            "shuffled_loss": ((), measured["shuffled_loss"].item()),
            "convergence_time": ((), measured["convergence_epoch"].item() * rate),
        },
        {"tau": recorded * rate, "singular_index": measured["leading_index"].values},
    )


def learning_rates(gains: Sequence[float], targets: Sequence[float]) -> xr.Dataset:
    """Return how long the steps of gradient descent may be, in infinitely wide networks.

    Parameters
    ----------
    gains, targets
        Of g in [0, 1), and of z_hat.

    Returns
    -------
    xr.Dataset
        Over `gain` and `target`, in units of (1 - g^2)^2, the time that learning takes: `settles`, the learning rate up
        to which descent settles where gradient flow ends, and `diverges`, the one from which an eigenvalue of W reaches
        1.

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
