"""Validation of a state file against the training that is to continue from it.

A state file may be damaged or come from an untrusted source. Everything that would make the training fail later, or
that a library would accept unchecked, is refused before the training is touched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.networks.protocol import Network
from rankscope.training.recorder import CURVES, MatrixRecords, Recorder

STATUSES = ("", "finished", "diverged", "stopped", "exhausted")
# Largest positions of a generator within its block: numpy does not check them.
POSITIONS = {"pos": 624, "buffer_pos": 4}


class Metadata(NamedTuple):
    """Parsed metadata of a state file."""

    settings: dict[str, Any]
    epoch: int
    seconds: float
    status: str
    random_state: dict[str, Any]


def read_metadata(path: object, metadata: Mapping[str, str]) -> Metadata:
    """Parse the metadata of the state file at `path`.

    Raises
    ------
    InputError
        If an entry is missing or malformed.
    """
    try:
        settings, random_state = json.loads(metadata["settings"]), json.loads(metadata["rng"])
        epoch, seconds, status = int(metadata["epoch"]), float(metadata["seconds"]), metadata["status"]
    except (KeyError, ValueError, RecursionError) as error:
        raise _damaged(path, f"its metadata cannot be read: {error!r:.200}") from error
    if not isinstance(settings, dict) or not isinstance(random_state, dict):
        raise _damaged(path, "its settings and its random state must be JSON objects")
    if epoch < 0 or not 0 <= seconds < math.inf or status not in STATUSES:
        raise _damaged(path, f"it has epoch {epoch}, {seconds} seconds, status {status[:20]!r}")
    return Metadata(settings, epoch, seconds, status, random_state)


def check_tensors(
    path: object,
    tensors: Mapping[str, Tensor],
    epoch: int,
    network: Network,
    parameters: list[Tensor],
    optimizer: object,
    records: Recorder,
) -> None:
    """Raise `InputError` unless the tensors of the state file at `path` are those of this training.

    Parameters
    ----------
    epoch
        Number of completed epochs.
    parameters
        Trained parameters, in the optimizer's order.
    optimizer
        Name of the optimizer; anything else for the user's own.
    records
        Names, shapes and counts of what is recorded.
    """
    check_weights(path, tensors, network.state_dict())
    check_optimizer(path, tensors, parameters, optimizer)
    for name in CURVES:
        rows = tensors.get(name)
        absent = name.startswith("validation") and rows is not None and len(rows.shape) == 1 and not len(rows)
        check_tensor(path, tensors, name, (0,) if absent else (epoch,), torch.float64)
    recorded = tensors.get("recorded_epochs")
    if recorded is None or recorded.dtype != torch.int64 or recorded.ndim != 1:
        raise _damaged(path, "recorded_epochs must be a row of whole numbers")
    rows_expected = len(recorded)
    for key, name, record in keyed(records):
        shape = tuple(record.initial.shape)
        check_tensor(path, tensors, f"initial{key}", shape, record.initial.dtype)
        expected = {
            "singular_values": (rows_expected, min(records.singular_count, *shape)),
            "weights": (rows_expected, *shape),
            "eigenvalues": (rows_expected, min(records.eigenvalue_count, shape[0]), 2),
        }
        for what, size in expected.items():
            rows = tensors.get(what + key)
            if rows is not None and (tuple(rows.shape) != size or rows.dtype not in (torch.float32, torch.float64)):
                raise _damaged(path, f"{what} of {name} must be numbers of shape {size}, got {_of(rows)}")
        if rows_expected and f"singular_values{key}" not in tensors:
            raise _damaged(path, f"it has no singular_values of {name}")


def keyed(records: Recorder) -> Iterator[tuple[str, str, MatrixRecords]]:
    """Yield, for each matrix, the suffix of its tensors' names ("" for the first), its name and its records."""
    for index, (name, record) in enumerate(records.matrices.items()):
        yield f"/{name}" if index else "", name, record


def check_weights(path: object, tensors: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> None:
    """Raise `InputError` unless the state file has exactly the weights of this `state_dict`."""
    for name, ours in network.items():
        check_tensor(path, tensors, f"network.{name}", tuple(ours.shape), ours.dtype)
    unknown = {name for name in tensors if name.startswith("network.")} - {f"network.{name}" for name in network}
    if unknown:
        raise _damaged(path, f"the network has no {min(unknown)[:100]!r}")


KEPT = {
    "adam": {"step", "exp_avg", "exp_avg_sq"},
    "adamw": {"step", "exp_avg", "exp_avg_sq"},
    "rmsprop": {"step", "square_avg"},
    "sgd": set(),
}
"""State that each named optimizer keeps of a parameter."""


def check_optimizer(path: object, tensors: Mapping[str, Tensor], parameters: list[Tensor], optimizer: object) -> None:
    """Raise `InputError` unless the optimizer's state in the file fits its parameters."""
    kept: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if not name.startswith("optimizer."):
            continue
        _, index, entry = [*name.split(".", 2), ""][:3]
        if not (index.isascii() and index.isdigit() and len(index) < 9 and int(index) < len(parameters)):
            raise _damaged(path, f"the optimizer has no parameter for {name[:100]!r}")
        kept.setdefault(int(index), {})[entry] = tensor
    for number, entries in kept.items():
        theirs = parameters[number]
        if isinstance(optimizer, str) and entries.keys() != KEPT[optimizer]:
            raise _damaged(path, f"the optimizer keeps other things than {sorted(entries)!r:.200}")
        for entry, tensor in entries.items():
            scalar = entry == "step" or (not isinstance(optimizer, str) and not tensor.ndim)
            shape, kind = ((), torch.float32) if scalar else (tuple(theirs.shape), theirs.dtype)
            if tuple(tensor.shape) != shape or tensor.dtype != kind:
                raise _damaged(path, f"optimizer.{number}.{entry} must be {kind} of shape {shape}, got {_of(tensor)}")


def restore_schedule(path: object, text: str, optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
    """Restore a learning rate scheduler, and the learning rate and other numbers it set in the optimizer.

    Raises
    ------
    InputError
        If `text` is not what was saved for such a scheduler.
    """
    if scheduler is None:
        return
    try:
        saved = json.loads(text)
        ours, theirs = scheduler.state_dict(), saved["scheduler"]
        if set(theirs) - set(ours) or len(saved["groups"]) != len(optimizer.param_groups):
            raise ValueError("it belongs to another scheduler")
        changes = [
            {name: _like(group[name], value) for name, value in numbers.items()}
            for group, numbers in zip(optimizer.param_groups, saved["groups"], strict=True)
        ]
        scheduler.load_state_dict(theirs)
        for group, change in zip(optimizer.param_groups, changes, strict=True):
            group.update(change)
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its schedule cannot be used: {error!r:.200}") from error


def _like(ours: Any, saved: Any) -> Any:
    """Return a saved number, or tuple of numbers (betas), for an option of the optimizer that is `ours`."""
    if isinstance(ours, tuple) and isinstance(saved, list) and len(ours) == len(saved):
        return tuple(_like(one, value) for one, value in zip(ours, saved, strict=True))
    if not isinstance(ours, float) or not isinstance(saved, float) or not math.isfinite(saved):
        raise ValueError(f"expected a finite number, got {saved!r:.40}")
    return saved


def generator_at(path: object, generator: np.random.BitGenerator, state: Mapping[str, Any]) -> np.random.BitGenerator:
    """Return a new generator of the same kind as `generator`, in `state`.

    Raises
    ------
    InputError
        If `state` belongs to another kind of generator, or is malformed.
    """
    ours = type(generator).__name__
    if state.get("bit_generator") != ours:
        raise InputError(
            f"checkpoint {path} continues a {str(state.get('bit_generator'))[:40]} generator, got a {ours} one as rng"
        )
    found = type(generator)()
    try:
        plain = _arrays(state)
        for name, most in POSITIONS.items():
            for holder in (plain, plain["state"]):
                if name in holder and not 0 <= int(holder[name]) <= most:
                    raise ValueError(f"{name} must be from 0 to {most}, got {holder[name]!r:.40}")
        found.state = plain
    except (LookupError, ValueError, TypeError, OverflowError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its random state cannot be used: {error!r:.200}") from error
    return found


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"array", "dtype"}:
            if value["dtype"] not in ("uint32", "uint64"):
                raise ValueError(f"numbers of type {value['dtype']!r:.40}")
            return np.array(value["array"], dtype=value["dtype"])
        return {k: _arrays(v) for k, v in value.items()}
    return value


def check_tensor(
    path: object, tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...], kind: torch.dtype
) -> None:
    """Raise `InputError` unless the state file has such a tensor."""
    found = tensors.get(name)
    if found is None or tuple(found.shape) != shape or found.dtype != kind:
        got = "none" if found is None else _of(found)
        raise _damaged(path, f"{name} must be {kind} of shape {shape}, got {got}")


def _of(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def _damaged(path: object, what: str) -> InputError:
    return InputError(f"checkpoint {path} is damaged: {what}; remove it to begin anew")
