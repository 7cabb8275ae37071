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
from torch import Tensor, nn

from rankscope.errors import InputError
from rankscope.io.atomic import replacing

FORMAT = "rankscope.RateRNN.v1"
SIZES = ("hidden_size", "layers", "input_size", "output_size")
"""What an architecture may say of how large a network is."""
INITIAL = "initial."
"""What the names of the tensors from before learning begin with, in a file that holds both networks."""


def save(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], architecture: Mapping[str, Any], kind: str = FORMAT
) -> None:
    """Write `tensors` and `architecture` to `path`, atomically; `kind` is the format that `load` will ask for."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata={"format": kind, "architecture": json.dumps(architecture)})


def with_initial(network: nn.Module, initial: nn.Module | None) -> dict[str, Tensor]:
    """Return the tensors of a network and, if there is one, those of what it was before learning."""
    before = {} if initial is None else initial.state_dict()
    return {**network.state_dict(), **{INITIAL + name: tensor for name, tensor in before.items()}}


def half_of(tensors: Mapping[str, Tensor], initial: bool) -> dict[str, Tensor]:
    """Return one of the two that `with_initial` put together, by the names it had."""
    return {
        name.removeprefix(INITIAL): tensor for name, tensor in tensors.items() if name.startswith(INITIAL) == initial
    }


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
    except (KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{path} has no readable architecture in its metadata") from error
    if not isinstance(architecture, dict):
        raise InputError(f"{path} has an architecture that is not a mapping, got {architecture!r:.100}")
    _check_sizes(path, tensors, architecture)
    return tensors, architecture


def _check_sizes(path: Path, tensors: Mapping[str, Tensor], architecture: Mapping[str, Any]) -> None:
    """Raise `InputError` if a network of this architecture has many more weights than there are in the file.

    A few bytes can name any size, and making the network takes the memory that it names.
    """
    numbers = sum(tensor.numel() for tensor in tensors.values())
    sizes = {name: architecture[name] for name in SIZES if name in architecture}
    if not all(isinstance(size, int) and size >= 1 for size in sizes.values()):
        raise InputError(f"{path} must have an architecture with sizes >= 1, got {sizes!r:.200}")
    N = sizes.pop("hidden_size", 1)
    layers = sizes.pop("layers", 1)
    if N * max([N * layers, *sizes.values()]) > numbers:
        raise InputError(f"{path} is of a network with {N} units in {layers} layers, but holds only {numbers} numbers")
