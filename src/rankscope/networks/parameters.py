"""Weights of a rate network: their names, and validation of their shapes and dtypes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankscope.errors import InputError

TRAINABLE = ("input", "recurrent", "output", "bias", "initial_state", "tau")
"""Names that `trained` accepts, in the order of the constructor's arguments."""

PARAMETERS = {
    "input": "input_weights",
    "recurrent": "recurrent_weights",
    "output": "output_weights",
    "bias": "bias",
    "initial_state": "initial_state",
    "tau": "tau",
}
"""Name in `trained` -> name in the `state_dict`."""
BY_HAND = TRAINABLE[:-1]
"""Those that the hand-written passes differentiate."""


def checked_weights(values: Sequence[Any], trained: Collection[str]) -> dict[str, Tensor | None]:
    """Return a copy of each weight as a tensor, or None for one that has its default value and is not trained.

    Parameters
    ----------
    values
        Arrays or tensors, one for each of `TRAINABLE`: (N, in), (N, N), (out, N), and (N,) or None three times; tau
        may be one number.
    trained
        Names of the trained weights. These exist also where None is given, and start from zero (tau from one).

    Raises
    ------
    InputError
        If they are not float32 or float64, or their shapes, types or devices do not fit together.
    """
    values = [*values[:-1], _time_constants(values[-1], values[1])]
    tensors = {
        name: None if value is None else _as_tensor(PARAMETERS[name], value)
        for name, value in zip(TRAINABLE, values, strict=True)
    }
    W = tensors["recurrent"]
    if W is None or W.ndim != 2 or W.shape[0] != W.shape[1]:
        raise InputError(f"recurrent_weights must be a square matrix (N, N), got {_shape(W)}")
    N = W.shape[0]
    expected = {"input": (N, None), "output": (None, N), "bias": (N,), "initial_state": (N,), "tau": (N,)}
    for part, shape in expected.items():
        tensor, name = tensors[part], PARAMETERS[part]
        if tensor is None and len(shape) == 1:
            tensors[part] = W.new_full((N,), float(part == "tau")) if part in trained else None
            continue
        if tensor is None or not _fits(tensor, shape):
            expected_shape = ", ".join("any" if n is None else str(n) for n in shape)
            raise InputError(
                f"{name} must have shape ({expected_shape}) beside recurrent_weights ({N}, {N}), got {_shape(tensor)}"
            )
        if tensor.dtype != W.dtype or tensor.device != W.device:
            raise InputError(
                f"{name} must be {W.dtype} on {W.device} like recurrent_weights, got {tensor.dtype} on {tensor.device}"
            )
    tau = tensors["tau"]
    if tau is not None and not bool(((tau > 0) & torch.isfinite(tau)).all()):
        raise InputError(f"tau must be finite numbers > 0, got {tau.detach().tolist()[:5]}")
    return tensors


def _time_constants(tau: Any, recurrent: Any) -> Any:
    """Return one number as a vector of the type of the recurrent weights; other values as they are."""
    if isinstance(tau, int | float) and not isinstance(tau, bool):
        W = torch.as_tensor(recurrent)
        return W.new_full(W.shape[:1], tau)
    if isinstance(tau, list | tuple):
        return torch.as_tensor(tau, dtype=torch.as_tensor(recurrent).dtype)
    return tau


def _as_tensor(name: str, value: Any) -> Tensor:
    try:
        # A copy, as torch supports neither read-only arrays nor negative strides.
        tensor = torch.as_tensor(value.copy() if isinstance(value, np.ndarray) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be an array or a tensor, got {type(value).__name__}") from error
    if tensor.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{name} must be float32 or float64, got {tensor.dtype}")
    # Kernels and fused optimizers require contiguous rows.
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _fits(tensor: Tensor, shape: tuple[int | None, ...]) -> bool:
    return tensor.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, tensor.shape, strict=True))


def _shape(tensor: Tensor | None) -> str:
    return "None" if tensor is None else f"shape {tuple(tensor.shape)}"
