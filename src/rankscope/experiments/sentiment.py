"""Schuessler et al. 2020, Fig. 5: an LSTM that learns the sentiment of film reviews changes in few directions, too.

Two layers of 256 units on fixed word vectors. The change of all inner weight matrices together is truncated to each
rank, and so are the weights themselves. A change of about ten directions is nearly as good as all of it, but the
weights need more than half of theirs. `rankscope data sentiment` fetches the data.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from rankscope.experiments.base import Experiment, seed_of
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding
from rankscope.sweep import Job

EPOCHS, QUICK_EPOCHS = 500, 40
SIZE = 256
LEARNING_RATE = 0.01 / SIZE
RECURRENT = "weight_hh_l1"
INNER = ("*weight_hh_l*", "*weight_ih_l1")
"""The weights among hidden units: of each layer to itself and to the next."""
MEASURED = ("learning", "norms", "evaluation", "accuracy_truncation", "gate_spectra")
TOLERANCE = 0.01  # loss of accuracy that a truncation may cause
BY_EYE = 0.1  # accuracy of numbers read off the paper's figures
FEW, MANY = 10, 128
PAPER_ACCURACY, LOWEST_ACCURACY = 0.79, 0.75
PAPER_LARGEST, SMALL = 3.5, 0.5


def sentiment_jobs(epochs: int = EPOCHS, data: str = "snippets", **network: Any) -> list[Job]:
    """Return the single job of a preset."""
    return [
        Job(
            task={"name": "sentiment", "data": data},
            network={
                "kind": "lstm",
                "hidden_size": SIZE,
                "num_layers": 2,
                "readout": "last",
                "dropout": 0.5,
                **network,
            },
            training={
                "epochs": epochs,
                "batch_size": 64,
                "learning_rate": LEARNING_RATE,
                "recorded_epochs": 0,
                "matrices": INNER,
            },
            measurements=MEASURED,
            seed=seed_of("sentiment", 0),
            labels={"sample": 0, "data": data},
        )
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
        "quick": lambda: sentiment_jobs(QUICK_EPOCHS),
        "paper": sentiment_jobs,
        # Dropout of the word vectors delays overfitting, which 500 passes over a small data set lead to.
        "more-dropout": lambda: sentiment_jobs(input_dropout=0.5),
        "treebank": lambda: sentiment_jobs(data="treebank"),
    },
    claims=(_accuracy, _change_is_low_rank, _weights_are_not, _largest, _fall),
)
