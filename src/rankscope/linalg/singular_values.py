"""The leading singular values of a matrix, at a price that allows looking often.

What learning writes into a network is low-dimensional, so its first few dozen singular values tell the story. A
full decomposition grows as N^3; above some five hundred units the leading ones are found in N^2: by a few products with
a block of vectors where they fall off steeply, as they do after learning, and else by a whole block Krylov space.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rankscope.arguments import integer
from rankscope.errors import InputError

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
        (min(count, m, n),). Exact where min(m, n) <= 512 or many of them are asked for. Otherwise from block power
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
        exact: Tensor = torch.linalg.svdvals(matrix)
        return exact[:count]
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
