"""Open a checkpoint given as a path, a folder, a state dict or a module."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from rankscope.checkpoints.adapters import CONFIG, WEIGHTS, LoraFile, PeftAdapter, is_lora_file
from rankscope.checkpoints.factored import OWN_FILE
from rankscope.checkpoints.files import Shards, open_file
from rankscope.checkpoints.formats.distributed import METADATA, Distributed, is_distributed
from rankscope.checkpoints.formats.groups import Groups, NoSuchGroup
from rankscope.checkpoints.formats.torch_file import TorchFile
from rankscope.checkpoints.other_formats import other_folder
from rankscope.checkpoints.own_adapter import OwnAdapter
from rankscope.checkpoints.source import InMemory, Renamed, Source
from rankscope.errors import InputError
from rankscope.networks.network_file import INITIAL

CheckpointLike = str | os.PathLike[str] | Mapping[str, Any] | nn.Module

IN_FOLDERS = (
    *("*.safetensors.index.json", "*.safetensors", "*.bin.index.json", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.npz"),
    *("*.keras", "*.h5", "*.hdf5", "*.onnx", "*.mat"),
)
"""Files of a folder that are opened, in this order of preference."""

USUAL = ("network", "model", "pytorch_model", "diffusion_pytorch_model")
"""Names that rankscope and Hugging Face give to the file of a model, preferred among several."""


def open_checkpoint(given: CheckpointLike, argument: str = "before", key: str | None = None) -> Source:
    """Open a file, an index of shards, a folder, a state dict or a module.

    The format of a file is recognized by its first bytes; the guide on checkpoints lists all. A folder holds one such
    file, a distributed checkpoint of PyTorch or a LoRA adapter. In messages the checkpoint is called `argument`.

    Parameters
    ----------
    key
        Name of a state dict among several in a file of `torch.save` or a nested dict, such as "state_dict_ema"; with
        dots for one inside another.

    Raises
    ------
    NoSuchGroup
        If there is no state dict of the name `key`.
    InputError
        If it is none of these, or is damaged.
    """
    source = _opened(given, argument, key)
    if (
        key is not None
        and not isinstance(source, (TorchFile, Distributed, LoraFile))
        and not isinstance(given, Mapping)
    ):
        raise NoSuchGroup(f"key must be left out for {source.label}, which has no groups of tensors, got {key!r}")
    return source


def _opened(given: CheckpointLike, argument: str, key: str | None) -> Source:
    if key is not None and isinstance(given, Mapping):
        given = Groups(given, argument).weights(key)
    if isinstance(given, (Mapping, nn.Module)):
        return _of_factors(InMemory(given, argument))
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"{argument} must be a path, a state dict or a module, got {type(given).__name__}")
    path = Path(given)
    if not path.exists():
        raise InputError(f"{argument} must be a checkpoint, got {str(path)!r}, which is not there")
    if path.is_dir():
        adapter = PeftAdapter(path) if (path / CONFIG).is_file() else None
        if (path / OWN_FILE).is_file():
            return OwnAdapter(path, adapter)
        if adapter is not None:
            return adapter
        if is_distributed(path):
            return Distributed(path, key)
        path = _in_folder(path, argument)
    if path.name == METADATA:
        return Distributed(path.parent, key)
    if path.name in (CONFIG, OWN_FILE) or (path.name in WEIGHTS and (path.parent / CONFIG).is_file()):
        return _opened(path.parent, argument, key)
    return Shards(path) if path.name.endswith(".index.json") else _of_factors(open_file(path, key))


def _of_factors(source: Source) -> Source:
    """Return a checkpoint as an adapter if it holds factors only."""
    return LoraFile(source) if is_lora_file(source) else source


def open_two(
    before: CheckpointLike, after: CheckpointLike | None, key: str | None = None
) -> tuple[Source, Source | None]:
    """Open two checkpoints; `key` applies to each that has a state dict of this name, and must apply to one."""
    opened: list[Source] = []
    lacking: list[NoSuchGroup] = []
    for argument, given in (("before", before), ("after", after)):
        if argument == "after" and given is None:
            continue
        try:
            opened.append(open_checkpoint(given, argument, key))  # type: ignore[arg-type]
        except NoSuchGroup as error:
            lacking.append(error)
            try:
                opened.append(open_checkpoint(given, argument))  # type: ignore[arg-type]
            except InputError:
                raise error from None
    if len(lacking) == len(opened):
        raise lacking[-1]
    return opened[0], opened[1] if after is not None else None


def halves(source: Source) -> tuple[Source, Source] | None:
    """Return the network before and after learning of a file written by `save`; None for other checkpoints.

    Weights that do not learn may be in the file only once.
    """
    initial = {name.removeprefix(INITIAL): name for name in source.entries if name.startswith(INITIAL)}
    trained = [name for name in source.entries if not name.startswith(INITIAL)]
    if not initial or not set(initial) <= set(trained):
        return None
    return (
        Renamed(source, initial, f"{source.label}, before learning"),
        Renamed(source, {name: name for name in trained}, source.label),
    )


def _in_folder(folder: Path, argument: str) -> Path:
    for pattern in IN_FOLDERS:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        usual = [path for path in found if path.name.split(".")[0] in USUAL]
        if len(found) == 1 or len(usual) == 1:
            return (usual or found)[0]
        if found:
            names = shortened([file.name for file in found], 4)
            raise InputError(f"{argument} must be one checkpoint, got a folder with {names}; name one of them")
    if what := other_folder(folder):
        raise InputError(f"{folder} is {what}")
    adapters = sorted([*folder.glob(f"*/{CONFIG}"), *folder.glob(f"*/*/{CONFIG}")])
    if len(adapters) == 1:
        return adapters[0]
    if adapters:
        names = shortened([str(file.parent.relative_to(folder)) for file in adapters], 6)
        raise InputError(f"{argument} must be one checkpoint, got a folder with the adapters {names}; name one of them")
    raise InputError(f"{argument} must be a checkpoint, got the folder {str(folder)!r} without {', '.join(IN_FOLDERS)}")


def shortened(names: Sequence[str], count: int) -> str:
    """Return the first names as text, and the number of the others."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
