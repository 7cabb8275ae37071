"""A training frozen between two epochs, in one file, from which it goes on bit for bit.

The file is safetensors: weights, optimiser state and records as tensors; the random state and the settings of the
training as JSON in the metadata. It is replaced atomically, so an interruption leaves the previous one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
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
from rankscope.networks.protocol import Network
from rankscope.training.history import MatrixRecords, Records, Status

FORMAT = "rankscope.training.v1"
RECORDED = ("singular_values", "eigenvalues", "weights")
# Files from before there was a choice do not name these.
SINCE_THEN = {"loss": "squared", "matrices": ["recurrent_weights"]}


@dataclass
class TrainingState:
    """Everything that changes while a network trains."""

    network: Network
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
    for key, seen in _keyed(records):
        tensors[f"initial{key}"] = seen.initial
        for name in RECORDED:
            if rows := getattr(seen, name):
                tensors[f"{name}{key}"] = torch.stack(rows)
    for index, entries in state.optimiser.state_dict()["state"].items():
        # SGD without momentum keeps a buffer that is None.
        tensors |= {f"optimiser.{index}.{k}": v for k, v in entries.items() if isinstance(v, Tensor)}
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
    tensors, metadata = _read(Path(path))
    theirs = SINCE_THEN | json.loads(metadata["settings"])
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
    for key, name in zip((key for key, _ in _keyed(records)), records.matrices, strict=True):
        if not any(torch.equal(ours[name].cpu(), tensors[saved]) for saved in (f"initial{key}", f"network.{name}")):
            raise InputError(
                f"network must be the one that checkpoint {path} began with or left behind, got other {name}; "
                "remove the checkpoint or name another"
            )
    epoch, random_state = int(metadata["epoch"]), json.loads(metadata["rng"])
    if total is not None and epoch > total:
        raise InputError(f"epochs must be >= {epoch}, which checkpoint {path} has behind it, got {total}")
    _check_generator(state.rng, random_state, path)
    state.network.load_state_dict({k.removeprefix("network."): v for k, v in _under(tensors, "network.").items()})
    layout = state.optimiser.state_dict()
    layout["state"] = {}
    for key, value in _under(tensors, "optimiser.").items():
        _, index, name = key.split(".")
        parameter = state.optimiser.param_groups[0]["params"][int(index)]
        if value.shape == parameter.shape:
            # The fused optimisers walk through memory: it has to be laid out as the weights are.
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        layout["state"].setdefault(int(index), {})[name] = value
    state.optimiser.load_state_dict(layout)
    state.rng.bit_generator.state = _arrays(random_state)
    records.losses = tensors["losses"].tolist()
    records.gradient_norms = tensors["gradient_norms"].tolist()
    records.recorded_epochs = tensors["recorded_epochs"].tolist()
    for key, seen in _keyed(records):
        seen.initial = tensors[f"initial{key}"].to(seen.initial.device)
        for name in RECORDED:
            setattr(seen, name, list(tensors.get(f"{name}{key}", ())))
    state.epoch, state.seconds = epoch, float(metadata["seconds"])
    state.status = metadata["status"] or None  # type: ignore[assignment]


def _keyed(records: Records) -> Iterator[tuple[str, MatrixRecords]]:
    """Yield what to add to the names of a matrix's tensors in the file, nothing for the first; and its records."""
    for index, (name, seen) in enumerate(records.matrices.items()):
        yield f"/{name}" if index else "", seen


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


def _check_generator(rng: np.random.Generator, saved: dict[str, Any], path: str | os.PathLike[str]) -> None:
    ours = rng.bit_generator.state["bit_generator"]
    if saved.get("bit_generator") != ours:
        raise InputError(
            f"checkpoint {path} continues a {saved.get('bit_generator')} generator, got a {ours} one as rng"
        )


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
