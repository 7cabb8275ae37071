"""Gradient descent of the reduced linear network, one step after another.

W <- W + learning_rate b (z_hat - z) a^T / (p q) for p inputs and q outputs is a change of low rank, which Woodbury's
formula follows exactly. Steps that are too long take an eigenvalue of W to 1, where there is no fixed point any more,
or circle around the target for ever. (theory.md, sections 1 and 3)
"""

from __future__ import annotations

import numpy as np

from rankscope.theory.flow import CONVERGED
from rankscope.theory.reduced import Array, ReducedNetwork

# Epochs of descent that are followed one by one to see whether it survives; those after them, of which the short ones
# are taken together; and the share of the error that one step may take away and still be like several smaller ones.
EPOCHS, SHORTENED_EPOCHS, SHORT_STEP = 200, 200, 0.02
# Eigenvalues are real if their imaginary part is below this share of them; of equal ones, rounding makes pairs.
REAL = 1e-9
# A step of R beyond this leaves no digits of what was there, and soon no numbers.
LARGEST_STEP = 1e30


def descend(network: ReducedNetwork, target: Array, learning_rate: float, epochs: int) -> Array:
    """Return the change of Q before every step of gradient descent, (epochs, rows, columns).

    W <- W + learning_rate b (z_hat - z) a^T / (p q), exactly, by Woodbury's formula for Q. Once an eigenvalue of W has
    reached 1 there is no fixed point left, and what follows is NaN.
    """
    changes = np.full((epochs, *network.resolvent.shape), np.nan)
    change = np.zeros_like(network.resolvent)
    for before_step in changes:
        before_step[:] = change
        step = _gradient_step(network, target, learning_rate, network.resolvent + change)
        if step is None:
            break
        change = change + step
    return changes


def survives(network: ReducedNetwork, target: Array, learning_rate: float) -> bool:
    """Return whether gradient descent in steps of this learning rate keeps its fixed point on its way to the target.

    What overshoots may land where nearly nothing moves, for many thousand epochs. So, after a while, stretches where a
    step is too short to matter are crossed in longer ones. What has not failed in the end circles around the target.
    """
    Q, count = network.resolvent, target.size
    small = CONVERGED * network.accuracy * np.linalg.norm(target - network.readout)
    for epoch in range(EPOCHS + SHORTENED_EPOCHS):
        a, b = Q @ network.inputs, Q.T @ network.outputs
        if np.linalg.norm(target - network.outputs.T @ a) < small:
            return True
        # What shrinks the error by a share that is small.
        longer = SHORT_STEP * count / float(np.vdot(a, a) * np.vdot(b, b)) if epoch >= EPOCHS else 0.0
        step = _gradient_step(network, target, max(learning_rate, longer), Q)
        if step is None:
            return False
        Q = Q + step
    return True


def curvature(network: ReducedNetwork, Q: Array) -> float:
    """Return the largest eigenvalue of the loss's Hessian where the target is met: steps above 2 / it cannot settle."""
    a, b = Q @ network.inputs, Q.T @ network.outputs
    # The Hessian there is that of z(W), whose gradients are b_j a_i^T: its Gram matrix is a Kronecker product.
    largest = float(np.linalg.norm(a.T @ a, 2)) * float(np.linalg.norm(b.T @ b, 2))
    return largest / (len(a.T) * len(b.T))


def _gradient_step(network: ReducedNetwork, target: Array, learning_rate: float, Q: Array) -> Array | None:
    """Return what one step adds to Q, or None if it takes an eigenvalue of W to 1, or out of all proportion."""
    m, w = network.inputs, network.outputs
    with np.errstate(over="ignore", invalid="ignore"):
        a, b = Q @ m, Q.T @ w
        added = learning_rate / target.size * (target - w.T @ a) @ a.T
        taken = added @ Q @ b
        if not np.isfinite(taken).all():
            return None
        # At x of the way, 1 - x taken is singular where 1 - W is: an eigenvalue of 1 or more is met.
        eigenvalues = np.linalg.eigvals(taken)
        real = np.abs(eigenvalues.imag) <= REAL * np.abs(eigenvalues)
        if (eigenvalues.real[real] >= 1).any():
            return None
        step: Array = (Q @ b) @ np.linalg.solve(np.eye(len(target)) - taken, added @ Q)
    return step if np.abs(step).max() < LARGEST_STEP else None
