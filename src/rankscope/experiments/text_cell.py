"""One cell of the experiment on text: a sentiment classifier to train, and what is measured on it.

Beside the curves of the training there are the accuracy and loss on the validation sentences when the change of all
inner weight matrices at once, or the trained matrices themselves, are truncated to each rank; and the singular values
of every inner matrix before, after, and of the change, whole and gate by gate. (paper section 4, `sentiment`)
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from rankscope.errors import InputError
from rankscope.experiments.cell import provenance
from rankscope.lowrank import TruncationCurve, functional_rank, truncation_curve
from rankscope.networks.text import GATES, TextClassifier
from rankscope.sweep.processes import Report
from rankscope.tasks.sentiment import SentimentData, load_data
from rankscope.tasks.sentiment.batches import in_order
from rankscope.tasks.sentiment.data import FORMAT, SETS, fingerprint_of
from rankscope.training.text import EVALUATION_BATCH, evaluate, train_classifier
from rankscope.validation import choice, integer

TOLERANCE = 0.01
"""How much accuracy a truncation may cost, for its rank to be enough."""

WORDS = {"snippets": (186_000, 21_700), "treebank": (133_000, 17_000)}
"""About how many words there are to train and to validate on."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TextCell:
    """What to train.

    Attributes
    ----------
    data
        A prepared set, "snippets" or "treebank".
    cell, layers, hidden_size
        The network: "rnn", "gru" or "lstm", how many layers, and N.
    epochs
        Passes over the data.
    ranks
        To truncate to, increasing.
    seed
        Everything random is derived from it.
    sample
        Which of several networks of the same kind this is; a label.
    dropout, vector_dropout
        Probabilities, as in `TextClassifier`.
    training
        Further options of `train_classifier`.
    fingerprint
        Of the data, where it is the user's own.

    Raises
    ------
    InputError
        If the set or the kind of cell is not known.
    """

    data: str = "snippets"
    cell: str = "lstm"
    layers: int = 2
    hidden_size: int = 256
    epochs: int = 500
    ranks: tuple[int, ...] = tuple(range(256))
    seed: int = 0
    sample: int = 0
    dropout: float = 0.5
    vector_dropout: float = 0.0
    training: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    def __post_init__(self) -> None:
        choice("data", self.data, SETS)
        choice("cell", self.cell, GATES)

    def describe(self) -> dict[str, Any]:
        """Return the cell as plain values."""
        names = (
            *("data", "cell", "layers", "hidden_size", "epochs", "seed", "sample", "dropout", "training"),
            "fingerprint",
            # Only where it says something: runs from before there was a choice keep their digests.
            *(("vector_dropout",) if self.vector_dropout else ()),
        )
        return {
            "task": "sentiment",
            "data_format": FORMAT,
            "ranks": list(self.ranks),
            **{name: getattr(self, name) for name in names},
        }

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that two cells share only if they describe the same work."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def steps(self) -> int:
        """Steps in all of the training of which each has a fixed cost: those of the layers over batches."""
        return self.layers * self.epochs * sum(WORDS[self.data]) // int(self.training.get("batch_size", 64))

    @property
    def work(self) -> float:
        """About how many multiplications the cell takes."""
        N = self.hidden_size
        each = len(GATES[self.cell]) * N * (50 + N + (self.layers - 1) * 2 * N)
        train, validation = WORDS[self.data]
        return float(each * (self.epochs * (3 * train + validation) + 2 * len(self.ranks) * validation))

    def check(self) -> None:
        """Find out whether the cell can be run here.

        Raises
        ------
        InputError
            If the data has not been prepared, or is another than when the cell was made.
        """
        self._load()

    def measure(self, report: Report, checkpoint: str | os.PathLike[str] | None = None) -> xr.Dataset:
        """Train the network and return everything measured, going on from its checkpoint if it has one."""
        return run_text(self, report, checkpoint)

    def _load(self) -> SentimentData:
        data = load_data(self.data)
        if self.fingerprint not in ("", data.fingerprint):
            raise InputError(
                f"data {self.data!r} must have the fingerprint {self.fingerprint}, got {data.fingerprint}: it was "
                "prepared anew; start the run again"
            )
        return data


def run_text(
    cell: TextCell, progress: Report | None = None, checkpoint: str | os.PathLike[str] | None = None
) -> xr.Dataset:
    """Train the classifier of `cell` and measure what learning wrote into it.

    Parameters
    ----------
    progress, checkpoint
        As in `train_classifier`.

    Raises
    ------
    InputError
        If the data is not there, or the cell cannot be trained as described.
    """
    data = cell._load()
    weights_seed, training_seed = np.random.SeedSequence(integer("seed", cell.seed, minimum=0)).generate_state(2)
    network = TextClassifier(
        data.vectors,
        cell.hidden_size,
        cell.cell,
        cell.layers,
        cell.dropout,
        cell.vector_dropout,
        rng=int(weights_seed),
    )
    held_out = in_order(data.validation, EVALUATION_BATCH)
    initial_loss, initial_accuracy = evaluate(network, held_out)
    start = copy.deepcopy(network)
    before = _state(network)
    history = train_classifier(
        network, data, cell.epochs, int(training_seed), progress=progress, checkpoint=checkpoint, **cell.training
    )
    after = _state(network)
    inner = list(network.inner_weights())
    W0, W = ([state[f"layers.{name}"].double().numpy() for name in inner] for state in (before, after))
    loss, accuracy = evaluate(network, held_out)
    curves = _truncations(start, network, cell.ranks, held_out)
    enough = {
        kind: _first_enough(curves["truncation_accuracy"].sel(truncated=kind), accuracy)
        for kind in ("change", "trained")
    }
    scalars = {
        "initial_loss": (initial_loss, "cross-entropy on the validation sentences before learning"),
        "initial_accuracy": (initial_accuracy, "accuracy on the validation sentences before learning"),
        "evaluation_loss": (loss, "cross-entropy on the validation sentences after learning"),
        "accuracy": (accuracy, "accuracy on the validation sentences after learning"),
        "functional_rank": (
            enough["change"],
            "smallest rank of the truncated change from which on the accuracy is at most 0.01 lower",
        ),
        "functional_rank_trained": (
            enough["trained"],
            "smallest rank of the truncated weights from which on the accuracy is at most 0.01 lower",
        ),
        "change_norm": (_norm(a - b for a, b in zip(W, W0, strict=True)), "Frobenius norm of the change"),
        "trained_norm": (_norm(W), "Frobenius norm of the inner weights after learning"),
        "coverage": (data.coverage, "fraction of the words that have a vector"),
    }
    measured = xr.Dataset({name: ((), value, {"long_name": text}) for name, (value, text) in scalars.items()})
    parts = [
        measured,
        history.to_dataset(),
        curves,
        _singular_values(inner, W0, W, network.gates),
        _parameters(before, after),
    ]
    together = xr.merge(parts, join="exact", combine_attrs="drop_conflicts")
    together.attrs |= provenance(cell) | {"data": json.dumps(data.summary())}
    labels = {"task": "sentiment", "data": cell.data, "cell_type": cell.cell, "layers": cell.layers}
    labels |= {"hidden_size": cell.hidden_size, "sample": cell.sample, "seed": cell.seed}
    return together.assign_coords(labels)


def own_fingerprint(data: str) -> str:
    """Return what the cells of a set have as `fingerprint`: nothing for the public set, which is the same for all."""
    return "" if data == "snippets" else fingerprint_of(data)


def state_dicts(network: xr.Dataset) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights before and after learning, by torch's names, of one network of a run.

    Parameters
    ----------
    network
        What `run_text` returned, or `open_run` for a run of one network.
    """
    weights = []
    for name in ("initial_weights", "trained_weights"):
        shapes = json.loads(network[name].attrs["shapes"])
        flat = torch.tensor(network[name].values, dtype=torch.float32)
        pieces = torch.split(flat, [int(np.prod(shape)) for shape in shapes.values()])
        weights.append({key: piece.reshape(shape) for (key, shape), piece in zip(shapes.items(), pieces, strict=True)})
    return weights[0], weights[1]


def _truncations(before: TextClassifier, after: TextClassifier, ranks: Iterable[int], held_out: Any) -> xr.Dataset:
    """Return accuracy and loss over `truncated` and `rank`."""
    ranks = list(ranks)
    names = [f"layers.{name}" for name in after.inner_weights()]
    found: list[tuple[float, float]] = []

    def accuracy(network: Any) -> float:
        found.append(evaluate(network, held_out))
        return found[-1][1]

    for kind in ("change", "weights"):
        truncation_curve(before, after, ranks=ranks, score=accuracy, matrices=names, truncate=kind)
        found.pop()  # with nothing truncated
    losses, accuracies = np.array(found).reshape(2, len(ranks), 2).transpose(2, 0, 1)
    dims = ("truncated", "rank")
    return xr.Dataset(
        {
            "truncation_loss": (dims, losses, {"long_name": "cross-entropy with all inner weights truncated"}),
            "truncation_accuracy": (dims, accuracies, {"long_name": "accuracy with all inner weights truncated"}),
        },
        {"truncated": ["change", "trained"], "rank": ranks},
    )


def _first_enough(curve: xr.DataArray, accuracy: float) -> float:
    """Return the smallest rank from which on the accuracy stays within 0.01; NaN if the last is not."""
    ranks = [int(rank) for rank in curve["rank"]]
    rank = functional_rank(TruncationCurve(ranks, curve.values, accuracy, higher_is_better=True), "accuracy")
    return float("nan") if rank is None else float(rank)


def _singular_values(inner: list[str], W0: list[Array], W: list[Array], gates: tuple[str, ...]) -> xr.Dataset:
    stacked = np.array([[b, a - b, a] for b, a in zip(W0, W, strict=True)])  # (weight, matrix, gates N, N)
    by_gate = stacked.reshape(*stacked.shape[:2], len(gates), -1, stacked.shape[-1])
    return xr.Dataset(
        {
            "singular_value": (
                ("weight", "matrix", "singular_index"),
                np.linalg.svdvals(stacked),
                {"long_name": "singular value"},
            ),
            "gate_singular_value": (
                ("weight", "matrix", "gate", "singular_index"),
                np.linalg.svdvals(by_gate),
                {"long_name": "singular value of the part of a gate"},
            ),
        },
        {
            "weight": inner,
            "matrix": ["initial", "change", "trained"],
            "gate": list(gates),
            "singular_index": np.arange(1, stacked.shape[-1] + 1),
        },
    )


def _state(network: TextClassifier) -> dict[str, Tensor]:
    """Return a copy of all that learns."""
    return {name: w.detach().clone() for name, w in network.named_parameters() if w.requires_grad}


def _parameters(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> xr.Dataset:
    shapes = json.dumps({name: list(weights.shape) for name, weights in before.items()})
    flat = {
        f"{when}_weights": (
            "parameter",
            torch.cat([weights.ravel() for weights in state.values()]).numpy(),
            {"long_name": f"weights {when}, one after the other", "shapes": shapes},
        )
        for when, state in (("initial", before), ("trained", after))
    }
    return xr.Dataset(flat)


def _norm(matrices: Iterable[Array]) -> float:
    return float(np.sqrt(sum(np.square(matrix).sum() for matrix in matrices)))
