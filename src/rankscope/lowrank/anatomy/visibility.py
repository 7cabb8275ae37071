r"""Whether a direction of dW can be seen in the spectrum of W = W0 + dW, if W0 is independent noise.

Let W0 be n x m with independent entries of standard deviation $\sigma / \sqrt m$, $c = n / m$, and
$\theta u v^T$ one direction of dW, $t = \theta / \sigma$. The singular values of W0 end at the edge
$\sigma (1 + \sqrt c)$. One singular value of W lies beyond it if and only if $t^4 > c$, at

$$ s = \sigma \sqrt{(1 + t^2)(c + t^2)} / t, $$

with $\cos^2(u, \hat u) = 1 - c (1 + t^2) / (t^2 (t^2 + c))$ and
$\cos^2(v, \hat v) = 1 - (c + t^2) / (t^2 (t^2 + 1))$ for its singular vectors (Benaych-Georges & Nadakuditi
2012). These are limits of large matrices. Where dW depends on W0, as learning makes it, the values in W differ from
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankscope.validation import integer, number

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Visibility:
    """What noise leaves visible of directions with the singular values theta.

    Attributes
    ----------
    edge
        Largest singular value of the noise.
    visible
        (k,) Whether a singular value of the sum lies beyond the edge.
    singular_value
        (k,) Where it lies; the edge where it is not visible.
    left, right
        (k,) Squared cosines of its singular vectors with those of the direction; 0 where it is not visible.
    """

    edge: float
    visible: NDArray[np.bool_]
    singular_value: Array
    left: Array
    right: Array


def visibility(theta: ArrayLike, shape: tuple[int, int], initial_norm: float) -> Visibility:
    """Return what can be seen of directions in the sum with noise.

    Parameters
    ----------
    theta
        Singular values of the directions, (k,).
    shape
        (n, m) of the matrix.
    initial_norm
        Frobenius norm of W0, sigma sqrt(n) for the noise.

    Raises
    ------
    InputError
        If the shape or the norm is out of range.
    """
    n, m = (integer("shape", size, minimum=1) for size in shape)
    sigma = number("initial_norm", initial_norm, minimum=0) / np.sqrt(n)
    values = np.asarray(theta, dtype=np.float64)
    c = n / m
    edge = float(sigma * (1 + np.sqrt(c)))
    if sigma == 0:
        ones = np.where(values > 0, 1.0, 0.0)
        return Visibility(0.0, values > 0, values, ones, ones)
    t2 = (values / sigma) ** 2
    visible = t2**2 > c
    x = np.where(visible, t2, np.inf)
    where = sigma * np.sqrt((1 + np.where(visible, t2, 1)) * (c + np.where(visible, t2, 1)) / np.where(visible, t2, 1))
    left = np.where(visible, 1 - c * (1 + 1 / x) / (x + c), 0)
    right = np.where(visible, 1 - (1 + c / x) / (x + 1), 0)
    return Visibility(edge, visible, np.where(visible, where, edge), left, right)
