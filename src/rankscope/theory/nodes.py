"""Few points that stand for a standard normal distribution: scrambled Sobol points, relaxed, with exact moments.

Sobol points through the normal quantile are balanced one coordinate at a time, but 64 of them in four dimensions are
hardly better than random ones. Relaxed to a small energy distance from the normal distribution ("support points", Mak
and Joseph 2018) they halve the scatter of what `NonlinearLimit` computes, as four times as many points would.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import gammaln, hyp1f1, ndtri
from scipy.stats import qmc

from rankscope.errors import InputError
from rankscope.validation import RngLike, generator, integer

Array = NDArray[np.float64]

RELAXATION = 50  # steps; more no longer improve the points
FEWEST_PER_DIMENSION = 4


def normal_nodes(count: int, dimensions: int, rng: RngLike = 0, *, antithetic: bool = False) -> Array:
    """Return points of equal weight with mean 0 and covariance 1 for expectations over a standard normal.

    Parameters
    ----------
    count, dimensions
        Number of points, at least four for each dimension, and of their coordinates.
    rng
        Source of the scrambling.
    antithetic
        Whether the points are pairs x and -x, so that all odd moments vanish; `count` is even.

    Returns
    -------
    Array
        (count, dimensions).

    Raises
    ------
    InputError
        If there are too few points, or an odd number of antithetic ones.
    """
    d = integer("dimensions", dimensions, minimum=1)
    K = integer("nodes", count, minimum=1)
    fewest = FEWEST_PER_DIMENSION * d
    if fewest > K:
        raise InputError(f"nodes must be at least {fewest} for {d} inputs and outputs, got {K}")
    if antithetic and K % 2:
        raise InputError(f"nodes must be even to be antithetic, got {K}")
    drawn = K // 2 if antithetic else K
    # A power of two, of which the first are taken: scipy warns of other numbers.
    exponent = max(drawn - 1, 1).bit_length()
    uniform = qmc.Sobol(d, scramble=True, rng=generator(rng, "scrambling")).random_base2(exponent)[:drawn]
    points = ndtri(np.clip(uniform, 0.5**33, 1 - 0.5**33))
    points = _relaxed(np.concatenate([points, -points]) if antithetic else points)
    if antithetic:
        points = np.concatenate([points[:drawn], -points[:drawn]])
    return _whitened(points)


def _relaxed(start: Array) -> Array:
    """Return points after some steps down the energy distance 2 E|x - y| - E|x - x'|, y normal and x, x' points."""
    K, d = start.shape
    scale = np.sqrt(2) * np.exp(gammaln((d + 1) / 2) - gammaln(d / 2))

    def energy(flat: Array) -> tuple[float, Array]:
        x = flat.reshape(K, d)
        z = -(x**2).sum(1) / 2
        distances = cdist(x, x)
        total = distances.sum()
        np.fill_diagonal(distances, np.inf)
        inverse = 1 / np.maximum(distances, 1e-12)
        # E|x - y| = scale 1F1(-1/2; d/2; -x^2/2), and the derivative of 1F1(a; b; z) is a/b 1F1(a+1; b+1; z).
        towards = scale / d * hyp1f1(0.5, d / 2 + 1, z) / K
        gradient = (towards - inverse.sum(1) / K**2)[:, None] * x + inverse @ x / K**2
        return 2 * scale * float(hyp1f1(-0.5, d / 2, z).mean()) - total / K**2, 2 * gradient.ravel()

    options = {"maxiter": RELAXATION, "ftol": 0.0, "gtol": 0.0}
    relaxed: Array = minimize(energy, start.ravel(), jac=True, method="L-BFGS-B", options=options).x
    return relaxed.reshape(K, d)


def _whitened(points: Array) -> Array:
    """Return points shifted and scaled to mean 0 and covariance 1."""
    centred = points - points.mean(0)
    factor = np.linalg.cholesky(centred.T @ centred / len(points))
    white: Array = np.linalg.solve(factor, centred.T).T
    return white
