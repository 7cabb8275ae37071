"""Gradient descent of the reduced linear network in discrete steps.

W <- W + learning_rate b (z_hat - z) a^T / (p q) for p inputs and q outputs is a low-rank update, which Woodbury's
formula applies to the resolvent exactly. Steps that are too long take an eigenvalue of W to 1, where the fixed point is
lost, or oscillate around the target. Derivation: docs/guides/theory.md, "Step sizes".
"""

from __future__ import annotations

import numpy as np

from rankscope.theory.flow import CONVERGED
from rankscope.theory.reduced import Array, ReducedNetwork

# `survives` takes EPOCHS single steps and then SHORTENED_EPOCHS more, in which several short steps are merged into one
# that removes at most SHORT_STEP of the error.
EPOCHS, SHORTENED_EPOCHS, SHORT_STEP = 200, 200, 0.02
# Relative imaginary part below which an eigenvalue counts as real: rounding splits equal real ones into pairs.
REAL = 1e-9
# A larger step of the resolvent leaves no correct digits and soon overflows.
LARGEST_STEP = 1e30


def descend(network: ReducedNetwork, target: Array, learning_rate: float, epochs: int) -> Array:
    """Return the change of Q before every step of gradient descent, (epochs, rows, columns).

    Once an eigenvalue of W has reached 1 there is no fixed point, and all later entries are NaN.
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
    """Return whether gradient descent at this learning rate keeps its fixed point until it reaches the target.

    Descent that overshoots can land on a plateau of many thousand epochs, so after the first `EPOCHS` short steps are
    merged. Descent that has not failed by the end oscillates around the target and counts as surviving.
    """
    Q, count = network.resolvent, target.size
    small = CONVERGED * network.accuracy * np.linalg.norm(target - network.readout)
    for epoch in range(EPOCHS + SHORTENED_EPOCHS):
        a, b = Q @ network.inputs, Q.T @ network.outputs
        if np.linalg.norm(target - network.outputs.T @ a) < small:
            return True
        longer = SHORT_STEP * count / float(np.vdot(a, a) * np.vdot(b, b)) if epoch >= EPOCHS else 0.0
        step = _gradient_step(network, target, max(learning_rate, longer), Q)
        if step is None:
            return False
        Q = Q + step
    return True


def curvature(network: ReducedNetwork, Q: Array) -> float:
    """Return the largest Hessian eigenvalue of the loss at the target: descent settles with rates below 2 / it."""
    a, b = Q @ network.inputs, Q.T @ network.outputs
    # At zero error the Hessian is the Gram matrix of the gradients b_j a_i^T of z, a Kronecker product.
    largest = float(np.linalg.norm(a.T @ a, 2)) * float(np.linalg.norm(b.T @ b, 2))
    return largest / (len(a.T) * len(b.T))


def _gradient_step(network: ReducedNetwork, target: Array, learning_rate: float, Q: Array) -> Array | None:
    """Return the update of Q by one step, or None if it takes an eigenvalue of W to 1 or overflows."""
    m, w = network.inputs, network.outputs
    with np.errstate(over="ignore", invalid="ignore"):
        a, b = Q @ m, Q.T @ w
        added = learning_rate / target.size * (target - w.T @ a) @ a.T
        taken = added @ Q @ b
        if not np.isfinite(taken).all():
            return None
        # At a share x of the step, 1 - W is singular where 1 - x taken is: for a real eigenvalue of `taken` >= 1.
        eigenvalues = np.linalg.eigvals(taken)
        real = np.abs(eigenvalues.imag) <= REAL * np.abs(eigenvalues)
        if (eigenvalues.real[real] >= 1).any():
            return None
        step: Array = (Q @ b) @ np.linalg.solve(np.eye(len(target)) - taken, added @ Q)
    return step if np.abs(step).max() < LARGEST_STEP else None
