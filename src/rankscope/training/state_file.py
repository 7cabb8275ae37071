"""State file of a training: everything needed to continue it bit for bit.

The file is safetensors: weights, optimizer state and records as tensors; random state, learning rates and settings as
JSON in the metadata. It is replaced atomically, so an interrupted write leaves the previous file. It may be damaged or
come from an untrusted source, so all of it is checked before the training that continues from it is changed.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.io.tensor_file import read_file, write_tensors
from rankscope.networks.protocol import matrices_of
from rankscope.training.history import Status
from rankscope.training.recorder import CURVES
from rankscope.training.state import TrainingState

FORMAT = "rankscope.training.v2"
LARGEST_COUNT = 2**53
"""Largest whole number in the state of a scheduler."""
LARGEST_POSITIONS = {"pos": 624, "buffer_pos": 4}
"""Positions of a generator within its block of numbers: numpy does not check them, and reads beyond the block."""

Contents = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors and metadata of a state file."""
Form = tuple[tuple[int, ...], torch.dtype]
"""Shape and dtype of a tensor."""
Path = str | os.PathLike[str]


def contents(state: TrainingState) -> Contents:
    """Return copies of all that a file of `state` holds.

    Raises
    ------
    InputError
        If the optimizer's state is more than tensors.
    """
    records = state.records
    tensors: dict[str, Tensor] = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    for index, parameter in enumerate(state.parameters):
        for name, value in state.optimizer.state.get(parameter, {}).items():
            # SGD without momentum keeps a buffer that is None.
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            elif value is not None:
                kind = type(state.optimizer).__name__
                raise InputError(f"optimizer must keep tensors to be saved, got {type(value).__name__} in {kind}")
    for matrix, record in records.matrices.items():
        tensors[f"initial.{matrix}"] = record.initial
        for name in records.kept_of(record):
            if rows := getattr(record, name):
                tensors[f"{name}.{matrix}"] = torch.stack(rows)
    for name in CURVES:
        tensors[name] = torch.tensor(getattr(records, name), dtype=torch.float64)
    tensors["recorded_epochs"] = torch.tensor(records.recorded_epochs, dtype=torch.int64)
    tensors |= {f"best.{name}": value for name, value in (state.best or {}).items()}
    for epoch, weights in state.kept.items():
        tensors |= {f"kept.{epoch}.{name}": value for name, value in weights.items()}
    schedule = {}
    if state.scheduler is not None:
        # The options of the optimizer that a scheduler changes: learning rates, momentum, betas.
        groups = [
            {name: value for name, value in group.items() if isinstance(value, (float, tuple))}
            for group in state.optimizer.param_groups
        ]
        schedule = {"scheduler": state.scheduler.state_dict(), "groups": groups}
    metadata = {
        "format": FORMAT,
        "settings": json.dumps(state.settings),
        "epoch": str(state.epoch),
        "seconds": repr(state.seconds),
        "status": state.status or "",
        "rng": json.dumps(state.rng.bit_generator.state, default=_plain),
        "schedule": json.dumps(schedule),
    }
    copies = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
    }
    return copies, metadata


def write(path: Path, found: Contents) -> None:
    """Write a state file, atomically."""
    write_tensors(path, *found)


def put_back(state: TrainingState, found: Contents) -> None:
    """Return network and generator to where they were when `contents` returned `found`."""
    tensors, metadata = found
    state.network.load_state_dict(_under("network.", tensors))
    state.rng.bit_generator.state = _generator_at("", state.rng.bit_generator, json.loads(metadata["rng"]))


def restore(path: Path, state: TrainingState, total: int | None) -> None:
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
    tensors, metadata = _read(path)
    try:
        settings, random_state = json.loads(metadata["settings"]), json.loads(metadata["rng"])
        schedule = json.loads(metadata["schedule"])
        epoch, seconds, status = int(metadata["epoch"]), float(metadata["seconds"]), metadata["status"]
    except (KeyError, ValueError, RecursionError) as error:
        raise _damaged(path, f"its metadata cannot be read: {error!r:.200}") from error
    if not all(isinstance(value, dict) for value in (settings, random_state, schedule)):
        raise _damaged(path, "its settings, random state and schedule must be JSON objects")
    if epoch < 0 or not 0 <= seconds < math.inf or status not in ("", *get_args(Status)):
        raise _damaged(path, f"it has epoch {epoch}, {seconds} seconds, status {status[:20]!r}")
    for name, value in state.settings.items():
        saved = settings.get(name)
        # The parameters of a user's task may be unknown, so they cannot be compared.
        if saved != value and not (name == "task" and None in (saved, value)):
            raise InputError(
                f"checkpoint {path} belongs to a training with {name} = {saved!r:.200}, "
                f"not {value!r}; remove it or name another"
            )
    _check_tensors(path, tensors, epoch, state)
    _check_network(path, tensors, state)
    if total is not None and epoch > total:
        raise InputError(f"epochs must be >= {epoch}, which checkpoint {path} has, got {total}")
    position = _generator_at(path, state.rng.bit_generator, random_state)
    if state.scheduler is not None:
        _restore_schedule(path, schedule, state)
    state.network.load_state_dict(_under("network.", tensors))
    layout = state.optimizer.state_dict()
    layout["state"] = {}
    for index, parameter in enumerate(state.parameters):
        kept = _under(f"optimizer.{index}.", tensors)
        for name, tensor in kept.items():
            if tensor.shape == parameter.shape:
                # The fused optimizers need the memory layout of the weights.
                kept[name] = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
        if kept:
            layout["state"][index] = kept
    state.optimizer.load_state_dict(layout)
    for index, kept in layout["state"].items():
        entries = state.optimizer.state[state.parameters[index]]
        for name, tensor in kept.items():
            entries[name] = entries[name].to(tensor.dtype)  # torch converts numbers to the dtype of the weights
    state.rng.bit_generator.state = position
    records = state.records
    for name in (*CURVES, "recorded_epochs"):
        setattr(records, name, tensors[name].tolist())
    for matrix, record in records.matrices.items():
        record.initial = tensors[f"initial.{matrix}"].to(record.initial.device)
        for name in records.kept_of(record):
            setattr(record, name, list(tensors.get(f"{name}.{matrix}", ())))
    state.best = {name: value.clone() for name, value in _under("best.", tensors).items()} or None
    state.kept = {
        at: {name: value.clone() for name, value in _under(f"kept.{at}.", tensors).items()} for at in _kept(tensors)
    }
    state.epoch, state.seconds, state.status = epoch, seconds, status or None  # type: ignore[assignment]
    if status in ("finished", "exhausted") and epoch != total:
        state.status = None  # it continues to more epochs


def _read(path: Path) -> Contents:
    try:
        file = read_file(path)
    except InputError as error:
        raise InputError(f"checkpoint cannot be continued: {error}; remove it to begin anew") from error
    if file.metadata.get("format") != FORMAT:
        raise InputError(f"checkpoint {path} is not a state file: its metadata lacks format = {FORMAT!r}")
    return file.tensors(), dict(file.metadata)


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], epoch: int, state: TrainingState) -> None:
    """Raise `InputError` unless the file has exactly the tensors of this training after `epoch` epochs."""
    records = state.records
    expected = {f"network.{name}": _form(value) for name, value in state.network.state_dict().items()}
    if any(name.startswith("best.") for name in tensors):
        expected |= {f"best.{name}": _form(value) for name, value in state.network.state_dict().items()}
    for at in _kept(tensors):
        expected |= {f"kept.{at}.{name}": _form(value) for name, value in state.network.state_dict().items()}
    own = isinstance(state.settings["optimizer"], dict) and "function" in state.settings["optimizer"]
    by_name = None if own else _after_one_step(state.optimizer)
    for index, parameter in enumerate(state.parameters):
        if found := _under(f"optimizer.{index}.", tensors):
            # A user's optimizer may keep any number, and any tensor of the parameter's form.
            any_form = {name: _form(parameter if value.ndim else value) for name, value in found.items()}
            forms = any_form if by_name is None else by_name[index]
            expected |= {f"optimizer.{index}.{name}": form for name, form in forms.items()}
    for name in CURVES:
        rows = 0 if name.startswith("validation") and not tensors.get(name, torch.empty(0)).numel() else epoch
        expected[name] = ((rows,), torch.float64)
    count = tensors["recorded_epochs"].numel() if "recorded_epochs" in tensors else 0
    expected["recorded_epochs"] = ((count,), torch.int64)
    for matrix, record in records.matrices.items():
        expected[f"initial.{matrix}"] = _form(record.initial)
        for name, (shape, dtype) in records.kept_of(record).items() if count else ():
            expected[f"{name}.{matrix}"] = ((count, *shape), dtype)
    for name, (shape, dtype) in expected.items():
        if name not in tensors or _form(tensors[name]) != (shape, dtype):
            got = f"{tensors[name].dtype} of shape {tuple(tensors[name].shape)}" if name in tensors else "none"
            raise _damaged(path, f"{name} must be {dtype} of shape {shape}, got {got}")
    if unknown := tensors.keys() - expected.keys():
        raise _damaged(path, f"this training has no {min(unknown)[:100]!r}")


def _after_one_step(optimizer: torch.optim.Optimizer) -> list[dict[str, Form]]:
    """Return the forms of the tensors that an optimizer keeps of each parameter, from one step of a copy."""
    trial = copy.deepcopy(optimizer)
    parameters = [parameter for group in trial.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    trial.step()
    return [
        {name: _form(value) for name, value in trial.state[parameter].items() if isinstance(value, Tensor)}
        for parameter in parameters
    ]


def _check_network(path: Path, tensors: Mapping[str, Tensor], state: TrainingState) -> None:
    """Raise `InputError` unless the network is as it was before the training, or as the file holds it."""
    for kept in ("network.", "best."):
        parameters = list(state.network.named_parameters())
        if all(
            torch.equal(value.cpu(), tensors.get(kept + name, value.new_empty(0).cpu())) for name, value in parameters
        ):
            return
    for name, now in matrices_of(state.network, state.records.matrices).items():
        if not torch.equal(now.cpu(), tensors[f"initial.{name}"]):
            raise InputError(
                f"network must be the one that checkpoint {path} began with or left behind, got other {name}; "
                "remove the checkpoint or name another"
            )


def _restore_schedule(path: Path, saved: dict[str, Any], state: TrainingState) -> None:
    """Restore the scheduler, and the learning rate and other numbers that it set in the optimizer."""
    groups = state.optimizer.param_groups
    try:
        # Options are those of this training: JSON turns the milestones of MultiStepLR into text.
        options = set(inspect.signature(type(state.scheduler)).parameters) - {"last_epoch"}
        ours = state.scheduler.state_dict()
        theirs = {name: value for name, value in saved["scheduler"].items() if name not in options}
        for name, value in theirs.items():
            _check_alike(name, ours[name], value)
        changes = [
            {name: _like(group[name], value) for name, value in numbers.items()}
            for group, numbers in zip(groups, saved["groups"], strict=True)
        ]
        state.scheduler.load_state_dict(theirs)
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its schedule cannot be used: {error!r:.200}") from error
    for group, change in zip(groups, changes, strict=True):
        group.update(change)


def _check_alike(name: str, ours: Any, saved: Any) -> None:
    """Raise `ValueError` unless a saved value has the type and size of `ours`; None may have become a number."""
    if isinstance(ours, list | tuple) and isinstance(saved, list) and len(ours) == len(saved):
        for one, value in zip(ours, saved, strict=True):
            _check_alike(name, one, value)
    elif isinstance(ours, dict) and isinstance(saved, dict) and set(ours) == set(saved):
        for key, one in ours.items():
            _check_alike(name, one, saved[key])
    else:
        fits = type(saved) is type(ours) or (ours is None and type(saved) in (int, float))
        if not fits or isinstance(saved, list | dict) or (type(saved) is int and abs(saved) > LARGEST_COUNT):
            raise ValueError(f"{name} is {saved!r:.40}")


def _like(ours: Any, saved: Any) -> Any:
    """Return a saved number, or tuple of numbers (betas), for an option of the optimizer that is `ours`."""
    if isinstance(ours, tuple) and isinstance(saved, list) and len(ours) == len(saved):
        return tuple(_like(one, value) for one, value in zip(ours, saved, strict=True))
    if not isinstance(ours, float) or not isinstance(saved, float) or not math.isfinite(saved):
        raise ValueError(f"expected a finite number, got {saved!r:.40}")
    return saved


def _generator_at(path: Path, generator: np.random.BitGenerator, saved: Mapping[str, Any]) -> Any:
    """Return a saved random state in numpy's form, after setting another generator of this kind to it."""
    ours, theirs = type(generator).__name__, saved.get("bit_generator")
    if theirs != ours:
        raise InputError(f"checkpoint {path} continues a {str(theirs)[:40]} generator, got a {ours} one as rng")
    trial = type(generator)()
    try:
        plain = _arrays(saved)
        for name, most in LARGEST_POSITIONS.items():
            for holder in (plain, plain["state"]):
                if name in holder and not 0 <= int(holder[name]) <= most:
                    raise ValueError(f"{name} must be from 0 to {most}, got {holder[name]!r:.40}")
        trial.state = plain
    except (LookupError, ValueError, TypeError, OverflowError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its random state cannot be used: {error!r:.200}") from error
    return trial.state


def _plain(value: Any) -> Any:
    """Return a value of a random state as JSON."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    return value.item()


def _arrays(value: Any) -> Any:
    """Return what `_plain` made JSON of."""
    if not isinstance(value, dict):
        return value
    if set(value) == {"array", "dtype"}:
        if value["dtype"] not in ("uint32", "uint64"):
            raise ValueError(f"numbers of type {value['dtype']!r:.40}")
        return np.array(value["array"], dtype=value["dtype"])
    return {name: _arrays(entry) for name, entry in value.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _kept(tensors: Mapping[str, Tensor]) -> list[int]:
    """Return the numbers of epochs after which a copy was kept."""
    epochs = {name.split(".")[1] for name in tensors if name.startswith("kept.")}
    return sorted(int(epoch) for epoch in epochs if epoch.isdecimal() and epoch.isascii() and len(epoch) < 10)


def _form(tensor: Tensor) -> Form:
    return tuple(tensor.shape), tensor.dtype


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"checkpoint {path} is damaged: {what}; remove it to begin anew")
