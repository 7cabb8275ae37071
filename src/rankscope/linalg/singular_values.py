"""The leading singular values of a matrix, at a price that allows looking often.

What learning writes into a network is low-dimensional, so its first few dozen singular values tell the story. A
full decomposition grows as N^3; above some five hundred units the leading ones are found in N^2: by a few products with
a block of vectors where they fall off steeply, as they do after learning, and else by a whole block Krylov space. Below
that, those of a single-precision matrix are the roots of the eigenvalues of A A^T in double precision, which is faster
than a singular value decomposition, and closer to the truth.
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
    """Return the `count` largest singular values, largest first.

    Parameters
    ----------
    matrix
        (m, n).
    count
        How many; at most min(m, n) are there to return.

    Returns
    -------
    Tensor
        (min(count, m, n),). Exact to rounding where min(m, n) <= 512 or many of them are asked for, but for noise of
        1e-8 of the largest. Otherwise from block power
        iterations started from a fixed Gaussian block, so that equal matrices give equal answers. They end once no
        value grows by more than 0.1 %, or by more than the rounding noise of the largest, eps sqrt(N) s1; else all
        blocks together span a Krylov space (Musco & Musco 2015, algorithms 1 and 2). Never above the true values,
        and within 1 % of them, or eps sqrt(N) s1, up to N = 2048 even where they do not decay.

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
            # Those of the product are the singular values of the matrix as far as the block has found its directions:
            # they can only grow from one product to the next.
            block, R = torch.linalg.qr(side @ block)
            before, values = values, torch.linalg.svdvals(R)[:count]
            if bool((values - before <= SETTLED * values + noise * values[0]).all()):
                return values
        blocks.append(block)
    basis = torch.linalg.qr(torch.cat(blocks, dim=1)).Q
    leading: Tensor = torch.linalg.svdvals(basis.t() @ matrix)
    return leading[:count]


def _exact(matrix: Tensor) -> Tensor:
    """Return all singular values, largest first."""
    if matrix.dtype != torch.float32 or matrix.device.type != "cpu" or min(matrix.shape) > EXACT_UP_TO:
        values: Tensor = torch.linalg.svdvals(matrix)
        return values
    # The squares of single-precision numbers, and all that is between them and rounding, fit into double precision.
    wide = matrix.detach().double().numpy()
    wide = wide.T if wide.shape[0] > wide.shape[1] else wide
    squares = _eigenvalues_of_gram(wide)
    return torch.from_numpy(np.sqrt(np.maximum(squares[::-1], 0.0)).astype(np.float32))


def _eigenvalues_of_gram(wide: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the eigenvalues of A A^T, smallest first: `numpy.linalg.eigvalsh`, without the half it does not need."""
    size = len(wide)
    gram = blas.dsyrk(1.0, wide.T, trans=1, lower=1)
    space = int(lapack.dsytrd_lwork(size, lower=1)[0])
    _, diagonal, beside, _, _ = lapack.dsytrd(gram, lower=1, lwork=space, overwrite_a=1)
    values, failed = lapack.dsterf(diagonal, beside) if size > 1 else (diagonal, 0)
    if failed:
        raise np.linalg.LinAlgError("eigenvalues did not converge")
    eigenvalues: NDArray[np.float64] = values
    return eigenvalues
