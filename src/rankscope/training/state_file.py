"""A training frozen between two epochs, in one file, from which it goes on bit for bit.

The file is safetensors: weights, optimizer state and records as tensors; the random state and the settings of the
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

from rankscope.errors import InputError
from rankscope.io.atomic import replacing
from rankscope.networks.protocol import Network
from rankscope.training.history import Records, Status
from rankscope.training.state_checks import check_tensors, generator_at, keyed, read_metadata

FORMAT = "rankscope.training.v1"
RECORDED = ("singular_values", "eigenvalues", "weights")
# Files from before there was a choice do not name these.
SINCE_THEN = {"loss": "squared", "matrices": ["recurrent_weights"]}


@dataclass
class TrainingState:
    """Everything that changes while a network trains."""

    network: Network
    optimizer: torch.optim.Optimizer
    rng: np.random.Generator
    records: Records
    epoch: int = 0
    seconds: float = 0.0
    status: Status | None = None
    epoch_begun: int = -1
    changing: bool = False


def save(path: str | os.PathLike[str], state: TrainingState, settings: dict[str, Any]) -> None:
    """Write `state` to `path`, with the settings it belongs to."""
    write(path, *contents(state, settings))


def contents(state: TrainingState, settings: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a file that holds `state`."""
    records = state.records
    tensors: dict[str, Tensor] = {f"network.{k}": v.detach() for k, v in state.network.state_dict().items()}
    for key, _, seen in keyed(records):
        tensors[f"initial{key}"] = seen.initial
        for name in RECORDED:
            if rows := getattr(seen, name):
                tensors[f"{name}{key}"] = torch.stack(rows)
    for index, entries in state.optimizer.state_dict()["state"].items():
        # SGD without momentum keeps a buffer that is None.
        tensors |= {f"optimizer.{index}.{k}": v for k, v in entries.items() if isinstance(v, Tensor)}
    tensors["losses"] = torch.tensor(records.losses, dtype=torch.float64)
    tensors["gradient_norms"] = torch.tensor(records.gradient_norms, dtype=torch.float64)
    tensors["recorded_epochs"] = torch.tensor(records.recorded_epochs, dtype=torch.int64)
    metadata = {
        "format": FORMAT,
        "settings": json.dumps(settings),
        "epoch": str(state.epoch),
        "seconds": repr(state.seconds),
        "status": state.status or "",
        "rng": json.dumps(state.rng.bit_generator.state, default=_plain),
    }
    return tensors, metadata


def write(path: str | os.PathLike[str], tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a file, atomically."""
    with replacing(path) as temporary:
        save_file({k: v.contiguous().cpu().clone() for k, v in tensors.items()}, temporary, metadata=metadata)


def restore(path: str | os.PathLike[str], state: TrainingState, settings: dict[str, Any], total: int | None) -> None:
    """Bring `state` to where the checkpoint at `path` left it, on the way to `total` epochs.

    Raises
    ------
    InputError
        If the file is not a checkpoint, belongs to a training with other settings, or is beyond `total`. `state` is
        then as it was.
    """
    take_over(path, *read(Path(path)), state, settings, total)


def take_over(
    path: str | os.PathLike[str],
    tensors: dict[str, Tensor],
    metadata: dict[str, str],
    state: TrainingState,
    settings: dict[str, Any],
    total: int | None,
) -> None:
    """Do what `restore` does with what the file at `path` holds, and raise what it raises."""
    known = read_metadata(path, metadata)
    theirs = SINCE_THEN | known.settings
    # Of a task of the user's own nothing is known, so that nothing can be held against it.
    unknown = {name for name in ("task",) if None in (settings[name], theirs.get(name))}
    different = [name for name, value in settings.items() if name not in unknown and theirs.get(name) != value]
    if different:
        name = different[0]
        raise InputError(
            f"checkpoint {path} belongs to a training with {name} = {theirs.get(name)!r}, not {settings[name]!r}; "
            "remove it or name another"
        )
    records = state.records
    ours = state.network.state_dict()
    parameters = state.optimizer.param_groups[0]["params"]
    check_tensors(path, tensors, known.epoch, ours, parameters, records)
    for key, name, _ in keyed(records):
        if not any(torch.equal(ours[name].cpu(), tensors[saved]) for saved in (f"initial{key}", f"network.{name}")):
            raise InputError(
                f"network must be the one that checkpoint {path} began with or left behind, got other {name}; "
                "remove the checkpoint or name another"
            )
    if total is not None and known.epoch > total:
        raise InputError(f"epochs must be >= {known.epoch}, which checkpoint {path} has behind it, got {total}")
    random_state = generator_at(path, state.rng.bit_generator, known.random_state).state
    state.network.load_state_dict({k.removeprefix("network."): v for k, v in _under(tensors, "network.").items()})
    layout = state.optimizer.state_dict()
    layout["state"] = {}
    for key, value in _under(tensors, "optimizer.").items():
        _, index, name = key.split(".")
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            # The fused optimizers walk through memory: it has to be laid out as the weights are.
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        layout["state"].setdefault(int(index), {})[name] = value
    state.optimizer.load_state_dict(layout)
    state.rng.bit_generator.state = random_state
    records.losses = tensors["losses"].tolist()
    records.gradient_norms = tensors["gradient_norms"].tolist()
    records.recorded_epochs = tensors["recorded_epochs"].tolist()
    for key, _, seen in keyed(records):
        seen.initial = tensors[f"initial{key}"].to(seen.initial.device)
        for name in RECORDED:
            setattr(seen, name, list(tensors.get(f"{name}{key}", ())))
    state.epoch, state.seconds = known.epoch, known.seconds
    state.status = known.status or None  # type: ignore[assignment]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of the checkpoint at `path`.

    Raises
    ------
    InputError
        If the file is not a checkpoint.
    """
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


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    return value.item()
