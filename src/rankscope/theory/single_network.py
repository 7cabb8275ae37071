"""One given network: its whole training foretold from its initial weights.

The averages of infinite width do not know that *this* network starts from a readout a little off 0, or that its W0 has
an outlier of its own. The same reduction with chains grown in the actual resolvent does: one factorisation of 1 - W0,
a few dozen solves, and the flow of a small matrix. (theory.md, section 3, "For one given network")
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lu_factor, lu_solve
from scipy.sparse.linalg import ArpackNoConvergence, eigs

from rankscope.arguments import number
from rankscope.errors import InputError
from rankscope.networks.rate import RateRNN
from rankscope.theory.chains import golub_kahan
from rankscope.theory.reduced import ReducedNetwork
from rankscope.theory.solution import LinearTheory, target_matrix

Array = NDArray[np.floating]

# An eigenvalue this far outside the largest of W0 counts as an outlier.
EDGE_MARGIN = 1.03
MOST_MOMENTS = 4000


class SingleNetwork(LinearTheory):
    """The theory of one linear network, from its own weights.

    Parameters
    ----------
    recurrent_weights
        (N, N) W0, whose eigenvalues have real parts below 1.
    input_vector, output_vector
        (N,) m and w, with the lengths that they have in the network.
    target
        z_hat, not 0.
    accuracy
        Relative accuracy of the reduction.

    Raises
    ------
    InputError
        If shapes do not fit, values are not finite, or W0 has no resting state.
    """

    def __init__(
        self,
        recurrent_weights: ArrayLike,
        input_vector: ArrayLike,
        output_vector: ArrayLike,
        target: float,
        accuracy: float = 1e-6,
    ) -> None:
        self._W0 = np.asarray(recurrent_weights, dtype=np.float64)
        N = len(self._W0) if self._W0.ndim else 0
        if self._W0.shape != (N, N) or N < 2:
            raise InputError(f"recurrent_weights must be a square matrix, got shape {self._W0.shape}")
        self._m, self._w = (np.asarray(x, dtype=np.float64).ravel() for x in (input_vector, output_vector))
        for name, x in (("input_vector", self._m), ("output_vector", self._w)):
            if x.shape != (N,) or not x.any():
                raise InputError(f"{name} must have {N} entries that are not all 0, got shape {x.shape}")
        if not all(np.isfinite(x).all() for x in (self._W0, self._m, self._w)):
            raise InputError("recurrent_weights, input_vector and output_vector must be finite")
        self.target = target_matrix(number("target", target))
        self.accuracy = number("accuracy", accuracy, above=0)
        self._radius = spectral_radius(self._W0)
        if self._radius >= 1:
            raise InputError(
                f"recurrent_weights must have eigenvalues of modulus below 1, got one of {self._radius:.3g}: "
                "there is no stable fixed point to learn from"
            )
        self._lu = lu_factor(np.eye(N) - self._W0)

    @classmethod
    def of(cls, network: RateRNN, target: float, accuracy: float = 1e-6) -> SingleNetwork:
        """Return the theory of a network as it is now.

        Parameters
        ----------
        network
            Linear (nonlinearity "identity"), without bias, with one input and one output.

        Raises
        ------
        InputError
            If it is none of these.
        """
        names = {
            getattr(phi, "name", None) for phi in (network.dynamics.nonlinearity, network.dynamics.readout_nonlinearity)
        }
        if names != {"identity"} or network.bias is not None:
            raise InputError(f"network must be linear and without bias, got nonlinearity {sorted(map(str, names))}")
        W_in, W, W_out = (x.detach().double().numpy() for x in network.weights[:3])
        if W_in.shape[1] != 1 or W_out.shape[0] != 1:
            raise InputError(f"network must have one input and one output, got {W_in.shape[1]} and {W_out.shape[0]}")
        return cls(W, W_in[:, 0], W_out[0], target, accuracy)

    def __repr__(self) -> str:
        return f"SingleNetwork({len(self._W0)} units, target={self.target.item():g}, accuracy={self.accuracy:g})"

    def reduce(self, steps: int) -> ReducedNetwork:
        """Return the network on chains of at most `steps` directions, or whole if that is no less."""
        N = len(self._W0)
        if 2 * steps >= N:
            rows = columns = np.eye(N)
            ends = (np.empty((0, N)), np.empty((0, N)))
        else:
            from_m = golub_kahan(self._resolve, self._resolve_transposed, self._m, steps)
            from_w = golub_kahan(self._resolve_transposed, self._resolve, self._w, steps)
            rows, row_mixing = np.linalg.qr(np.hstack([from_m.U, from_w.V]))
            columns, column_mixing = np.linalg.qr(np.hstack([from_m.V, from_w.U]))
            last = [steps - 1, 2 * steps - 1]
            ends = (np.linalg.inv(row_mixing)[last], np.linalg.inv(column_mixing)[last])
        edge = min(EDGE_MARGIN * self._radius, (1 + self._radius) / 2)
        moments = functools.cache(lambda: self._moments(rows, columns, edge))
        return ReducedNetwork(
            resolvent=rows.T @ self._resolve(columns),
            inputs=columns.T @ self._m[:, None],
            outputs=rows.T @ self._w[:, None],
            overlap=rows.T @ columns,
            scaled_overlap=lambda eigenvalue: np.asarray(polynomial.polyval(edge / eigenvalue, moments())),
            bulk_edge=edge,
            open_ends=ends,
            accuracy=self.accuracy,
        )

    def _moments(self, rows: Array, columns: Array, edge: float) -> Array:
        """Return rows^T (W0 / edge)^k columns for k = 0, 1, ... until they are negligible, (k, rows, columns)."""
        moments, moved = [rows.T @ columns], columns
        scaled = self._W0 / (edge or 1.0)
        while len(moments) < MOST_MOMENTS and np.linalg.norm(moved) > 1e-2 * self.accuracy:
            moved = scaled @ moved
            moments.append(rows.T @ moved)
        return np.stack(moments)

    def _resolve(self, x: Array) -> Array:
        solved: Array = lu_solve(self._lu, x)
        return solved

    def _resolve_transposed(self, x: Array) -> Array:
        solved: Array = lu_solve(self._lu, x, trans=1)
        return solved


def spectral_radius(matrix: Array) -> float:
    """Return the largest modulus of an eigenvalue, to about a percent for large matrices."""
    if len(matrix) >= 200:
        try:
            start = np.random.default_rng(0).standard_normal(len(matrix))
            largest = eigs(matrix, k=1, ncv=60, tol=1e-3, v0=start, return_eigenvectors=False)
            return float(np.abs(largest).max())
        except ArpackNoConvergence:
            pass
    return float(np.abs(np.linalg.eigvals(matrix)).max())
