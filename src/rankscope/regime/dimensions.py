r"""Dimensions of activity: by variance, by what the output needs, and the participation ratio.

With the variances :math:`\lambda_1 \ge \lambda_2 \ge \ldots` of the principal components of activity, centered over
samples: :math:`D_x` is the smallest number of components with 90 % of the variance, and the participation ratio is
:math:`(\sum \lambda)^2 / \sum \lambda^2`, between 1 and N. :math:`D_\mathrm{fit}` is the smallest number of leading
components from which a ridge regression reaches :math:`R^2 = 0.9` of the outputs. Outputs read along a random
direction have, on average, the share of the variance as their :math:`R^2`, so that :math:`D_x` is what
:math:`D_\mathrm{fit}` is for them: below it, outputs are read from the leading components (aligned), above it from
weaker ones (oblique).

Source: Schuessler et al., eLife 2024.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rankscope.errors import InputError
from rankscope.regime.activity import Array, finite
from rankscope.validation import number

SHARE = 0.9
RIDGE = 1e-6
"""Ridge parameter of the regression, relative to the total variance of the activity."""


class Dimensions(NamedTuple):
    """Dimensions of activity; NaN where nothing varies.

    Attributes
    ----------
    variance
        D_x.
    fit
        D_fit, NaN also if the regression does not reach the share with all components.
    participation
        The participation ratio.
    """

    variance: float
    fit: float
    participation: float


def dimensions(activity: Any, outputs: Any = None, share: float = SHARE, ridge: float = RIDGE) -> Dimensions:
    """Return the dimensions of activity.

    Parameters
    ----------
    activity
        (samples, N).
    outputs
        (samples, out) to be fitted; without them `fit` is NaN.
    share
        Of the variance, and of the outputs' variance.
    ridge
        Ridge parameter, relative to the total variance of the activity.

    Raises
    ------
    InputError
        If they are no finite matrices with the same number of rows, or a number is out of range.
    """
    X = finite("activity", activity)
    share = number("share", share, above=0, maximum=1)
    ridge = number("ridge", ridge, minimum=0)
    X = X - X.mean(0)
    values, vectors = np.linalg.eigh(X.T @ X)
    variances = values[::-1].clip(min=0)
    total = float(variances.sum())
    if total == 0:
        return Dimensions(math.nan, math.nan, math.nan)
    fit = math.nan
    if outputs is not None:
        z = finite("outputs", outputs)
        if len(z) != len(X):
            raise InputError(f"outputs must have a row for each of activity, {len(X)}, got {len(z)}")
        fit = _first(_explained(X @ vectors[:, ::-1], variances, z - z.mean(0), ridge * total), share)
    participation = total**2 / float(np.square(variances).sum())
    return Dimensions(_first(variances.cumsum() / total, share), fit, participation)


def _explained(scores: Array, variances: Array, z: Array, ridge: float) -> Array:
    """Return R^2 of the outputs (samples, out) from the leading k components, (N,); NaN for constant outputs."""
    total = float(np.square(z).sum())
    if total == 0:
        return np.full(len(variances), np.nan)
    products = np.square(scores.T @ z).sum(1)
    # One component is independent of the others: its coefficient is c / (lambda + ridge).
    damped = variances + ridge
    gains = np.divide(products * (2 * damped - variances), damped**2, out=np.zeros_like(products), where=damped > 0)
    found: Array = gains.cumsum() / total
    return found


def _first(shares: Array, share: float) -> float:
    """Return the number of components with which a cumulative share is reached first, NaN if it never is."""
    reached = np.flatnonzero(shares >= share - 1e-9)
    return float(reached[0] + 1) if reached.size else math.nan
