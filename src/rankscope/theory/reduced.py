"""The linear network, seen from the few directions that learning visits.

At the fixed point the readout is z = w . R m with R = (1 - W)^-1, and one learning step adds a multiple of b a^T to W,
a = R m, b = R^T w. All of it happens within small spaces (`chains.py`): rows are coordinates of a and w, columns of b
and m, and Q is R between them, whether Q stands for infinitely many units or for one given network. How Q learns says
`flow.py` in continuous time and `descent.py` step by step; `moments.py` reads off it what is measured of a network.
(theory.md, sections 1 and 3)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from rankscope.errors import InputError

Array = NDArray[np.floating]

# Chebyshev nodes at which the overlaps with (1 - W0 / lambda)^-1 are computed, and interpolated in between.
FEWEST_NODES, MOST_NODES = 17, 1088


@dataclass(frozen=True, eq=False)
class ReducedNetwork:
    """A linear network seen from the directions that learning visits, `rows` and `columns` of them.

    Attributes
    ----------
    resolvent
        (rows, columns) R0 between the two spaces.
    inputs, outputs
        (columns, p) and (rows, q): the vectors m and w.
    overlap
        (rows, columns) scalar products of the two bases.
    scaled_overlap
        lambda -> (rows, columns) the same with (1 - W0 / lambda)^-1 in between, for a real lambda above `bulk_edge`.
    bulk_edge
        Where the bulk of the eigenvalues of W0 ends on the real axis.
    open_ends
        (ends, rows) and (ends, columns): what reads off a vector its amplitude at the ends where chains were cut short,
        which is what the reduction has lost.
    accuracy
        Relative accuracy asked for.
    """

    resolvent: Array
    inputs: Array
    outputs: Array
    overlap: Array
    scaled_overlap: Callable[[float], Array]
    bulk_edge: float
    open_ends: tuple[Array, Array]
    accuracy: float

    @cached_property
    def inverse(self) -> Array:
        """(columns, rows) Q0^-1."""
        inverse: Array = np.linalg.inv(self.resolvent)
        return inverse

    @cached_property
    def readout(self) -> Array:
        """(q, p) z before learning."""
        return self.outputs.T @ self.resolvent @ self.inputs

    @cached_property
    def overlap_coefficients(self) -> Array:
        """(n, rows, columns) Chebyshev coefficients of `scaled_overlap` in 2 bulk_edge / lambda - 1.

        It is a power series in bulk_edge / lambda that converges up to 1, where the bulk begins.

        Raises
        ------
        InputError
            If it converges so slowly, near a bulk edge of 1, that the accuracy is out of reach.
        """
        if self.bulk_edge <= np.finfo(float).tiny:
            return self.scaled_overlap(1.0)[None]
        count = FEWEST_NODES
        while count <= MOST_NODES:
            nodes = np.cos(np.pi * (np.arange(count) + 0.5) / count)
            values = np.stack([self.scaled_overlap(2 * self.bulk_edge / (1 + node)) for node in nodes])
            coefficients: Array = dct(values, axis=0) / count
            coefficients[0] /= 2
            sizes = np.abs(coefficients).max(axis=(1, 2))
            if sizes[-3:].max() <= 0.1 * self.accuracy * sizes.max():
                return coefficients
            count *= 2
        raise InputError(
            f"accuracy must be larger than {self.accuracy:g} where the bulk of the eigenvalues ends so near to 1, "
            f"at {self.bulk_edge:g}"
        )
