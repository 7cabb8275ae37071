r"""Alignment of activity with the output weights: aligned or oblique.

:math:`\rho = |w X^T|_F / (|w|_F |X|_F)` for activity X (samples, N), centered over samples, and output weights w (out,
N) (Schuessler et al., eLife 2024). Output weights that do not depend on the activity have :math:`\rho^2 = 1/N` on
average, whatever the activity; isotropic activity has :math:`\rho = 1/\sqrt N` exactly. With the variances
:math:`\lambda_1 \ge \lambda_2 \ge \ldots` of the principal components and the singular values :math:`\sigma_i` of w,

.. math:: \rho^2 \le \frac{\sum_i \sigma_i^2 \lambda_i}{\sum_i \sigma_i^2 \sum_i \lambda_i},

with equality where the outputs read the leading components. That is at most 1/D for D orthonormal outputs.

The variance ratio is the variance of activity along the span of the outputs, per dimension, over that along random
directions, ``|X|^2 / N``. For a random subspace of dimension D its mean is 1 and its variance
2 (N - D) N (sum lambda^2 / (sum lambda)^2 - 1/N) / (D (N - 1) (N + 2)).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rankscope.lowrank.anatomy import basis
from rankscope.regime.activity import finite


class Alignment(NamedTuple):
    """Alignment of activity with output weights; NaN for constant activity or output weights of zero.

    Attributes
    ----------
    rho
        The alignment.
    null
        1 / sqrt(N), for output weights in random directions.
    bound
        The largest rho that output weights with these singular values have.
    variance_ratio
        Variance along the outputs over that along random directions.
    variance_ratio_std
        Its standard deviation for random outputs; the mean is 1.
    """

    rho: float
    null: float
    bound: float
    variance_ratio: float
    variance_ratio_std: float


def alignment(activity: Any, output_weights: Any) -> Alignment:
    """Return the alignment of activity with output weights.

    Parameters
    ----------
    activity
        (samples, N), what the output weights read.
    output_weights
        (out, N).

    Raises
    ------
    InputError
        If they are no finite matrices with the same number of columns.
    """
    X = finite("activity", activity)
    N = X.shape[1]
    w = finite("output_weights", output_weights, N)
    X = X - X.mean(0)
    total, squares = float(np.square(X).sum()), float(np.square(w).sum())
    null = 1 / math.sqrt(N)
    if total == 0 or squares == 0:
        return Alignment(math.nan, null, math.nan, math.nan, math.nan)
    variances = np.linalg.eigvalsh(X.T @ X)[::-1].clip(min=0)
    strengths = np.linalg.svd(w, compute_uv=False) ** 2
    bound = float((strengths * variances[: len(strengths)]).sum()) / (squares * total)
    Q = basis(w.T)
    D = Q.shape[1]
    along = float(np.square(X @ Q).sum()) / D / (total / N)
    spread = float(np.square(variances).sum()) / total**2 - 1 / N
    variance = 2 * (N - D) * N * max(spread, 0.0) / (D * (N - 1) * (N + 2)) if N > 1 else 0.0
    rho = float(np.linalg.norm(X @ w.T)) / math.sqrt(squares * total)
    return Alignment(rho, null, math.sqrt(min(bound, 1.0)), along, math.sqrt(variance))
