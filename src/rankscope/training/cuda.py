"""Devices: finding a GPU, and single-precision products without TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rankscope.errors import InputError


def find_device(name: str | torch.device) -> torch.device:
    """Return the device of this name; raise `InputError` if this machine has none."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"device must be 'cpu', or 'cuda' with a number or without, got {str(name)!r}")
    count = torch.cuda.device_count() if device.type == "cuda" and torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise InputError(f"device must exist, got {str(name)!r}, but torch {torch.__version__} finds {count} GPUs")
    return device


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply in full single precision on a GPU within a `with` block, instead of TF32's ten bits."""
    products = torch.backends.cuda.matmul
    # torch 2.9 renamed the option, and refuses a mix of both names.
    name, value = ("fp32_precision", "ieee") if hasattr(products, "fp32_precision") else ("allow_tf32", False)
    before = getattr(products, name)
    setattr(products, name, value)
    try:
        yield
    finally:
        setattr(products, name, before)
