"""Exact solution of learning in an infinitely wide linear network, until convergence.

The paper's expansion (`perturbation.py`) in powers of learning time departs from simulations before learning ends. In
the limit of many units the network enters only through the spectral density of W0, and learning stays within few
directions. The flow of a small matrix then gives the whole of learning without free parameters. Derivation:
docs/guides/theory.md, "Reduction to few directions" and "Solution to convergence".
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import block_diag

from rankscope.theory.chains import Chain, golub_kahan
from rankscope.theory.flow import Path, Paths, flow
from rankscope.theory.ginibre import spectral_measure
from rankscope.theory.reduced import ReducedNetwork
from rankscope.theory.solution import LinearTheory, check_accuracy, target_matrix
from rankscope.validation import number

Array = NDArray[np.floating]

# Singular values of a target below this share of the largest are rounding errors.
NOTHING = 1e-14


class InfiniteWidth(LinearTheory):
    """The exact theory in the limit of infinite width.

    Parameters
    ----------
    gain
        g, 0 <= g < 1.
    target
        z_hat, not 0; or a matrix (q, p) of targets, one for each of q outputs and p inputs that are learned together,
        with the loss half the mean square over all of them.
    accuracy
        Relative accuracy of the results.

    Raises
    ------
    InputError
        If an argument is out of range, or g is too close to 1 for the accuracy.
    """

    def __init__(self, gain: float, target: ArrayLike, accuracy: float = 1e-6) -> None:
        self.gain = number("gain", gain, minimum=0)
        self.target = target_matrix(target)
        self.accuracy = check_accuracy(accuracy)
        self._measure = spectral_measure(self.gain)

    def __repr__(self) -> str:
        target = self.target.item() if self.target.size == 1 else self.target.tolist()
        return f"InfiniteWidth(gain={self.gain:g}, target={target!r}, accuracy={self.accuracy:g})"

    def reduce(self, steps: int) -> ReducedNetwork:
        """Return the network on chains of at most `steps` directions.

        The chains of all inputs and outputs are orthogonal to each other and equal, because all see the same measure.
        """
        return self._reduced(steps, *self.target.shape)

    def follow(self, network: ReducedNetwork, tolerance: float) -> Path | Paths:
        """Return gradient flow of the reduced network, integrated to this relative tolerance.

        Each singular value of the target is learned independently, in the chains of the input and output combinations
        that are its singular vectors.
        """
        if self.target.size == 1:
            return super().follow(network, tolerance)
        q, p = self.target.shape
        steps = len(network.resolvent) // (p + q)
        left, sizes, right = np.linalg.svd(self.target)
        alone = self._reduced(steps, 1, 1)
        learned = [k for k, size in enumerate(sizes) if size > NOTHING * sizes[0]]
        return Paths(
            network,
            self.target,
            parts=[flow(alone, sizes[k].reshape(1, 1), tolerance) for k in learned],
            places=[
                block_diag(np.kron(right[k, :, None], np.eye(steps)), np.kron(left[:, k, None], np.eye(steps)))
                for k in learned
            ],
        )

    def _reduced(self, steps: int, q: int, p: int) -> ReducedNetwork:
        measure = self._measure
        V, U, B = _chain(self.gain, steps)
        K = len(B)
        m, w = np.zeros((p + q, K, p)), np.zeros((p + q, K, q))
        m[np.arange(p), 0, np.arange(p)] = 1
        w[p + np.arange(q), 0, np.arange(q)] = 1
        # A chain that closed earlier is complete.
        ends = np.eye((p + q) * K)[K - 1 :: K] if steps == K else np.empty((0, (p + q) * K))

        def overlaps(per_node: Array) -> Array:
            G = U.T @ (per_node[:, None] * V)
            return _block_diagonal(G, G.T, p, q)

        return ReducedNetwork(
            resolvent=_block_diagonal(B, B.T, p, q),
            inputs=m.reshape(-1, p),
            outputs=w.reshape(-1, q),
            overlap=overlaps(measure.overlap()),
            scaled_overlap=lambda eigenvalue: overlaps(eigenvalue * measure.overlap(eigenvalue)),
            bulk_edge=measure.gain,
            open_ends=(ends, ends),
            accuracy=self.accuracy,
        )


@functools.lru_cache(maxsize=256)
def _chain(gain: float, steps: int) -> Chain:
    measure = spectral_measure(gain)

    def resolve(x: Array) -> Array:
        scaled: Array = x / measure.singular_values
        return scaled

    return golub_kahan(resolve, resolve, np.sqrt(measure.weights), steps)


def _block_diagonal(first: Array, second: Array, p: int, q: int) -> Array:
    """Return p blocks of the first kind and q of the second on a diagonal."""
    K = len(first)
    blocks = np.zeros((p + q, K, p + q, K))
    for index in range(p + q):
        blocks[index, :, index, :] = first if index < p else second
    return blocks.reshape((p + q) * K, -1)
