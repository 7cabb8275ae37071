"""What the file of a training must hold before anything of it is believed.

A checkpoint may come from anywhere, or be damaged where no checksum tells. Everything that would make the training
fail later on, or go wrong in a library that trusts it, is looked for here, against the training that is to go on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.training.history import MatrixRecords, Records

STATUSES = ("", "finished", "diverged", "stopped", "exhausted")
# Numbers of a generator that say where it is in its block, and the end of the block: numpy does not look at them.
POSITIONS = {"pos": 624, "buffer_pos": 4}


class Metadata(NamedTuple):
    """What the metadata of a checkpoint say, read."""

    settings: dict[str, Any]
    epoch: int
    seconds: float
    status: str
    random_state: dict[str, Any]


def read_metadata(path: object, metadata: Mapping[str, str]) -> Metadata:
    """Return what the metadata of the checkpoint at `path` say.

    Raises
    ------
    InputError
        If something is missing or is not what it should be.
    """
    try:
        settings, random_state = json.loads(metadata["settings"]), json.loads(metadata["rng"])
        epoch, seconds, status = int(metadata["epoch"]), float(metadata["seconds"]), metadata["status"]
    except (KeyError, ValueError, RecursionError) as error:
        raise _damaged(path, f"its metadata cannot be read: {error!r:.200}") from error
    if not isinstance(settings, dict) or not isinstance(random_state, dict):
        raise _damaged(path, "its settings and its random state must be JSON objects")
    if epoch < 0 or not 0 <= seconds < math.inf or status not in STATUSES:
        raise _damaged(path, f"it says epoch {epoch}, {seconds} seconds, status {status[:20]!r}")
    return Metadata(settings, epoch, seconds, status, random_state)


def check_tensors(
    path: object,
    tensors: Mapping[str, Tensor],
    epoch: int,
    network: Mapping[str, Tensor],
    parameters: Iterable[Tensor],
    records: Records,
) -> None:
    """Raise `InputError` unless the tensors of the checkpoint at `path` are those of such a training.

    Parameters
    ----------
    epoch
        Epochs done.
    network
        The `state_dict` of the network that is to go on.
    parameters
        Those that the optimizer changes, in its order.
    records
        What is recorded: of which matrices, and how many values of each.
    """
    check_weights(path, tensors, network)
    check_optimizer(path, tensors, list(parameters))
    for name in ("losses", "gradient_norms"):
        check_tensor(path, tensors, name, (epoch,), torch.float64)
    recorded = tensors.get("recorded_epochs")
    if recorded is None or recorded.dtype != torch.int64 or recorded.ndim != 1:
        raise _damaged(path, "recorded_epochs must be a row of whole numbers")
    looks = len(recorded)
    for key, name, seen in keyed(records):
        shape = tuple(seen.initial.shape)
        check_tensor(path, tensors, f"initial{key}", shape, seen.initial.dtype)
        # Rows are there from the first look on.
        expected = {"singular_values": (looks, min(records.singular_count, *shape)), "weights": (looks, *shape)}
        expected["eigenvalues"] = (looks, min(records.eigenvalue_count, shape[0]), 2)
        for what, size in expected.items():
            rows = tensors.get(what + key)
            if rows is not None and (tuple(rows.shape) != size or rows.dtype not in (torch.float32, torch.float64)):
                raise _damaged(
                    path, f"{what} of {name} must be numbers of shape {size}, for {looks} looks, got {_of(rows)}"
                )
        if looks and f"singular_values{key}" not in tensors:
            raise _damaged(path, f"it has no singular_values of {name}")


def keyed(records: Records) -> Iterator[tuple[str, str, MatrixRecords]]:
    """Yield what to add to the names of a matrix's tensors in the file, nothing for the first; its name and records."""
    for index, (name, seen) in enumerate(records.matrices.items()):
        yield f"/{name}" if index else "", name, seen


def check_weights(path: object, tensors: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> None:
    """Raise `InputError` unless the checkpoint at `path` has the weights of `network`, and no others."""
    for name, ours in network.items():
        check_tensor(path, tensors, f"network.{name}", tuple(ours.shape), ours.dtype)
    unknown = {name for name in tensors if name.startswith("network.")} - {f"network.{name}" for name in network}
    if unknown:
        raise _damaged(path, f"the network has no {min(unknown)[:100]!r}")


def check_optimizer(path: object, tensors: Mapping[str, Tensor], parameters: list[Tensor]) -> None:
    """Raise `InputError` unless what the optimizer kept, in the checkpoint at `path`, is of such parameters."""
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
        if entries.keys() not in ({"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}):
            raise _damaged(path, f"the optimizer keeps other things than {sorted(entries)!r:.200}")
        for entry, tensor in entries.items():
            shape = () if entry == "step" else tuple(theirs.shape)
            kind = torch.float32 if entry == "step" else theirs.dtype
            if tuple(tensor.shape) != shape or tensor.dtype != kind:
                raise _damaged(path, f"optimizer.{number}.{entry} must be {kind} of shape {shape}, got {_of(tensor)}")


def generator_at(path: object, generator: np.random.BitGenerator, state: Mapping[str, Any]) -> np.random.BitGenerator:
    """Return a generator of the same kind as `generator` that is in `state`.

    Raises
    ------
    InputError
        If it is the state of another kind, or none.
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
    """Raise `InputError` unless the checkpoint at `path` has such a tensor."""
    found = tensors.get(name)
    if found is None or tuple(found.shape) != shape or found.dtype != kind:
        got = "none" if found is None else _of(found)
        raise _damaged(path, f"{name} must be {kind} of shape {shape}, got {got}")


def _of(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def _damaged(path: object, what: str) -> InputError:
    return InputError(f"checkpoint {path} is damaged: {what}; remove it to begin anew")
