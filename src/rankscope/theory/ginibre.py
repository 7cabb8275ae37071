"""Singular values of 1 - W0 for a Ginibre matrix W0 of infinite size, and the overlaps of their singular vectors.

W0 has independent Gaussian entries of variance g^2/N. In the limit of many units the singular values of 1 - W0 fill one
interval with a known density, and the left and right singular vectors of each singular value have a known mean overlap;
both follow from the roots of one cubic. Derivation: docs/guides/theory.md, "Reduction to few directions".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from rankscope.errors import InputError
from rankscope.validation import number

Array = NDArray[np.floating]
Complex = NDArray[np.complexfloating]

FEWEST_NODES = 64
MOST_NODES = 2**15
# Factor of safety in the number of nodes for averages that are not known in closed form: those of long chains, and of
# resolvents close to the bulk. The error decreases exponentially with the number of nodes.
SPARE = 4
# Below this, g^2 has no effect within the accuracy.
NEGLIGIBLE = 1e-10
# Nodes per singular value for the distribution function.
FINE = 8


@dataclass(frozen=True, eq=False)
class SpectralMeasure:
    """Quadrature over the singular values of 1 - W0: an average is a weighted sum over its nodes.

    Attributes
    ----------
    gain
        g.
    singular_values, weights
        (nodes,) positions s and their weights, which add up to 1.
    m11, m12
        (nodes,) diagonal and off-diagonal entry of the Hermitized resolvent, which determine the overlaps.
    """

    gain: float
    singular_values: Array
    weights: Array
    m11: Complex
    m12: Complex

    def overlap(self, eigenvalue: float | None = None) -> Array:
        """Return the mean of (right singular vector) . X (left singular vector) at every node, (nodes,).

        Parameters
        ----------
        eigenvalue
            X = (eigenvalue - W0)^-1 for a real one above g; None for X = 1, the plain overlap.
        """
        m12 = self.m12 if eigenvalue is None else self.m12 / (eigenvalue - self.gain**2 * self.m12)
        return m12.imag / self.m11.imag


def edges(gain: float) -> tuple[float, float]:
    """Return the smallest and the largest singular value of 1 - W0 in the limit of large N.

    Parameters
    ----------
    gain
        0 < g < 1.
    """
    alpha = np.sqrt(1 + 8 / gain**2)
    # alpha - 3 without cancellation near g = 1
    gap = 8 * (1 - gain**2) / (gain**2 * (alpha + 3))
    lower = gain * np.sqrt(gap**3 / (8 * (alpha - 1)))
    upper = gain * np.sqrt((alpha + 3) ** 3 / (8 * (alpha + 1)))
    return float(lower), float(upper)


def spectral_measure(gain: float, accuracy: float = 1e-10) -> SpectralMeasure:
    """Return the measure with enough nodes for the accuracy.

    Parameters
    ----------
    gain
        g, 0 <= g < 1.
    accuracy
        Relative error allowed in the three averages known in closed form: those of 1 and of overlap / s, both 1, and of
        1 / s^2, which is 1 / (1 - g^2).

    Raises
    ------
    InputError
        If g is not in [0, 1), or too close to 1 for the accuracy.
    """
    g = _gain(gain)
    if g**2 <= NEGLIGIBLE:
        # All singular values are 1 and all vectors coincide, up to terms of order g^2.
        one, i = np.ones(1), np.array([1j])
        return SpectralMeasure(g, one, one, i, i)
    nodes = FEWEST_NODES
    while nodes <= MOST_NODES:
        measure = _with_nodes(g, nodes)
        s, weights = measure.singular_values, measure.weights
        averages = np.array([weights.sum(), weights @ (measure.overlap() / s), weights @ ((1 - g**2) / s**2)])
        if np.abs(averages - 1).max() <= accuracy:
            return _with_nodes(g, SPARE * nodes)
        nodes *= 2
    raise InputError(f"gain must be further below 1 for an accuracy of {accuracy:g}, got {gain!r}")


def typical_measure(gain: float, size: int) -> SpectralMeasure:
    """Return the measure of a matrix with `size` rows, with its singular values at the quantiles of the density.

    Singular values of random matrices repel each other and deviate from the quantiles by about 1 / size only.
    """
    g = _gain(gain)
    shares = np.full(size, 1 / size)
    if g**2 <= NEGLIGIBLE:
        return SpectralMeasure(g, np.ones(size), shares, np.full(size, 1j), np.full(size, 1j))
    fine = _with_nodes(g, FINE * size)
    lower, upper = edges(g)
    # The cumulative distribution function, from 0 at the lower edge to 1 at the upper.
    s, weights = fine.singular_values[::-1], fine.weights[::-1]
    below = np.concatenate([[0.0], np.cumsum(weights) - weights / 2, [1.0]])
    quantile = PchipInterpolator(below, np.concatenate([[lower], s, [upper]]))
    positions = quantile((np.arange(size) + 0.5) / size)
    return SpectralMeasure(g, positions, shares, *_resolvent_entries(positions, g))


def _gain(gain: float) -> float:
    g = number("gain", gain, minimum=0)
    if g >= 1:
        raise InputError(f"gain must be below 1, where the linear network has a fixed point, got {gain!r}")
    return g


def _with_nodes(g: float, nodes: int) -> SpectralMeasure:
    """Return the measure at Chebyshev nodes of the second kind, which suit the square-root edges of the density."""
    lower, upper = edges(g)
    angle = np.pi * np.arange(1, nodes + 1) / (nodes + 1)
    s = (upper + lower) / 2 + (upper - lower) / 2 * np.cos(angle)
    m11, m12 = _resolvent_entries(s, g)
    density = 2 / np.pi * m11.imag
    weights = density * np.sin(angle) * (upper - lower) / 2 * np.pi / (nodes + 1)
    return SpectralMeasure(g, s, weights, m11, m12)


def _resolvent_entries(s: Array, g: float) -> tuple[Complex, Complex]:
    """Return m11 and m12 at singular values s within the edges."""
    eta = _complex_root((s - 1) / g, g)
    y: Complex = 1 + g * eta
    y2_minus_1: Complex = g * eta * (2 + g * eta)
    return -y / y2_minus_1, -1 / y2_minus_1


def _complex_root(omega: Array, g: float) -> Complex:
    """Return the root y = 1 + g eta of (y^2 - 1)(y - s) + g^2 y = 0, s = 1 + g omega, with Im -y / (y^2 - 1) > 0.

    In eta the cubic is g eta^3 + (2 - g omega) eta^2 + (g - 2 omega) eta + 1 = 0, which stays accurate as g
    goes to 0. Cardano's formula gives the real root, the remaining quadratic the pair, and Newton's method refines it.
    """
    s = 1 + g * omega
    # In y = x + s / 3 the cubic is x^3 + p x + q = 0.
    p = (g**2 - 1) - s**2 / 3
    q = s - 2 * s**3 / 27 + s * (g**2 - 1) / 3
    root = np.sqrt(np.maximum((q / 2) ** 2 + (p / 3) ** 3, 0))
    large = np.cbrt(-q / 2 - np.copysign(root, q))
    real = large - p / (3 * large) + s / 3
    # The three roots add up to s, and their product is -s.
    half_sum, product = (s - real) / 2, -s / real
    squared = np.maximum(product - half_sum**2, 1e-6 * g**2)
    eta = ((half_sum - 1) + 1j * np.sqrt(squared)) / g
    a, b, c = g, 2 - g * omega, g - 2 * omega
    for _ in range(6):
        eta = eta - (((a * eta + b) * eta + c) * eta + 1) / ((3 * a * eta + 2 * b) * eta + c)
    y = 1 + g * eta
    upper: Complex = np.where((-y / (eta * (1 + y))).imag > 0, eta, eta.conj())
    return upper
