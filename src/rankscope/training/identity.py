"""What a state file remembers of the user's own network, loss and data, so that it continues no other training."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import torch

from rankscope.tasks.trials import Trials
from rankscope.training.config import TrainingConfig
from rankscope.training.loss import LOSSES, Loss
from rankscope.user_code import describe_user_code

OURS = ("rankscope.", "torch.")


def identities(network: Any, task: Any, config: TrainingConfig, loss: Loss) -> dict[str, str]:
    """Return hashes of the source of a network class and of a loss, and of the content of trials in a list."""
    own = config.loss if callable(config.loss) else getattr(task, "loss", None) if config.loss is None else None
    found = {"source of the loss": _source(own) if callable(own) and loss not in LOSSES.values() else ""}
    ours = type(network).__module__.startswith(OURS)
    found["source of the network"] = "" if ours else _source(type(network))
    in_memory = isinstance(task, Sequence) and all(isinstance(trials, Trials) for trials in task)
    found["content of the trials"] = _content(task) if in_memory else ""
    return found


def _source(named: Any) -> str:
    """Return a hash of the source, "" where there is none."""
    if not isinstance(named, Hashable):
        named = type(named)
    return describe_user_code(named)["source"]


def _content(batches: Sequence[Trials]) -> str:
    digest = hashlib.sha256()
    for trials in batches:
        for tensor in (trials.inputs, trials.targets, trials.mask, trials.lengths):
            if tensor is not None:
                whole = tensor.detach().cpu().contiguous()
                digest.update(f"{whole.dtype} {tuple(whole.shape)}".encode())
                digest.update(whole.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
