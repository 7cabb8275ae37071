"""Schuessler et al. 2020, Fig. 5: an LSTM that learns the sentiment of film reviews changes in few directions, too.

Two layers of 256 units on fixed word vectors. The change of all inner weight matrices together is truncated to each
rank, and so are the weights themselves. A change of about ten directions is nearly as good as all of it, but the
weights need more than half of theirs. `rankscope data sentiment` fetches the data.

At ten times the paper's learning rate (preset "memorizing") the network learns its sentences by heart.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import xarray as xr

from rankscope.experiments.base import Experiment, seed_of
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding
from rankscope.sweep import Job

SIZE = 256
EPOCHS = 500
LEARNING_RATE = 0.001 / SIZE
FAST_RATE = 0.01 / SIZE  # ten times the paper's: ten passes do what a hundred do, and 500 learn the sentences by heart
QUICK_EPOCHS = 12
KEPT = (30, 60, 125, 250)
RECURRENT = "weight_hh_l1"
INNER = ("*weight_hh_l*", "*weight_ih_l1")
"""The weights among hidden units: of each layer to itself and to the next."""
MEASURED = ("learning", "norms", "evaluation", "accuracy_truncation", "gate_spectra")
TOLERANCE = 0.01  # loss of accuracy that a truncation may cause
BY_EYE = 0.1  # relative accuracy of numbers read off the paper's figures
FEW, MANY = 10, 128
PAPER_ACCURACY, LOWEST_ACCURACY = 0.79, 0.75
PAPER_LARGEST, SMALL = 3.5, 0.5
PAPER_END = 0.37
PAPER_BATCHES, BATCHES = 109, 134  # in a pass over the paper's training sentences, and over the public set
PAPER_LOSSES = {40: 0.6, 100: 0.55}  # pass -> training loss


def sentiment_jobs(
    samples: int = 1,
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    data: str = "snippets",
    kind: str = "lstm",
    kept: tuple[int, ...] = KEPT,
) -> list[Job]:
    """Return the jobs of a preset."""
    return [
        Job(
            task={"name": "sentiment", "data": data},
            network={"kind": kind, "hidden_size": SIZE, "num_layers": 2, "readout": "last", "dropout": 0.5},
            training={
                "epochs": epochs,
                "batch_size": 64,
                "learning_rate": learning_rate,
                "recorded_epochs": 0,
                "matrices": INNER,
                "kept_epochs": kept,
            },
            measurements=(*MEASURED, *(["accuracy_along"] if kept else [])),
            seed=seed_of("sentiment", sample),
            labels={"sample": sample, "data": data},
        )
        for sample in range(samples)
    ]


def claim_of_networks(
    name: str, statement: str, paper: str, *needed: str
) -> Callable[[Callable[[list[xr.Dataset]], Finding]], Claim]:
    """Return a decorator that makes a claim on a run from a check of its networks that did not diverge."""

    def claim_of(check: Callable[[list[xr.Dataset]], Finding]) -> Claim:
        return Claim(name, statement, paper, lambda dataset: of_run(dataset, check))

    def of_run(dataset: xr.Dataset, check: Callable[[list[xr.Dataset]], Finding]) -> Finding:
        if not {"status", "accuracy", *needed} <= set(dataset.variables):
            return NOT_IN_THIS_RUN
        dims = dataset["status"].dims
        places = itertools.product(*(range(dataset.sizes[dim]) for dim in dims))
        networks = [dataset[[*needed, "status", "accuracy"]].isel(dict(zip(dims, at, strict=True))) for at in places]
        there = [network for network in networks if network["status"].item() == "finished"]
        try:
            return check(there) if there else NOT_IN_THIS_RUN
        except KeyError:  # networks with fewer units or layers have no such rank or weight
            return NOT_IN_THIS_RUN

    return claim_of


@claim_of_networks(
    "training loss",
    f"after {EPOCHS} passes about {PAPER_END} (within 10 %)",
    f"about {PAPER_END}",
    "loss",
)
def _training_loss(networks: list[xr.Dataset]) -> Finding:
    found = [float(network["loss"][EPOCHS - 1]) for network in networks if network.sizes["epoch"] >= EPOCHS]
    if not found:
        return NOT_IN_THIS_RUN
    return Finding(_listed(found), bool(abs(np.mean(found) / PAPER_END - 1) <= BY_EYE))


@claim_of_networks(
    "course of the loss",
    "training loss after as many batches as the paper's " + " and ".join(map(str, PAPER_LOSSES)) + " passes (10 %)",
    " and ".join(map(str, PAPER_LOSSES.values())),
    "loss",
)
def _course(networks: list[xr.Dataset]) -> Finding:
    passes = {round(epoch * PAPER_BATCHES / BATCHES): loss for epoch, loss in PAPER_LOSSES.items()}
    there = [network["loss"].values for network in networks if network.sizes["epoch"] >= EPOCHS]
    if not there:
        return NOT_IN_THIS_RUN
    found = {at: float(np.mean([loss[at - 1] for loss in there])) for at in passes}
    text = ", ".join(f"{loss:.3g} after {at} passes" for at, loss in found.items())
    return Finding(text, all(abs(found[at] / passes[at] - 1) <= BY_EYE for at in passes))


@claim_of_networks(
    "accuracy",
    f"validation accuracy at the end (at least {LOWEST_ACCURACY}: word vectors of 50 numbers say less)",
    f"about {PAPER_ACCURACY}",
)
def _accuracy(networks: list[xr.Dataset]) -> Finding:
    found = [float(network["accuracy"]) for network in networks]
    return Finding(_listed(found), bool(np.mean(found) >= LOWEST_ACCURACY))


@claim_of_networks(
    "the change is of low rank",
    f"dW of all inner weights truncated to rank {FEW} is within 1 % of the full accuracy",
    "about 10",
    "truncation_accuracy",
    "functional_rank",
)
def _change_is_low_rank(networks: list[xr.Dataset]) -> Finding:
    lost = [_lost(network, "change", FEW) for network in networks]
    ranks = [float(network["functional_rank"]) for network in networks]
    text = f"loses {_listed([100 * x for x in lost])} % at rank {FEW}; within 1 % from rank {_listed(ranks)} on"
    return Finding(text, bool(np.mean(lost) <= TOLERANCE + 1e-9))


@claim_of_networks(
    "the weights are not",
    f"W truncated needs a rank above {MANY} for the same",
    f"more than {MANY}",
    "truncation_accuracy",
    "functional_rank_trained",
)
def _weights_are_not(networks: list[xr.Dataset]) -> Finding:
    lost = [_lost(network, "trained", MANY) for network in networks]
    ranks = [float(network["functional_rank_trained"]) for network in networks]
    text = f"loses {_listed([100 * x for x in lost])} % at rank {MANY}; within 1 % from rank {_listed(ranks)} on"
    return Finding(text, not bool(np.any(np.array(ranks) <= MANY)))


@claim_of_networks(
    "largest singular value",
    f"of dW, recurrent weights of the second layer: about {PAPER_LARGEST} (within 10 %)",
    f"about {PAPER_LARGEST}",
    "singular_value",
)
def _largest(networks: list[xr.Dataset]) -> Finding:
    found = [float(_change(network)[0]) for network in networks]
    return Finding(_listed(found), bool(abs(np.mean(found) / PAPER_LARGEST - 1) <= BY_EYE))


@claim_of_networks(
    "singular values fall", f"they are below {SMALL} within {FEW} ranks", f"within {FEW}", "singular_value"
)
def _fall(networks: list[xr.Dataset]) -> Finding:
    found = [int((_change(network) >= SMALL).sum()) for network in networks]
    return Finding(f"{_listed(found)} of them are not below {SMALL}", bool(np.mean(found) < FEW))


def _lost(network: xr.Dataset, truncated: str, rank: int) -> float:
    return float(network["accuracy"] - network["truncation_accuracy"].sel(truncated=truncated, rank=rank))


def _change(network: xr.Dataset) -> xr.DataArray:
    return network["singular_value"].sel(weight=RECURRENT, matrix="change")


def _listed(found: list[float] | list[int]) -> str:
    return ", ".join(f"{value:.3g}" for value in found)


SENTIMENT = Experiment(
    name="sentiment",
    description="LSTM, sentiment of film reviews: truncated change and weights (paper Fig. 5)",
    presets={
        "quick": lambda: sentiment_jobs(epochs=QUICK_EPOCHS, learning_rate=FAST_RATE, kept=()),
        "paper": lambda: sentiment_jobs(samples=3),
        "memorizing": lambda: sentiment_jobs(learning_rate=FAST_RATE),
        "gru": lambda: sentiment_jobs(kind="gru"),
        "rnn": lambda: sentiment_jobs(kind="rnn"),
        "treebank": lambda: sentiment_jobs(data="treebank"),
    },
    claims=(_training_loss, _course, _accuracy, _change_is_low_rank, _weights_are_not, _largest, _fall),
)
