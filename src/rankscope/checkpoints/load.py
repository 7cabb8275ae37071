"""Load a checkpoint of any format into a copy of a model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from rankscope.checkpoints.adapter import Adapter, spread
from rankscope.checkpoints.names import match
from rankscope.checkpoints.opening import CheckpointLike, halves, open_checkpoint
from rankscope.checkpoints.pieces import effective
from rankscope.checkpoints.source import Source, Unreadable
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
    if isinstance(source, Adapter) and source.skipped:
        name, reason = next(iter(source.skipped.items()))
        raise InputError(f"checkpoint must be an adapter that can be added to weights, but {name!r}: {reason}")
    loaded = copy.deepcopy(model)
    own = dict(loaded.named_parameters(remove_duplicate=False)) | dict(loaded.named_buffers(remove_duplicate=False))
    if not isinstance(source, Adapter):
        # A model that holds codes or pieces itself is loaded with them.
        weights = effective(source)
        source = source if own.keys() & (source.entries.keys() - weights.entries.keys()) else weights
    pairs = [
        (mine, theirs) for mine, theirs in match(own, source.entries).pairs if mine is not None and theirs is not None
    ]
    if not pairs:
        raise InputError("checkpoint must have the weights of model, got none of their names in it")
    for mine, theirs in pairs:
        shape = source.entries[theirs].shape
        if shape != tuple(own[mine].shape):
            raise InputError(
                f"checkpoint must have the shapes of model, got {shape} for {mine!r}, which is "
                f"{tuple(own[mine].shape)} there"
            )
        own[mine].copy_(_weight(source, theirs, own[mine]))
    source.release()
    return loaded


def _weight(source: Source, name: str, own: Tensor) -> Tensor:
    dtype = source.entries[name].dtype
    if isinstance(dtype, str):
        raise InputError(f"checkpoint must have weights that can be read, but {name!r}: {dtype}")
    try:
        if isinstance(source, Adapter) and name not in source.replaced:
            return own.double() + spread(source.factors(name), tuple(own.shape)).to(own.device)
        return source.tensor(name)
    except Unreadable as error:
        raise InputError(f"checkpoint must have weights that can be read, but {name!r}: {error}") from error
