"""Linear networks trained as plainly as can be: the whole matrix, and its inverse at every step.

By torch, which the tests keep to one thread: numpy starts several for a matrix of 150, and they wait for each other.
"""

from collections.abc import Iterator

import numpy as np
import torch


def random_network(N, gain, seed, inputs=1, outputs=1):
    """W0 (N, N), m (N, inputs) and w (N, outputs) of length 1."""
    rng = np.random.default_rng(seed)
    W0 = gain / N**0.5 * rng.standard_normal((N, N))
    m, w = rng.standard_normal((N, inputs)), rng.standard_normal((N, outputs))
    return W0, m / np.linalg.norm(m, axis=0), w / np.linalg.norm(w, axis=0)


def resolvent(W) -> np.ndarray:
    return torch.linalg.inv(torch.eye(len(W), dtype=torch.float64) - torch.as_tensor(W)).numpy()


def gradient_descent(W0, m, w, target, rate, epochs) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield W, the readouts (outputs, inputs) and the gradient before each epoch."""
    W, target = W0, np.reshape(target, (w.shape[1], m.shape[1]))
    for _ in range(epochs):
        R = resolvent(W)
        a, b = R @ m, R.T @ w
        z = w.T @ a
        gradient = -b @ ((target - z) / target.size) @ a.T
        yield W, z, gradient
        W = W - rate * gradient


def singular_values(matrix) -> np.ndarray:
    return torch.linalg.svdvals(torch.as_tensor(matrix)).numpy()


def largest_real_eigenvalue(W, above) -> float:
    eigenvalues = torch.linalg.eigvals(torch.as_tensor(W)).numpy()
    real = eigenvalues.real[np.abs(eigenvalues.imag) < 1e-9]
    return max((x for x in real if x > above), default=np.nan)


def readout_of_shuffled(W0, W, m, w, rng) -> np.ndarray:
    """Readouts (outputs, inputs) after the entries of W0 have changed places, and what was learned has not."""
    shuffled = rng.permutation(W0.ravel()).reshape(W0.shape)
    return w.T @ resolvent(shuffled + W - W0) @ m


def agree(samples, expected, resolution=0.0, errors=3.0) -> None:
    """Fail if the mean of independent samples is off by more than so many standard errors and the resolution."""
    x = np.asarray(samples)
    allowed = resolution + errors * x.std(ddof=1) / len(x) ** 0.5
    assert abs(x.mean() - expected) < allowed, f"{x.mean():.5g} is not {expected:.5g} within {allowed:.2g}"
