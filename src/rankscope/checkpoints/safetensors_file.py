"""Safetensors files: a length, a JSON header, and the data.

The library checks that the header describes exactly the bytes of the file. Nothing in such a file can run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rankscope.checkpoints.source import Entry, Mapped, in_order
from rankscope.errors import InputError

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class SafetensorsFile(Mapped):
    """One safetensors file.

    Raises
    ------
    InputError
        If it is not one, or is truncated.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self.entries = {}
        try:
            with self._open() as file:
                for name in in_order(file.keys()):
                    tensor = file.get_slice(name)
                    kind = tensor.get_dtype()
                    self.entries[name] = Entry(
                        tuple(tensor.get_shape()), DTYPES.get(kind, f"of type {kind}, which is not read")
                    )
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"{path} is not a readable safetensors file ({error}); if it should be one, copy it again, "
                f"it has {path.stat().st_size} bytes"
            ) from error

    def _open(self) -> Any:
        return safe_open(self.path, framework="pt")

    def _view(self, opened: Any, name: str) -> Tensor:
        tensor: Tensor = opened.get_tensor(name)
        return tensor
