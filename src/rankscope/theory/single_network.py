"""Prediction of the whole training of one given network from its initial weights.

A particular network starts from a readout slightly off 0, and its W0 can have an outlier; averages over infinitely wide
networks contain neither. The same reduction with chains grown in the actual resolvent does: one factorization of
1 - W0, a few dozen solves, and the flow of a small matrix. Derivation: docs/guides/theory.md, "A given network".
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import ArpackError, eigs

from rankscope.errors import InputError
from rankscope.networks.rate import RateRNN
from rankscope.theory.chains import chains_from
from rankscope.theory.reduced import ReducedNetwork
from rankscope.theory.solution import LinearTheory, check_accuracy, reals, target_matrix
from rankscope.validation import number

Array = NDArray[np.floating]

# Outliers are eigenvalues beyond this multiple of the spectral radius of W0.
EDGE_MARGIN = 1.03
MOST_MOMENTS = 4000


class SingleNetwork(LinearTheory):
    """The theory of one linear network, from its own weights.

    Parameters
    ----------
    recurrent_weights
        (N, N) W0, whose eigenvalues have moduli below 1.
    input_vector, output_vector
        (N,) m and w, not normalized.
    target
        z_hat, not 0.
    accuracy
        Relative accuracy of the reduction.

    Raises
    ------
    InputError
        If shapes do not match, values are not finite, the spectral radius of W0 is not below 1, or the readout already
        equals the target.
    """

    def __init__(
        self,
        recurrent_weights: ArrayLike,
        input_vector: ArrayLike,
        output_vector: ArrayLike,
        target: float,
        accuracy: float = 1e-6,
    ) -> None:
        self._W0 = reals("recurrent_weights", recurrent_weights, "a square matrix of numbers")
        N = len(self._W0) if self._W0.ndim else 0
        if self._W0.shape != (N, N) or N < 2:
            raise InputError(f"recurrent_weights must be a square matrix, got shape {self._W0.shape}")
        self._m = reals("input_vector", input_vector, f"{N} numbers").ravel()
        self._w = reals("output_vector", output_vector, f"{N} numbers").ravel()
        for name, x in (("input_vector", self._m), ("output_vector", self._w)):
            if x.shape != (N,) or not x.any():
                raise InputError(f"{name} must have {N} entries that are not all 0, got shape {x.shape}")
        if not all(np.isfinite(x).all() for x in (self._W0, self._m, self._w)):
            raise InputError("recurrent_weights, input_vector and output_vector must be finite")
        self.target = target_matrix(number("target", target))
        self.accuracy = check_accuracy(accuracy)
        self._radius = spectral_radius(self._W0)
        if self._radius >= 1:
            raise InputError(
                f"recurrent_weights must have eigenvalues of modulus below 1, got one of {self._radius:.3g}: "
                "there is no stable fixed point to learn from"
            )
        # torch's LAPACK: numpy's BLAS threads spin, which takes ten times as long beside other processes.
        self._lu = torch.linalg.lu_factor(torch.as_tensor(np.eye(N) - self._W0))

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
            If it is not.
        """
        if not isinstance(network, RateRNN):
            raise InputError(f"network must be a RateRNN, got {type(network).__name__}")
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
        """Return the network on chains of at most `steps` directions, or unreduced if the chains would be as long."""
        spaces = chains_from(self._resolve, self._resolve_transposed, self._m, self._w, steps)
        rows, columns = spaces.rows, spaces.columns
        edge = min(EDGE_MARGIN * self._radius, (1 + self._radius) / 2)
        moments = functools.cache(lambda: self._moments(rows, columns, edge))
        return ReducedNetwork(
            resolvent=rows.T @ self._resolve(columns),
            inputs=columns.T @ self._m[:, None],
            outputs=rows.T @ self._w[:, None],
            overlap=rows.T @ columns,
            scaled_overlap=lambda eigenvalue: _power_series(edge / eigenvalue, moments()),
            bulk_edge=edge,
            open_ends=(spaces.row_ends, spaces.column_ends),
            accuracy=self.accuracy,
        )

    def _moments(self, rows: Array, columns: Array, edge: float) -> Array:
        """Return rows^T (W0 / edge)^k columns for k = 0, 1, ... until they are negligible, (k, rows, columns)."""
        moments, moved = [rows.T @ columns], torch.as_tensor(columns)
        scaled, onto = (torch.as_tensor(x) for x in (self._W0 / (edge or 1.0), rows.T))
        while len(moments) < MOST_MOMENTS and float(moved.norm()) > 1e-2 * self.accuracy:
            moved = scaled @ moved
            moments.append((onto @ moved).numpy())
        if len(moments) == MOST_MOMENTS:
            raise InputError(
                f"accuracy must be larger than {self.accuracy:g} for recurrent_weights with a spectral radius of "
                f"{self._radius:.6g}, so close to 1"
            )
        return np.stack(moments)

    def _resolve(self, x: Array) -> Array:
        return self._solve(x, adjoint=False)

    def _resolve_transposed(self, x: Array) -> Array:
        return self._solve(x, adjoint=True)

    def _solve(self, x: Array, adjoint: bool) -> Array:
        columns = torch.as_tensor(x.reshape(len(x), -1))
        solved: Array = torch.linalg.lu_solve(*self._lu, columns, adjoint=adjoint).numpy().reshape(x.shape)
        return solved


def _power_series(x: float, coefficients: Array) -> Array:
    """Return the sum of coefficients (k, rows, columns) times x^k."""
    total: Array = np.einsum("k,kij->ij", x ** np.arange(len(coefficients)), coefficients)
    return total


def spectral_radius(matrix: Array) -> float:
    """Return the largest modulus of an eigenvalue, to about a percent for large matrices."""
    if len(matrix) >= 200:
        try:
            start = np.random.default_rng(0).standard_normal(len(matrix))
            largest = eigs(matrix, k=1, ncv=60, maxiter=20, tol=1e-3, v0=start, return_eigenvectors=False)
            return float(np.abs(largest).max())
        except ArpackError:
            pass
    # torch's LAPACK is 20 times faster than numpy's here.
    return float(torch.linalg.eigvals(torch.as_tensor(matrix)).abs().max())
