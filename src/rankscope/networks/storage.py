"""Networks in files: safetensors, which holds numbers and text and can run nothing.

The tensors are the `state_dict`; the architecture is one JSON text in the file's metadata.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rankscope.durable import replacing
from rankscope.errors import InputError

FORMAT = "rankscope.RateRNN.v1"


def save(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], architecture: Mapping[str, Any], kind: str = FORMAT
) -> None:
    """Write `tensors` and `architecture` to `path`, atomically; `kind` is the format that `load` will ask for."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata={"format": kind, "architecture": json.dumps(architecture)})


def load(path: str | os.PathLike[str], kind: str = FORMAT) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the architecture of a file that `save` wrote.

    Raises
    ------
    InputError
        If the file is missing, is not a safetensors file, or is not a rankscope network.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"path must be a file that {kind.split('.')[1]}.save wrote, got {str(path)!r}, which is not there"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind:
                raise InputError(f"{path} is not a rankscope network: its metadata lacks format = {kind!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        architecture = json.loads(metadata["architecture"])
    except (KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path} has no readable architecture in its metadata") from error
    if not isinstance(architecture, dict):
        raise InputError(f"{path} has an architecture that is not a mapping, got {architecture!r}")
    return tensors, architecture
