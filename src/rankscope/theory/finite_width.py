"""Fluctuations between networks of N units, without drawing their weights.

At finite N, networks differ in the coordinates of their input and output vectors in the bases of the singular vectors
of 1 - W0, which are independent Gaussian numbers; their singular values hardly differ. Drawing two vectors of length N
instead of an N x N matrix therefore gives a network with its own initial readout and learning speed, and many draws
give mean and spread. Derivation: docs/guides/theory.md, "Finite width".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankscope.theory.chains import chains_from
from rankscope.theory.ginibre import typical_measure
from rankscope.theory.reduced import ReducedNetwork
from rankscope.theory.solution import LinearTheory, check_accuracy, target_matrix
from rankscope.validation import RngLike, generator, integer, number

Array = NDArray[np.floating]


class FiniteWidth(LinearTheory):
    """Theory of one randomly drawn linear network of N units.

    Parameters
    ----------
    gain
        g, 0 <= g < 1.
    target
        z_hat, not 0.
    hidden_size
        N.
    rng
        Seed or Generator of the draw.
    accuracy
        Relative accuracy of the results, given the draw.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    Readout, loss, dW and convergence time fluctuate as in simulated networks. Overlaps between singular vectors are
    replaced by their means, so the loss after shuffling and the outlier fluctuate less than in simulations.
    """

    def __init__(
        self, gain: float, target: float, hidden_size: int, rng: RngLike = None, accuracy: float = 1e-6
    ) -> None:
        self.gain = number("gain", gain, minimum=0)
        self.target = target_matrix(number("target", target))
        self.hidden_size = integer("hidden_size", hidden_size, minimum=2)
        self.accuracy = check_accuracy(accuracy)
        self._measure = typical_measure(self.gain, self.hidden_size)
        drawn = generator(rng).standard_normal((2, self.hidden_size))
        self._m, self._w = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    def __repr__(self) -> str:
        return f"FiniteWidth(gain={self.gain:g}, target={self.target.item():g}, hidden_size={self.hidden_size})"

    def reduce(self, steps: int) -> ReducedNetwork:
        """Return the network on chains of at most `steps` directions.

        Rows are coordinates in the right singular vectors of 1 - W0, columns in the left ones, where R is diagonal.
        """
        s = self._measure.singular_values
        spaces = chains_from(lambda x: x / s, lambda x: x / s, self._m, self._w, steps)
        rows, columns = spaces.rows, spaces.columns

        def overlaps(per_direction: Array) -> Array:
            return rows.T @ (per_direction[:, None] * columns)

        return ReducedNetwork(
            resolvent=overlaps(1 / s),
            inputs=columns.T @ self._m[:, None],
            outputs=rows.T @ self._w[:, None],
            overlap=overlaps(self._measure.overlap()),
            scaled_overlap=lambda eigenvalue: overlaps(eigenvalue * self._measure.overlap(eigenvalue)),
            bulk_edge=self.gain,
            open_ends=(spaces.row_ends, spaces.column_ends),
            accuracy=self.accuracy,
        )
