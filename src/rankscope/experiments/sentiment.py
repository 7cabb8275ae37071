"""Paper Fig. 5 and supplement: an LSTM that learns the sentiment of film reviews changes in few directions, too.

Two layers of 256 units on fixed word vectors. The change of all inner weight matrices at once is truncated to every
rank, and so are the weights themselves: a change of about ten directions does nearly as well as all of it, while the
weights, nearly as random as they began, need more than half of theirs. The data is real, and is fetched by
`rankscope data sentiment`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import xarray as xr

from rankscope.experiments.base import Experiment, seed_of
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding
from rankscope.experiments.text_cell import TOLERANCE, TextCell, own_fingerprint

EPOCHS, QUICK_EPOCHS = 500, 40
ALL_RANKS = tuple(range(256))
QUICK_RANKS = (*range(17), 20, 24, 32, 48, 64, 96, 128, 160, 192, 224, 255)
RECURRENT = "weight_hh_l1"
BY_EYE = 0.1
"""How well numbers can be read off the paper's figures."""
FEW, MANY = 10, 128
PAPER_ACCURACY, LOWEST_ACCURACY = 0.79, 0.75
PAPER_LARGEST, SMALL = 3.5, 0.5


def sentiment_cells(data: str, epochs: int, ranks: tuple[int, ...], vector_dropout: float = 0.0) -> list[TextCell]:
    """Return the one cell of the experiment."""
    return [
        TextCell(
            data,
            epochs=epochs,
            ranks=ranks,
            seed=seed_of("sentiment", 0),
            vector_dropout=vector_dropout,
            fingerprint=own_fingerprint(data),
        )
    ]


def of_networks(check: Callable[[list[xr.Dataset]], Finding], *needed: str) -> Callable[[xr.Dataset], Finding]:
    """Return a check of a whole run from one of its networks, which looks at those that did not diverge."""

    def of_run(dataset: xr.Dataset) -> Finding:
        if not {"status", "accuracy", *needed} <= set(dataset.variables):
            return NOT_IN_THIS_RUN
        dims = dataset["status"].dims
        places = itertools.product(*(range(dataset.sizes[dim]) for dim in dims))
        networks = [dataset[[*needed, "status", "accuracy"]].isel(dict(zip(dims, at, strict=True))) for at in places]
        there = [network for network in networks if network["status"].item() == "finished"]
        try:
            return check(there) if there else NOT_IN_THIS_RUN
        except KeyError:  # of networks with fewer units or layers: no such rank, or weight
            return NOT_IN_THIS_RUN

    return of_run


def accuracy(networks: list[xr.Dataset]) -> Finding:
    """Find the accuracy at the end."""
    found = [float(network["accuracy"]) for network in networks]
    return Finding(_listed(found), bool(np.mean(found) >= LOWEST_ACCURACY))


def change_is_low_rank(networks: list[xr.Dataset]) -> Finding:
    """Find what the accuracy loses if the change keeps ten directions, and how many it needs."""
    lost, ranks = [], []
    for network in networks:
        curve = network["truncation_accuracy"].sel(truncated="change")
        lost.append(float(network["accuracy"] - curve.sel(rank=FEW)))
        ranks.append(float(network["functional_rank"]))
    text = f"loses {_listed([100 * x for x in lost])} % at rank {FEW}; within 1 % from rank {_listed(ranks)} on"
    return Finding(text, bool(np.mean(lost) <= TOLERANCE + 1e-9))


def weights_are_not(networks: list[xr.Dataset]) -> Finding:
    """Find how many directions the weights need."""
    ranks = [float(network["functional_rank_trained"]) for network in networks]
    lost = [
        float(network["accuracy"] - network["truncation_accuracy"].sel(truncated="trained", rank=MANY))
        for network in networks
    ]
    text = f"loses {_listed([100 * x for x in lost])} % at rank {MANY}; within 1 % from rank {_listed(ranks)} on"
    return Finding(text, not bool(np.any(np.array(ranks) <= MANY)))


def largest(networks: list[xr.Dataset]) -> Finding:
    """Find the largest singular value of the change of the second layer's recurrent weights."""
    found = [float(_change(network)[0]) for network in networks]
    return Finding(_listed(found), bool(abs(np.mean(found) / PAPER_LARGEST - 1) <= BY_EYE))


def fall(networks: list[xr.Dataset]) -> Finding:
    """Find how many singular values of that change are not small."""
    found = [int((_change(network) >= SMALL).sum()) for network in networks]
    return Finding(f"{_listed(found)} of them are not below {SMALL}", bool(np.mean(found) < FEW))


def _change(network: xr.Dataset) -> xr.DataArray:
    return network["singular_value"].sel(weight=RECURRENT, matrix="change")


def _listed(found: list[float] | list[int]) -> str:
    return ", ".join(f"{value:.3g}" for value in found)


SENTIMENT = Experiment(
    name="sentiment",
    description="LSTM, sentiment of film reviews: truncated change and weights (paper Fig. 5)",
    presets={
        "quick": lambda: sentiment_cells("snippets", QUICK_EPOCHS, QUICK_RANKS),
        "paper": lambda: sentiment_cells("snippets", EPOCHS, ALL_RANKS),
        # A small set is learned by heart in 500 passes; this delays it.
        "more-dropout": lambda: sentiment_cells("snippets", EPOCHS, ALL_RANKS, vector_dropout=0.5),
        "treebank": lambda: sentiment_cells("treebank", EPOCHS, ALL_RANKS),
    },
    claims=(
        Claim(
            "accuracy",
            f"validation accuracy at the end (at least {LOWEST_ACCURACY}: word vectors of 50 numbers say less)",
            f"about {PAPER_ACCURACY}",
            of_networks(accuracy),
        ),
        Claim(
            "the change is of low rank",
            f"dW of all inner weights truncated to rank {FEW} is within 1 % of the full accuracy",
            "about 10",
            of_networks(change_is_low_rank, "truncation_accuracy", "functional_rank"),
        ),
        Claim(
            "the weights are not",
            f"W truncated needs a rank above {MANY} for the same",
            f"more than {MANY}",
            of_networks(weights_are_not, "truncation_accuracy", "functional_rank_trained"),
        ),
        Claim(
            "largest singular value",
            f"of dW, recurrent weights of the second layer: about {PAPER_LARGEST} (within 10 %)",
            f"about {PAPER_LARGEST}",
            of_networks(largest, "singular_value"),
        ),
        Claim(
            "singular values fall",
            f"they are below {SMALL} within {FEW} ranks",
            f"within {FEW}",
            of_networks(fall, "singular_value"),
        ),
    ),
)
