"""Both theories of the linear network over effective learning time, as plain values.

Effective time is x = beta^2 tau, with beta = 1 / (1 - g^2) and tau = learning rate * epoch, which makes curves of
different gains comparable. It extends to twice the time in which the exact loss falls to 5 %.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from rankscope.experiments.prediction import EXACT, EXPANSION
from rankscope.theory import InfiniteWidth, ThirdOrder

ACCURACY = 1e-4  # relative, of the theory: 0.01 pixels
POINTS = 72
DIGITS = 6
#: Name of a curve -> variable of `solve`, and index of the singular value.
QUANTITIES: dict[str, tuple[str, int | None]] = {
    "loss": ("loss", None),
    "change_norm": ("change_norm", None),
    "s1": ("singular_value", 1),
    "s2": ("singular_value", 2),
    "outlier": ("outlier", None),
    "shuffled_loss": ("shuffled_loss", None),
}


def curves(gain: float, target: float) -> dict[str, Any]:
    """Return the predictions of both theories.

    Parameters
    ----------
    gain, target
        g in [0, 1), and z_hat, not 0.

    Returns
    -------
    dict
        `gain`, `target`; `x` (points,), effective learning time; `theories`: name -> quantity -> (points,), losses
        relative to the loss before learning, None where a quantity is undefined; `convergence`: name -> x at which the
        loss is 5 %; `stable_rate`: largest learning rate at which descent settles at the end of the flow, in units of
        (1 - g^2)^2.

    Raises
    ------
    InputError
        If an argument is out of range.
    """
    exact, expansion = InfiniteWidth(gain, target, ACCURACY), ThirdOrder(gain, target)
    unit = (1 - gain**2) ** 2
    converged = exact.convergence_time()
    times = np.linspace(0, 2 * converged, POINTS)
    solved = {EXACT: exact.solve(times), EXPANSION: expansion.solve(times)}
    return {
        "gain": gain,
        "target": target,
        "x": listed(times / unit),
        "theories": {name: quantities(one, target) for name, one in solved.items()},
        "convergence": {EXACT: rounded(converged / unit), EXPANSION: rounded(expansion.convergence_time() / unit)},
        "stable_rate": rounded(exact.stable_learning_rate / unit),
    }


def quantities(solved: xr.Dataset, target: float) -> dict[str, list[float | None]]:
    """Return every quantity over the times of `solved`, the loss relative to that of a readout of 0."""
    found = {}
    for name, (variable, index) in QUANTITIES.items():
        if variable not in solved:
            continue
        values = solved[variable]
        if index is not None:
            # At g = 0 the exact theory has fewer singular values; the others are 0.
            exists = index in solved["singular_index"]
            values = values.sel(singular_index=index) if exists else xr.zeros_like(solved["loss"])
        found[name] = listed(values.values / (target**2 / 2 if name == "loss" else 1.0))
    return found


def listed(values: ArrayLike) -> list[float | None]:
    """Return numbers for JSON, rounded; None if not finite."""
    return [rounded(value) for value in np.asarray(values, dtype=np.float64).ravel()]


def rounded(value: float) -> float | None:
    """Return a number for JSON, rounded to six digits; None if not finite."""
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
