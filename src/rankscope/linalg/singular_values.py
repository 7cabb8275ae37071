"""Leading singular values of a matrix, fast enough to be recorded often during training.

A full decomposition takes time N^3. Above 512 units, the leading values take N^2: a few products with a block of
vectors if the values decay fast, as those of a learned change do, and a block Krylov space otherwise. Up to 512 units,
those of a single-precision matrix are the square roots of the eigenvalues of A A^T in double precision, which is faster
and more precise than a singular value decomposition in single precision.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import blas, lapack
from torch import Tensor

from rankscope.errors import InputError
from rankscope.validation import integer

EXACT_UP_TO = 512
OVERSAMPLING = 12
ITERATIONS = 6
SETTLED = 1e-3


def leading_singular_values(matrix: Tensor, count: int) -> Tensor:
    """Return the `count` largest singular values of a matrix (m, n), largest first: (min(count, m, n),).

    For min(m, n) <= 512 or large `count`, they are exact to 1e-8 of the largest value. Otherwise they come from block
    power iterations that start from a fixed Gaussian block, so that equal matrices give equal results. These end when
    no value grows by more than 0.1 %, or by more than the rounding of the largest, eps sqrt(N) s1; failing that, all
    blocks together span a Krylov space (Musco & Musco 2015, algorithms 1 and 2). The values are never above the true
    ones, and within 1 % of them, or eps sqrt(N) s1, up to N = 2048 even if they do not decay.

    Raises
    ------
    InputError
        If `matrix` is not two-dimensional or `count` is below 1.
    """
    if matrix.ndim != 2:
        raise InputError(f"matrix must have two dimensions, got shape {tuple(matrix.shape)}")
    count = min(integer("count", count, minimum=1), *matrix.shape)
    width = count + OVERSAMPLING
    if min(matrix.shape) <= max(EXACT_UP_TO, (ITERATIONS + 1) * width):
        return _exact(matrix)[:count]
    start = np.random.default_rng(0).standard_normal((matrix.shape[1], width))
    block = torch.linalg.qr(matrix @ torch.as_tensor(start).to(matrix)).Q
    blocks: list[Tensor] = [block]
    values: Tensor = block.new_zeros(count)
    noise = torch.finfo(matrix.dtype).eps * max(matrix.shape) ** 0.5
    for _ in range(ITERATIONS):
        for side in (matrix.t(), matrix):
            # The singular values of R are those of the matrix restricted to the block: they can only grow from one
            # product to the next.
            block, R = torch.linalg.qr(side @ block)
            before, values = values, torch.linalg.svdvals(R)[:count]
            if bool((values - before <= SETTLED * values + noise * values[0]).all()):
                return values
        blocks.append(block)
    basis = torch.linalg.qr(torch.cat(blocks, dim=1)).Q
    leading: Tensor = torch.linalg.svdvals(basis.t() @ matrix)
    return leading[:count]


def _exact(matrix: Tensor) -> Tensor:
    if matrix.dtype != torch.float32 or matrix.device.type != "cpu" or min(matrix.shape) > EXACT_UP_TO:
        values: Tensor = torch.linalg.svdvals(matrix)
        return values
    # Double precision holds the squares of single-precision numbers without rounding.
    wide = matrix.detach().double().numpy()
    wide = wide.T if wide.shape[0] > wide.shape[1] else wide
    squares = _eigenvalues_of_gram(wide)
    return torch.from_numpy(np.sqrt(np.maximum(squares[::-1], 0.0)).astype(np.float32))


def _eigenvalues_of_gram(wide: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the eigenvalues of A A^T, smallest first; `numpy.linalg.eigvalsh` takes longer."""
    size = len(wide)
    gram = blas.dsyrk(1.0, wide.T, trans=1, lower=1)
    space = int(lapack.dsytrd_lwork(size, lower=1)[0])
    _, diagonal, beside, _, _ = lapack.dsytrd(gram, lower=1, lwork=space, overwrite_a=1)
    values, failed = lapack.dsterf(diagonal, beside) if size > 1 else (diagonal, 0)
    if failed:
        raise np.linalg.LinAlgError("eigenvalues did not converge")
    eigenvalues: NDArray[np.float64] = values
    return eigenvalues
