"""The trainings of many networks frozen between two epochs, in one file: they were together and go on together.

One file, as it is replaced whole: were there one for each network, a kill in between would leave them at two epochs. It
holds what the checkpoint of each network alone would hold, so that any of them can be taken out and go on alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from rankscope.errors import InputError
from rankscope.training import state_file
from rankscope.training.state_file import TrainingState

FORMAT = "rankscope.training-together.v1"


def save(
    path: str | os.PathLike[str],
    states: Sequence[TrainingState],
    settings: Sequence[dict[str, Any]],
    notes: Mapping[str, str],
) -> None:
    """Write trainings to `path`.

    Parameters
    ----------
    notes
        Of whoever trains them, to be found by `notes_in`, also in the files that `take_out` writes.
    """
    tensors: dict[str, Tensor] = {}
    each: list[dict[str, str]] = []
    for e, (state, its_settings) in enumerate(zip(states, settings, strict=True)):
        its_tensors, metadata = state_file.contents(state, its_settings)
        tensors |= {f"{e}/{name}": tensor for name, tensor in its_tensors.items()}
        each.append(metadata)
    state_file.write(path, tensors, {"format": FORMAT, "each": json.dumps(each), "notes": json.dumps(dict(notes))})


def restore(
    path: str | os.PathLike[str], states: Sequence[TrainingState], settings: Sequence[dict[str, Any]], total: int
) -> None:
    """Bring trainings to where the file at `path` left them, on the way to `total` epochs.

    Raises
    ------
    InputError
        If the file is not a checkpoint of so many trainings, or one belongs to other settings or another network, or is
        beyond `total`. The networks are then as they were.
    """
    each = _metadata(path)
    if len(each) != len(states):
        raise InputError(f"checkpoint {path} holds {len(each)} networks that train together, not {len(states)}")
    before = [{name: w.clone() for name, w in state.network.state_dict().items()} for state in states]
    try:
        for e, (state, its_settings) in enumerate(zip(states, settings, strict=True)):
            state_file.take_over(path, _tensors(path, e), each[e], state, its_settings, total)
    except InputError:
        for state, weights in zip(states, before, strict=True):
            state.network.load_state_dict(weights)
        raise


def take_out(path: str | os.PathLike[str], targets: Mapping[int, str | os.PathLike[str]]) -> None:
    """Write the checkpoints of single networks, as `train` would have left them.

    Parameters
    ----------
    targets
        The number of a network -> the file to write.

    Raises
    ------
    InputError
        If the file at `path` is not a checkpoint of networks that train together.
    """
    each, notes = _metadata(path), notes_in(path)
    for e, target in targets.items():
        state_file.write(target, _tensors(path, e), {**each[e], "notes": json.dumps(notes)})


def put_together(path: str | os.PathLike[str], sources: Sequence[str | os.PathLike[str]]) -> None:
    """Write one checkpoint of many networks from those of each, which should be at one epoch.

    Raises
    ------
    InputError
        If one of the files is not a checkpoint.
    """
    tensors: dict[str, Tensor] = {}
    each: list[dict[str, str]] = []
    notes: dict[str, str] = {}
    for e, source in enumerate(sources):
        its_tensors, metadata = state_file.read(Path(source))
        tensors |= {f"{e}/{name}": tensor for name, tensor in its_tensors.items()}
        notes |= _notes(metadata)
        each.append(metadata)
    state_file.write(path, tensors, {"format": FORMAT, "each": json.dumps(each), "notes": json.dumps(notes)})


class Standing(NamedTuple):
    """Where the checkpoint of one network stands: epochs done, how the training ended ("" if it goes on), notes."""

    epoch: int
    status: str
    notes: Mapping[str, str]


def standing(path: str | os.PathLike[str]) -> Standing | None:
    """Return where the checkpoint of one network stands, or None if there is none that can be read."""
    try:
        with safe_open(Path(path), framework="pt") as file:
            metadata = file.metadata() or {}
        return Standing(int(metadata["epoch"]), metadata["status"], _notes(metadata))
    except (SafetensorError, OSError, ValueError, KeyError):
        return None


def notes_in(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the notes in a checkpoint of many networks; none where there is no such file, or it has none."""
    try:
        with safe_open(Path(path), framework="pt") as file:
            return _notes(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def _notes(metadata: Mapping[str, str]) -> dict[str, str]:
    try:
        notes = json.loads(metadata.get("notes", "{}"))
        return {str(name): str(note) for name, note in notes.items()}
    except (ValueError, AttributeError, RecursionError):
        return {}


def _metadata(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    try:
        with safe_open(Path(path), framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"checkpoint {path} is not a readable safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"checkpoint {path} is not one of ours: its metadata lacks format = {FORMAT!r}")
    try:
        each = json.loads(metadata["each"])
        if not all(isinstance(name, str) and isinstance(text, str) for one in each for name, text in one.items()):
            raise ValueError("what it says of a network is not text")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"checkpoint {path} is damaged: {error!r}") from error
    return list(each)


def _tensors(path: str | os.PathLike[str], e: int) -> dict[str, Tensor]:
    prefix = f"{e}/"
    with safe_open(Path(path), framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
