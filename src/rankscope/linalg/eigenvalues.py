"""Leading eigenvalues of a connectivity: those with the largest real part, which decide the stability of its network.

A linear network is stable while all real parts are below 1. Learning moves a few eigenvalues, the outliers, out of the
disc that the random connectivity fills.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.validation import integer


def leading_eigenvalues(matrix: Tensor, count: int) -> Tensor:
    """Return the `count` eigenvalues of a real matrix (N, N) with the largest real part: (min(count, N),) complex128.

    The largest is first, and of a conjugate pair the upper one. All are NaN where `matrix` is not finite.

    Raises
    ------
    InputError
        If `matrix` is not square or `count` is below 1.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"matrix must be square, got shape {tuple(matrix.shape)}")
    count = min(integer("count", count, minimum=1), len(matrix))
    if not bool(torch.isfinite(matrix).all()):
        return torch.full((count,), complex(torch.nan, torch.nan), dtype=torch.complex128)
    # An eigenvalue of a random matrix moves much further than the rounding of its entries.
    values: Tensor = torch.linalg.eigvals(matrix.double()).cpu()
    upper_first = values[torch.argsort(-values.imag, stable=True)]
    return upper_first[torch.argsort(-upper_first.real, stable=True)][:count]
