"""Outputs and states in what a network returns.

A module may return the outputs alone; a tuple whose first tensor are the outputs; or an object or a mapping with the
entry `outputs`, as the models of NeuralRNN do. The states are the second tensor, or the entry `states`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from rankscope.errors import InputError


class Returned(NamedTuple):
    """Outputs (batch, time or 1, out), and states (batch, time, N) where the network returns them."""

    outputs: Tensor
    states: Tensor | None


def returned_by(returned: Any, inputs: Tensor) -> Returned:
    """Return the outputs and states in what a network returned for `inputs` (batch, time, in).

    Raises
    ------
    InputError
        If there are no outputs in it, or it cannot be told which tensor they are.
    """
    outputs, states = _entries(returned)
    batch, steps = inputs.shape[:2]
    if not _has_shape(outputs, (batch, steps), (batch, 1)):
        got = _described(returned)
        if _has_shape(outputs, (steps, batch)):
            got += "; make it batch-first (batch_first=True for torch's layers)"
        raise InputError(
            f"network must return a tensor ({batch}, {steps}, out) for inputs {tuple(inputs.shape)}, got {got}"
        )
    assert isinstance(outputs, Tensor)
    if not _has_shape(states, (batch, steps)):
        states = None
    if isinstance(returned, tuple) and states is not None and states.shape == outputs.shape:
        raise InputError(
            f"network must return (outputs, states), got two tensors of one shape {tuple(outputs.shape)}, either of "
            "which could be the outputs; return the outputs alone, or {'outputs': ..., 'states': ...}"
        )
    return Returned(outputs, states)


def _entries(returned: Any) -> tuple[Any, Any]:
    if isinstance(returned, Tensor):
        return returned, None
    if isinstance(returned, Mapping):
        return returned.get("outputs"), returned.get("states")
    if hasattr(returned, "outputs"):
        return returned.outputs, getattr(returned, "states", None)
    if isinstance(returned, tuple | list) and returned:
        return returned[0], returned[1] if len(returned) > 1 else None
    return returned, None


def _has_shape(tensor: Any, *shapes: tuple[int, int]) -> bool:
    return isinstance(tensor, Tensor) and tensor.ndim == 3 and tuple(tensor.shape[:2]) in shapes


def _described(returned: Any) -> str:
    if isinstance(returned, Tensor):
        return f"a tensor of shape {tuple(returned.shape)}"
    if isinstance(returned, tuple | list):
        return f"a {type(returned).__name__} of ({', '.join(map(_described, returned))})"
    return f"a {type(returned).__name__}"
