"""A training frozen between two epochs, in one file, from which it goes on bit for bit.

The file is safetensors: weights, optimiser state and records as tensors; the random state and the settings of the
training as JSON in the metadata. It is replaced atomically, so an interruption leaves the previous one.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rankscope.durable import replacing
from rankscope.errors import InputError
from rankscope.networks.rate import RateRNN
from rankscope.training.history import Records, Status

FORMAT = "rankscope.training.v1"


@dataclass
class TrainingState:
    """Everything that changes while a network trains."""

    network: RateRNN
    optimiser: torch.optim.Optimizer
    rng: np.random.Generator
    records: Records
    epoch: int = 0
    seconds: float = 0.0
    status: Status | None = None
    epoch_begun: int = -1
    changing: bool = False


def save(path: str | os.PathLike[str], state: TrainingState, settings: dict[str, Any]) -> None:
    """Write `state` to `path`, with the settings it belongs to."""
    records = state.records
    tensors: dict[str, Tensor] = {f"network.{k}": v.detach() for k, v in state.network.state_dict().items()}
    tensors["initial"] = records.initial
    for index, entries in state.optimiser.state_dict()["state"].items():
        # SGD without momentum keeps a buffer that is None.
        tensors |= {f"optimiser.{index}.{k}": v for k, v in entries.items() if isinstance(v, Tensor)}
    tensors["losses"] = torch.tensor(records.losses, dtype=torch.float64)
    tensors["gradient_norms"] = torch.tensor(records.gradient_norms, dtype=torch.float64)
    tensors["recorded_epochs"] = torch.tensor(records.recorded_epochs, dtype=torch.int64)
    for name in ("singular_values", "weights"):
        rows = getattr(records, name)
        if rows:
            tensors[name] = torch.stack(rows)
    metadata = {
        "format": FORMAT,
        "settings": json.dumps(settings),
        "epoch": str(state.epoch),
        "seconds": repr(state.seconds),
        "status": state.status or "",
        "rng": json.dumps(state.rng.bit_generator.state, default=_plain),
    }
    with replacing(path) as temporary:
        save_file({k: v.contiguous().cpu().clone() for k, v in tensors.items()}, temporary, metadata=metadata)


def restore(path: str | os.PathLike[str], state: TrainingState, settings: dict[str, Any]) -> None:
    """Bring `state` to where the checkpoint at `path` left it.

    Raises
    ------
    InputError
        If the file is not a checkpoint, or belongs to a training with other settings.
    """
    tensors, metadata = _read(Path(path))
    theirs = json.loads(metadata["settings"])
    different = [name for name, value in settings.items() if theirs.get(name) != value]
    if different:
        name = different[0]
        raise InputError(
            f"checkpoint {path} belongs to a training with {name} = {theirs.get(name)!r}, not {settings[name]!r}; "
            "remove it or name another"
        )
    state.network.load_state_dict({k.removeprefix("network."): v for k, v in _under(tensors, "network.").items()})
    layout = state.optimiser.state_dict()
    layout["state"] = {}
    for key, value in _under(tensors, "optimiser.").items():
        _, index, name = key.split(".")
        layout["state"].setdefault(int(index), {})[name] = value
    state.optimiser.load_state_dict(layout)
    _restore_random_state(state.rng, json.loads(metadata["rng"]), path)
    records = state.records
    records.initial = tensors["initial"]
    records.losses = tensors["losses"].tolist()
    records.gradient_norms = tensors["gradient_norms"].tolist()
    records.recorded_epochs = tensors["recorded_epochs"].tolist()
    records.singular_values = list(tensors["singular_values"]) if "singular_values" in tensors else []
    records.weights = list(tensors["weights"]) if "weights" in tensors else []
    state.epoch, state.seconds = int(metadata["epoch"]), float(metadata["seconds"])
    state.status = metadata["status"] or None  # type: ignore[assignment]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(f"checkpoint {path} is not one of ours: its metadata lacks format = {FORMAT!r}")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"checkpoint {path} is not a readable safetensors file: {error}") from error


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _restore_random_state(rng: np.random.Generator, saved: dict[str, Any], path: str | os.PathLike[str]) -> None:
    ours = rng.bit_generator.state["bit_generator"]
    if saved.get("bit_generator") != ours:
        raise InputError(
            f"checkpoint {path} continues a {saved.get('bit_generator')} generator, got a {ours} one as rng"
        )
    rng.bit_generator.state = _arrays(saved)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    return value.item()


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"array", "dtype"}:
            return np.array(value["array"], dtype=value["dtype"])
        return {k: _arrays(v) for k, v in value.items()}
    return value
