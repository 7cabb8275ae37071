"""How the page calls things: axes with their units, and networks by the labels that tell them apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from rankscope.figures.style import task_label

DIMENSIONS = {
    "gain": "gain g of the initial connectivity",
    "hidden_size": "network size N (units)",
    "target": "target ẑ",
    "task": "task",
    "sample": "sample",
    "learning_rate": "learning rate",
    "noise_std": "standard deviation of the noise",
    "dt": "time step (membrane time constants)",
    "batch_size": "batch size (trials)",
}

SCALARS = {
    "convergence_epoch": "convergence time (epochs)",
    "change_norm": "norm of the change ‖ΔW‖",
    "shuffled_loss": "loss after shuffle / initial loss",
    "functional_rank": "functional rank",
    "accuracy": "accuracy after learning",
    "functional_rank_trained": "functional rank of the trained weights",
    "outlier": "outlier eigenvalue of W (real part)",
    "evaluation_loss": "loss after learning, on fresh trials",
    "initial_loss": "loss at epoch 0",
    "trained_norm": "norm after learning ‖W‖",
    "average_gradient": "gradient norm, mean until convergence",
    "learning_rate": "learning rate",
    "initial_accuracy": "accuracy before learning",
    "coverage": "fraction of words with a vector",
}
"""In the order in which the page shows them."""

PANELS = (
    "convergence_epoch",
    "change_norm",
    "shuffled_loss",
    "functional_rank",
    "accuracy",
    "functional_rank_trained",
    "outlier",
)
"""Those that are drawn against a label; the first four are the paper's."""

SHORT = {"gain": "g = ", "hidden_size": "N = ", "target": "ẑ = ", "task": ""}

LOGARITHMIC = ("convergence_epoch", "trained_norm", "learning_rate")
WHOLE = ("convergence_epoch", "functional_rank", "functional_rank_trained")


def dimension_title(name: str) -> str:
    """Return the title of an axis along a label of the networks."""
    return DIMENSIONS.get(name, name.replace("_", " "))


def before_value(name: str) -> str:
    """Return what stands before the value of a label in running text: its symbol, or its name."""
    return SHORT.get(name, name.replace("_", " ") + " ")


def scalar_title(name: str, dataset: xr.Dataset) -> str:
    """Return the title of an axis of a scalar: ours, or what the dataset says of it."""
    if name in SCALARS:
        return SCALARS[name]
    attributes = dataset[name].attrs
    words = str(attributes.get("long_name", name.replace("_", " ")))
    return f"{words} ({attributes['units']})" if "units" in attributes else words


def value_text(name: str, value: Any) -> str:
    """Return the value of a label as a reader expects it."""
    if name == "task":
        return task_label(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def network_name(labels: Mapping[str, Any]) -> str:
    """Return the name of a network, the sample last: "flip-flop, g = 0.9, sample 0"."""
    parts = []
    for name in sorted(labels, key=lambda name: name == "sample"):
        parts.append(before_value(name) + value_text(name, labels[name]))
    return ", ".join(parts) or "the network"
