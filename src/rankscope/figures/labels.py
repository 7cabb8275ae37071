"""Titles of the measured quantities and labels, shared by the figures, the report and the explorer."""

from __future__ import annotations

import textwrap
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Quantity(NamedTuple):
    """A scalar that is measured of each network: its title, and whether its axis is logarithmic or of integers."""

    title: str
    log: bool = False
    integer: bool = False


#: In the order of tables and panels.
QUANTITIES = {
    "convergence_epoch": Quantity("convergence time (epochs)", log=True, integer=True),
    "change_norm": Quantity("norm of the change ‖ΔW‖"),
    "shuffled_loss": Quantity("loss after shuffle / initial loss"),
    "functional_rank": Quantity("functional rank", integer=True),
    "accuracy": Quantity("accuracy after learning"),
    "functional_rank_trained": Quantity("functional rank of the trained weights", integer=True),
    "outlier": Quantity("outlier eigenvalue of W (real part)"),
    "evaluation_loss": Quantity("loss after learning, on new trials"),
    "initial_loss": Quantity("loss at epoch 0"),
    "trained_norm": Quantity("norm after learning ‖W‖", log=True),
    "average_gradient": Quantity("gradient norm, mean until convergence"),
    "learning_rate": Quantity("learning rate", log=True),
    "initial_accuracy": Quantity("accuracy before learning"),
    "coverage": Quantity("fraction of words with a vector"),
    "kernel_alignment": Quantity("kernel alignment (1: lazy)"),
    "recurrent_kernel_alignment": Quantity("kernel alignment, recurrent weights"),
    "representation_alignment": Quantity("representation alignment"),
    "output_alignment": Quantity("alignment with outputs ρ"),
    "initial_output_alignment": Quantity("alignment with outputs ρ before learning"),
    "output_variance_ratio": Quantity("variance along outputs / random", log=True),
    "participation_ratio": Quantity("participation ratio of activity"),
    "activity_dimension": Quantity("components for 90 % of the variance", integer=True),
    "fit_dimension": Quantity("components for 90 % of the outputs", integer=True),
    "output_noise_loss": Quantity("loss added by noise along outputs", log=True),
    "component_noise_loss": Quantity("loss added by noise along components", log=True),
    "stable_fixed_points_found": Quantity("stable fixed points found", integer=True),
    "random_noise_loss": Quantity("loss added by noise along random directions", log=True),
}

#: Titles of axes along a label of the networks.
LABELS = {
    "gain": "gain g of the initial connectivity",
    "hidden_size": "number of units N",
    "target": "target ẑ",
    "noise_std": "standard deviation of the noise",
    "output_norm": "norm of the output weights |w|",
    "initial_rank": "rank of the initial connectivity",
    "dt": "time step (membrane time constants)",
    "batch_size": "batch size (trials)",
}
#: Symbols before the value of a label.
SYMBOLS = {"gain": "g = ", "output_norm": "|w| = ", "hidden_size": "N = ", "target": "ẑ = ", "task": ""}
TASKS = {"flipflop": "flip-flop", "mante": "Mante", "romo": "Romo"}
_MATH = {
    "‖ΔW‖": r"$\|\Delta W\|$",
    "‖W‖": r"$\|W\|$",
    "ẑ": r"$\hat z$",
    "outputs ρ": r"outputs $\rho$",
    "|w|": r"$|w|$",
    "gain g": "gain $g$",
    "units N": "units $N$",
}
WIDTH = 22  # characters of a line beside a panel


def axis_label(name: str) -> str:
    """Return the title of a quantity, wrapped to fit beside a panel, or of a label, with matplotlib's mathematics."""
    text = label_title(name)
    if name in QUANTITIES:
        lines = QUANTITIES[name].title.replace(" / ", "\n/ ").split("\n")
        text = "\n".join(textwrap.fill(line, WIDTH) for line in lines)
    for plain, mathematics in _MATH.items():
        text = text.replace(plain, mathematics)
    return text


def label_title(name: str) -> str:
    """Return the title of an axis along a label."""
    return LABELS.get(name, name.replace("_", " "))


def label_prefix(name: str) -> str:
    """Return the text before the value of a label: its symbol or its name."""
    return SYMBOLS.get(name, name.replace("_", " ") + " ")


def suits_logarithm(values: NDArray[Any]) -> bool:
    """Return whether a logarithmic axis suits the values of a label: positive numbers over a decade or nearly."""
    return bool(
        values.dtype.kind in "fiu" and values.size > 1 and values.min() > 0 and values.max() >= 8 * values.min()
    )


def value_text(name: str, value: object) -> str:
    """Return the value of a label as text."""
    if name == "task":
        return task_label(value)
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)


def task_label(task: object) -> str:
    """Return a task's name as the paper writes it."""
    return TASKS.get(str(task), str(task))
