"""Training a classifier of sentences: passes over all of them in batches of similar length, with Adam.

One *epoch* here is one pass over the data. What is random in an epoch, the batches and the dropout, follows from the
seed and the number of the epoch, so that a training stopped between two epochs goes on bit for bit. (paper section 4,
`sentiment`: learning rate 0.01/N, batches of 64)
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rankscope.errors import InputError
from rankscope.io.atomic import replacing
from rankscope.linalg.threads import threads_for
from rankscope.networks.text import TextClassifier
from rankscope.tasks.sentiment.batches import Batch, in_order, pack, similar_lengths
from rankscope.tasks.sentiment.data import SentimentData
from rankscope.training.fit import LARGEST_STEP
from rankscope.training.state_checks import check_optimizer, check_tensor, check_weights, read_metadata
from rankscope.validation import integer, number

Progress = Callable[[int, int, float], None]

FORMAT = "rankscope.text-training.v1"
EVALUATION_BATCH = 64
"""Sentences evaluated at once: more do not stay in the cache."""


@dataclass
class TextHistory:
    """The record of one training.

    Attributes
    ----------
    losses, gradient_norms
        Of each epoch: the mean cross-entropy of its batches, with dropout, as they came; the mean gradient norm.
    validation_losses, validation_accuracies
        After each epoch, without dropout.
    status
        "finished", or "diverged": a loss or gradient was not finite, and the epoch ended there, before its update.
    learning_rate
        Of Adam.
    seconds
        Wall time spent training, over all continuations.
    """

    learning_rate: float
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    validation_accuracies: list[float] = field(default_factory=list)
    status: str = ""
    seconds: float = 0.0

    def to_dataset(self) -> xr.Dataset:
        """Return the record as a Dataset over `epoch`."""
        along = {
            "loss": "cross-entropy in training, with dropout",
            "gradient_norm": "gradient norm",
            "validation_loss": "cross-entropy on the validation sentences",
            "validation_accuracy": "accuracy on the validation sentences",
        }
        rows = (self.losses, self.gradient_norms, self.validation_losses, self.validation_accuracies)
        curves = {
            name: ("epoch", np.array(row, np.float64), {"long_name": text})
            for (name, text), row in zip(along.items(), rows, strict=True)
        }
        scalars = {
            "learning_rate": ((), self.learning_rate, {"long_name": "learning rate"}),
            "status": ((), self.status, {"long_name": "how the training ended"}),
        }
        attributes = {"training_seconds": self.seconds}
        return xr.Dataset({**curves, **scalars}, {"epoch": np.arange(len(self.losses))}, attributes)


def train_classifier(
    network: TextClassifier,
    data: SentimentData,
    epochs: int = 500,
    seed: int = 0,
    *,
    batch_size: int = 64,
    learning_rate: float | None = None,
    progress: Progress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
) -> TextHistory:
    """Train `network` in place and return what happened.

    Parameters
    ----------
    epochs
        Passes over the training sentences.
    seed
        The batches and the dropout follow from it.
    learning_rate
        Of Adam; 0.01 / N by default.
    progress
        Called after every epoch with (epochs done, epochs in all, loss).
    checkpoint
        A file. If it is there, the training goes on from it, bit for bit; it is written every `checkpoint_seconds`,
        between epochs, and at the end.

    Returns
    -------
    TextHistory
        A divergence ends the training and is recorded there; nothing is raised.

    Raises
    ------
    InputError
        For anything out of range, or a checkpoint of another training.
    """
    total = integer("epochs", epochs, minimum=1)
    rate = 0.01 / network.hidden_size if learning_rate is None else number("learning_rate", learning_rate, above=0)
    settings = {
        "seed": integer("seed", seed, minimum=0),
        "batch_size": integer("batch_size", batch_size, minimum=1),
        "learning_rate": rate,
        "dropout": network.dropout.p,
        **({"vector_dropout": network.vector_dropout.p} if network.vector_dropout.p else {}),
        "data": data.fingerprint,
        "cell": network.cell,
        "weights": {name: list(weights.shape) for name, weights in _learning(network).items()},
    }
    optimizer = torch.optim.Adam(_learning(network).values(), lr=rate, fused=True)
    history = TextHistory(rate)
    if checkpoint is not None and Path(checkpoint).exists():
        _restore(Path(checkpoint), network, optimizer, history, settings, total)
    held_out = in_order(data.validation, EVALUATION_BATCH)
    began = last_saved = time.perf_counter()
    before = history.seconds
    with threads_for(network.hidden_size):
        while history.status != "diverged" and len(history.losses) < total:
            diverged = _epoch(network, optimizer, data, history, settings)
            loss, accuracy = evaluate(network, held_out)
            history.validation_losses.append(loss)
            history.validation_accuracies.append(accuracy)
            history.status = "diverged" if diverged else "finished"
            now = time.perf_counter()
            history.seconds = before + now - began
            ends = diverged or len(history.losses) == total
            if checkpoint is not None and (ends or now - last_saved >= checkpoint_seconds):
                _save(Path(checkpoint), network, optimizer, history, settings)
                last_saved = now
            if progress is not None:
                progress(len(history.losses), total, history.losses[-1])
    return history


@torch.no_grad()
def evaluate(network: TextClassifier, batches: Sequence[Batch]) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy on all sentences of `batches`, without dropout."""
    was_training = network.training
    network.eval()
    outputs = torch.cat([network(batch.words) for batch in batches]).double()
    network.train(was_training)
    labels = torch.cat([batch.labels for batch in batches]).double()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs, labels)
    return float(loss), float(((outputs > 0) == (labels > 0.5)).double().mean())


def _epoch(
    network: TextClassifier,
    optimizer: torch.optim.Optimizer,
    data: SentimentData,
    history: TextHistory,
    settings: dict[str, Any],
) -> bool:
    """Do one pass, append to `history`, and return whether the training has diverged."""
    rng = np.random.default_rng((settings["seed"], len(history.losses)))
    losses, norms, sentences = [], [], []
    network.train()
    diverged = False
    # torch's layers draw their dropout from its global generator, which is left as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        for indices in similar_lengths(data.train.lengths, settings["batch_size"], rng):
            batch = pack(data.train, indices)
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(batch.words), batch.labels)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.get_total_norm(
                [p.grad for p in optimizer.param_groups[0]["params"] if p.grad is not None]
            )
            losses.append(float(loss.detach()))
            norms.append(float(norm))
            sentences.append(len(indices))
            diverged = not (math.isfinite(losses[-1] + norms[-1]) and settings["learning_rate"] < LARGEST_STEP)
            if diverged:
                break
            optimizer.step()
    history.losses.append(float(np.average(losses, weights=sentences)))
    history.gradient_norms.append(float(np.mean(norms)))
    return diverged


def _learning(network: TextClassifier) -> dict[str, torch.nn.Parameter]:
    return {name: weights for name, weights in network.named_parameters() if weights.requires_grad}


_CURVES = ("losses", "gradient_norms", "validation_losses", "validation_accuracies")


def _save(
    path: Path,
    network: TextClassifier,
    optimizer: torch.optim.Optimizer,
    history: TextHistory,
    settings: dict[str, Any],
) -> None:
    tensors: dict[str, Tensor] = {f"network.{name}": w.detach() for name, w in _learning(network).items()}
    for index, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in entries.items()}
    tensors |= {name: torch.tensor(getattr(history, name), dtype=torch.float64) for name in _CURVES}
    metadata = {
        "format": FORMAT,
        "settings": json.dumps(settings),
        "seconds": repr(history.seconds),
        "status": history.status,
    }
    with replacing(path) as temporary:
        save_file({name: x.contiguous() for name, x in tensors.items()}, temporary, metadata=metadata)


def _restore(
    path: Path,
    network: TextClassifier,
    optimizer: torch.optim.Optimizer,
    history: TextHistory,
    settings: dict[str, Any],
    total: int,
) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"checkpoint {path} is not a readable safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"checkpoint {path} is not one of a text training: its metadata lacks format = {FORMAT!r}")
    known = read_metadata(path, {"epoch": "0", "rng": "{}", **metadata})
    for name, value in settings.items():
        if known.settings.get(name) != value:
            raise InputError(
                f"checkpoint {path} belongs to a training with {name} = {known.settings.get(name)!r:.200}, "
                f"not {value!r}; remove it or name another"
            )
    epochs = len(tensors["losses"]) if "losses" in tensors and tensors["losses"].ndim else 0
    learning = _learning(network)
    check_weights(path, tensors, learning)
    check_optimizer(path, tensors, list(learning.values()), "adam")
    for name in _CURVES:
        check_tensor(path, tensors, name, (epochs,), torch.float64)
    if epochs > total:
        raise InputError(f"epochs must be >= {epochs}, which checkpoint {path} has, got {total}")
    with torch.no_grad():
        for name, weights in _learning(network).items():
            weights.copy_(tensors[f"network.{name}"])
    layout = optimizer.state_dict()
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, entry = name.split(".")
            layout["state"].setdefault(int(index), {})[entry] = value
    optimizer.load_state_dict(layout)
    for name in _CURVES:
        setattr(history, name, tensors[name].tolist())
    history.seconds, history.status = known.seconds, known.status
