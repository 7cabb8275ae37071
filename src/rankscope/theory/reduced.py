"""The linear network, restricted to the few directions in which it learns.

At the fixed point the readout is z = w . R m with R = (1 - W)^-1, and a gradient step adds a multiple of b a^T to W,
a = R m and b = R^T w. All of this stays within small subspaces (`chains.py`): rows are coordinates of a and w, columns
of b and m, and Q is R between them, for infinite width as well as for a given network. `flow.py` integrates Q in
continuous time, `descent.py` in steps, and `moments.py` computes the observables. Derivation: docs/guides/theory.md,
"Reduction to few directions".
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

# Numbers of Chebyshev nodes for interpolating the overlaps with (1 - W0 / lambda)^-1.
FEWEST_NODES, MOST_NODES = 17, 1088


@dataclass(frozen=True, eq=False)
class ReducedNetwork:
    """A linear network between two subspaces of `rows` and `columns` directions.

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
        Largest real part of the bulk of eigenvalues of W0.
    open_ends
        (ends, rows) and (ends, columns): linear functionals that give the amplitude at the ends of truncated chains,
        which is the error of the reduction.
    accuracy
        Relative accuracy of the results.
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
            If it converges too slowly for the accuracy, near a bulk edge of 1.
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
            f"accuracy must be larger than {self.accuracy:g} for eigenvalues with a bulk edge of {self.bulk_edge:g}, "
            "so close to 1"
        )
