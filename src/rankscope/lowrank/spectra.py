"""Singular values and eigenvalues of the connectivity before and after learning, and of the change.

A random W0 of gain g fills a disc of radius g with eigenvalues and has singular values from 0 to 2g; what learning adds
shows as a few outliers of both (Schuessler et al. 2020, supplement).
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.lowrank.change import Change
from rankscope.lowrank.matrices import change
from rankscope.networks.protocol import Network


def spectra(before: Network | Change, after: Network | None = None) -> xr.Dataset:
    """Return the singular values and eigenvalues of W0, W and dW.

    Parameters
    ----------
    before, after
        The network before and after learning; or their `Change` alone.

    Returns
    -------
    xr.Dataset
        `singular_value` (matrix, singular_index), largest first, and `eigenvalue_real`, `eigenvalue_imag`
        (matrix, eigenvalue), largest modulus first; `matrix` is "initial", "change", "trained".

    Raises
    ------
    InputError
        If the two do not fit together, or the matrices are not square.
    """
    dW = before if isinstance(before, Change) else change(before, after)  # type: ignore[arg-type]
    if dW.shape[0] != dW.shape[1]:
        raise InputError(f"before must be a change of square matrices, got shape {dW.shape}")
    matrices = {"initial": dW.before, "change": dW.matrix, "trained": dW.after}
    with threads_for(len(dW.matrix)):
        singular = np.stack(
            [dW.singular_values if name == "change" else np.linalg.svdvals(M) for name, M in matrices.items()]
        )
        eigen = np.stack([eigenvalues(M) for M in matrices.values()])
    dims = ("matrix", "eigenvalue")
    return xr.Dataset(
        {
            "singular_value": (("matrix", "singular_index"), singular, {"long_name": "singular value"}),
            "eigenvalue_real": (dims, eigen.real, {"long_name": "real part of the eigenvalue"}),
            "eigenvalue_imag": (dims, eigen.imag, {"long_name": "imaginary part of the eigenvalue"}),
        },
        {"matrix": list(matrices), "singular_index": np.arange(1, singular.shape[1] + 1)},
    )


def eigenvalues(matrix: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return the eigenvalues of a square matrix, largest modulus first; of a conjugate pair, the upper one first."""
    # torch's LAPACK is twenty times faster here than numpy's.
    values = torch.linalg.eigvals(torch.as_tensor(matrix)).numpy()
    order = np.lexsort((-values.imag, -np.abs(values)))
    ordered: NDArray[np.complex128] = values[order]
    return ordered
