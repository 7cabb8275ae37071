"""State file of a training: everything needed to continue it bit for bit.

The file is safetensors: weights, optimizer state and records as tensors; random state, learning rates and settings as
JSON in the metadata. It is replaced atomically, so an interrupted write leaves the previous file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rankscope.errors import InputError
from rankscope.io.atomic import replacing
from rankscope.networks.protocol import Network, matrices_of
from rankscope.tasks.trials import Trials
from rankscope.training.history import History, Status
from rankscope.training.recorder import CURVES, Recorder
from rankscope.training.state_checks import check_tensors, generator_at, keyed, read_metadata, restore_schedule

FORMAT = "rankscope.training.v2"
RECORDED = ("singular_values", "eigenvalues", "weights")

Contents = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors and metadata of a state file."""


@dataclass
class TrainingState:
    """Everything that changes while a network is trained.

    Attributes
    ----------
    batches
        Yields the batches of each epoch: one for a task that draws trials, those of a pass for finite data.
    finite
        Whether an epoch is a pass over finite data, in several steps.
    settings
        Description of the training. A state file with other settings is refused.
    learning_rate
        Initial learning rate.
    epoch
        Number of completed epochs.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    rng: np.random.Generator
    records: Recorder
    settings: dict[str, Any]
    learning_rate: float
    scheduler: Any = None
    batches: Iterator[Iterable[Trials]] = field(default_factory=lambda: iter(()))
    finite: bool = False
    epoch: int = 0
    seconds: float = 0.0
    status: Status | None = None

    @property
    def parameters(self) -> list[Tensor]:
        """The trained parameters, in the optimizer's order."""
        return [weights for group in self.optimizer.param_groups for weights in group["params"]]

    def extend(self, total: int | None) -> None:
        """Continue a finished training if it has more epochs now."""
        if self.status in ("finished", "exhausted") and self.epoch != total:
            self.status = None

    def history(self) -> History:
        """Return the history of a training that has ended."""
        assert self.status is not None
        return self.records.finish(self.status, self.learning_rate, self.seconds)


def save(path: str | os.PathLike[str], state: TrainingState) -> None:
    """Write `state` to `path`."""
    write(path, contents(state))


def contents(state: TrainingState) -> Contents:
    """Return the tensors and the metadata of a file with `state`.

    Raises
    ------
    InputError
        If the optimizer's state is more than tensors.
    """
    records = state.records
    tensors: dict[str, Tensor] = {f"network.{k}": v.detach() for k, v in state.network.state_dict().items()}
    for key, _, record in keyed(records):
        tensors[f"initial{key}"] = record.initial
        for name in RECORDED:
            if rows := getattr(record, name):
                tensors[f"{name}{key}"] = torch.stack(rows)
    for index, parameter in enumerate(state.parameters):
        for name, value in state.optimizer.state.get(parameter, {}).items():
            # SGD without momentum keeps a buffer that is None.
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            elif value is not None:
                kind = type(state.optimizer).__name__
                raise InputError(f"optimizer must keep tensors to be saved, got {type(value).__name__} in {kind}")
    for name in CURVES:
        tensors[name] = torch.tensor(getattr(records, name), dtype=torch.float64)
    tensors["recorded_epochs"] = torch.tensor(records.recorded_epochs, dtype=torch.int64)
    metadata = {
        "format": FORMAT,
        "settings": json.dumps(state.settings),
        "epoch": str(state.epoch),
        "seconds": repr(state.seconds),
        "status": state.status or "",
        "rng": json.dumps(state.rng.bit_generator.state, default=_plain),
        "schedule": json.dumps(_schedule(state)),
    }
    return tensors, metadata


def copied(state: TrainingState) -> Contents:
    """Return `contents` in memory of their own."""
    tensors, metadata = contents(state)
    return {name: tensor.clone() for name, tensor in tensors.items()}, metadata


def put_back(state: TrainingState, found: Contents) -> None:
    """Give network and generator the state that `contents` returned before."""
    tensors, metadata = found
    state.network.load_state_dict({k.removeprefix("network."): v for k, v in _under(tensors, "network.").items()})
    state.rng.bit_generator.state = generator_at("", state.rng.bit_generator, json.loads(metadata["rng"])).state


def write(path: str | os.PathLike[str], found: Contents) -> None:
    """Write a state file, atomically."""
    tensors, metadata = found
    with replacing(path) as temporary:
        save_file({k: v.contiguous().cpu().clone() for k, v in tensors.items()}, temporary, metadata=metadata)


def restore(path: str | os.PathLike[str], state: TrainingState, total: int | None) -> None:
    """Bring `state` to where the state file at `path` left it.

    Parameters
    ----------
    total
        Epochs of the training in all.

    Raises
    ------
    InputError
        If the file is not a state file, is damaged, belongs to a training with other settings or of another network,
        or is beyond `total`. `state` is then unchanged.
    """
    tensors, metadata = _read(Path(path))
    known = read_metadata(path, metadata)
    # The parameters of a user's task may be unknown, so they cannot be compared.
    unknown = {"task"} if None in (state.settings["task"], known.settings.get("task")) else set()
    for name, value in state.settings.items():
        if name not in unknown and known.settings.get(name) != value:
            raise InputError(
                f"checkpoint {path} belongs to a training with {name} = {known.settings.get(name)!r:.200}, "
                f"not {value!r}; remove it or name another"
            )
    records, parameters = state.records, state.parameters
    check_tensors(path, tensors, known.epoch, state.network, parameters, state.settings["optimizer"], records)
    _check_network(path, tensors, state)
    if total is not None and known.epoch > total:
        raise InputError(f"epochs must be >= {known.epoch}, which checkpoint {path} has, got {total}")
    random_state = generator_at(path, state.rng.bit_generator, known.random_state).state
    restore_schedule(path, metadata.get("schedule", ""), state.optimizer, state.scheduler)
    state.network.load_state_dict({k.removeprefix("network."): v for k, v in _under(tensors, "network.").items()})
    layout = state.optimizer.state_dict()
    layout["state"] = {}
    for key, value in _under(tensors, "optimizer.").items():
        _, index, name = key.split(".", 2)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            # The fused optimizers need the memory layout of the weights.
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        layout["state"].setdefault(int(index), {})[name] = value
    state.optimizer.load_state_dict(layout)
    state.rng.bit_generator.state = random_state
    for name in CURVES:
        setattr(records, name, tensors[name].tolist())
    records.recorded_epochs = tensors["recorded_epochs"].tolist()
    for key, _, record in keyed(records):
        record.initial = tensors[f"initial{key}"].to(record.initial.device)
        for name in RECORDED:
            setattr(record, name, list(tensors.get(f"{name}{key}", ())))
    state.epoch, state.seconds = known.epoch, known.seconds
    state.status = known.status or None  # type: ignore[assignment]


def _check_network(path: object, tensors: dict[str, Tensor], state: TrainingState) -> None:
    """Raise `InputError` unless the network is as it was before the training, or as the file holds it."""
    now = matrices_of(state.network, state.records.matrices)
    for key, name, _ in keyed(state.records):
        kept = (tensors[f"initial{key}"], tensors.get(f"network.{name}"))
        if not any(saved is not None and torch.equal(now[name].cpu(), saved) for saved in kept):
            ours = state.network.state_dict().items()
            if all(torch.equal(value.cpu(), tensors[f"network.{k}"]) for k, value in ours):
                return
            raise InputError(
                f"network must be the one that checkpoint {path} began with or left behind, got other {name}; "
                "remove the checkpoint or name another"
            )


def _read(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(f"checkpoint {path} is not a state file: its metadata lacks format = {FORMAT!r}")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"checkpoint {path} is not a readable safetensors file: {error}") from error


def _schedule(state: TrainingState) -> dict[str, Any]:
    """Return the scheduler's state and the options of the optimizer that a scheduler changes; {} without scheduler."""
    if state.scheduler is None:
        return {}
    groups = [
        {name: value for name, value in group.items() if isinstance(value, (float, tuple))}
        for group in state.optimizer.param_groups
    ]
    return {"scheduler": state.scheduler.state_dict(), "groups": groups}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    return value.item()
