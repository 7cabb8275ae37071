"""Load a checkpoint of any format into a copy of a model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from rankscope.checkpoints.adapters import Adapter
from rankscope.checkpoints.names import match
from rankscope.checkpoints.opening import CheckpointLike, halves, open_checkpoint
from rankscope.checkpoints.pieces import effective
from rankscope.checkpoints.source import Source, Unreadable, entry_of
from rankscope.errors import InputError


@torch.no_grad()
def load_weights(model: nn.Module, checkpoint: CheckpointLike) -> nn.Module:
    """Return a copy of a model with the weights of a checkpoint; names are matched as in `compare`.

    Parameters
    ----------
    model
        The model; it is not changed. Weights that the checkpoint does not have are copied.
    checkpoint
        A path, a state dict or a module, as in `compare`. A LoRA adapter is added to the weights of `model`. Of a file
        with a network before and after learning, the one after is loaded.

    Raises
    ------
    InputError
        If the weights do not fit the model, or one of them cannot be read.
    """
    source = open_checkpoint(checkpoint, "checkpoint")
    both = halves(source)
    source = both[1] if both else source
    loaded = copy.deepcopy(model)
    own = dict(loaded.named_parameters(remove_duplicate=False)) | dict(loaded.named_buffers(remove_duplicate=False))
    if not isinstance(source, Adapter):
        # A model that holds codes or pieces itself is loaded with them.
        weights = effective(source)
        source = source if own.keys() & (source.entries.keys() - weights.entries.keys()) else weights
    if isinstance(source, Adapter):
        source.resolve({name: entry_of(tensor) for name, tensor in own.items()})
        if source.skipped:
            name, reason = next(iter(source.skipped.items()))
            raise InputError(f"checkpoint must be an adapter that can be added to weights, but {name!r}: {reason}")
    matched = match(own, source.entries).pairs
    pairs = [(mine, theirs) for mine, theirs in matched if mine is not None and theirs is not None]
    if not pairs:
        raise InputError("checkpoint must have the weights of model, got none of their names in it")
    if isinstance(source, Adapter):
        wrong = {theirs: "model has no such weight" for mine, theirs in matched if mine is None and theirs is not None}
        wrong |= source.fit({theirs: tuple(own[mine].shape) for mine, theirs in pairs})
        if wrong:
            name, reason = next(iter(wrong.items()))
            raise InputError(f"checkpoint must be an adapter that can be added to weights, but {name!r}: {reason}")
    for mine, theirs in pairs:
        if isinstance(source, Adapter) and source.is_update(theirs):
            own[mine].copy_(_adapted(source, theirs, own[mine]))
            continue
        shape = source.entries[theirs].shape
        if shape != tuple(own[mine].shape):
            raise InputError(
                f"checkpoint must have the shapes of model, got {shape} for {mine!r}, which is "
                f"{tuple(own[mine].shape)} there"
            )
        own[mine].copy_(_weight(source, theirs))
    source.release()
    return loaded


def _adapted(source: Adapter, name: str, own: Tensor) -> Tensor:
    try:
        return source.changed(name, own.cpu())
    except Unreadable as error:
        raise InputError(
            f"checkpoint must be an adapter that can be added to weights, but {name!r}: {error}"
        ) from error


def _weight(source: Source, name: str) -> Tensor:
    dtype = source.entries[name].dtype
    if isinstance(dtype, str):
        raise InputError(f"checkpoint must have weights that can be read, but {name!r}: {dtype}")
    try:
        return source.tensor(name)
    except Unreadable as error:
        raise InputError(f"checkpoint must have weights that can be read, but {name!r}: {error}") from error
