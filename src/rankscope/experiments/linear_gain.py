"""Schuessler et al. 2020, Fig. 4: learning in the linear network against the gain g, with theory.

The networks are those of `linear`. To lowest order in the target, relative to g = 0, learning takes (1 - g^2)^2 of the
time, |dW| is 1 - g^2 and the average gradient 1/(1 - g^2); the loss after shuffling W0 is g^4 (2 - g^2)^2 of the
initial one.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.experiments.base import Experiment
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding, claim, mean_and_error, standard_error
from rankscope.experiments.linear import PRESETS
from rankscope.experiments.linear_agreement import (
    BY_EYE,
    SCALARS,
    UNLIKELY,
    comparison_at,
    comparisons,
    exact_theory,
    probability,
)


def follows_a_power(dataset: xr.Dataset, quantity: str, power: int) -> Finding:
    """Check that a quantity relative to g = 0 goes as (1 - g^2)^power at the smallest target of the run.

    The exponent is fitted over all gains by least squares in the logarithms. It has to be nearer to that integer than
    to any other, up to two standard errors: the laws hold for small targets, and the exact theory departs from them.
    """
    fitted = {}
    there = [comparison for comparison in comparisons(dataset) if comparison.settles]
    for target in sorted({comparison.target for comparison in there}):
        at = {c.gain: c for c in there if c.target == target and c.measured[quantity].size > 1}
        if 0.0 in at and len(at) > 1:
            # Epochs times the learning rate are learning time.
            scale = {gain: c.rate if quantity == "convergence_epoch" else 1.0 for gain, c in at.items()}
            measured = {gain: scale[gain] * c.measured[quantity] for gain, c in at.items()}
            theory = {gain: scale[gain] * np.array([c.theory[quantity]]) for gain, c in at.items()}
            fitted[target] = (*_exponent(measured), _exponent(theory)[0])
    if not fitted:
        return NOT_IN_THIS_RUN
    texts = [
        f"{p:.2f} ± {error:.2f} at target {z:g} (exact theory {exact:.2f})" for z, (p, error, exact) in fitted.items()
    ]
    exponent, error, _ = fitted[min(fitted)]
    return Finding("exponent " + ", ".join(texts), abs(exponent - power) < 0.5 + 2 * error)


def _exponent(at: dict[float, NDArray[np.float64]]) -> tuple[float, float]:
    """Return p of mean(g) / mean(0) = (1 - g^2)^p, given the values at each gain, and its standard error."""
    gains = [gain for gain in at if gain > 0]
    x = np.log1p(-np.square(gains))
    y = np.log([at[gain].mean() / at[0.0].mean() for gain in gains])
    relative = {g: standard_error(values) / values.mean() for g, values in at.items()}
    # The error at g = 0 shifts all logarithms alike.
    error = np.hypot(np.linalg.norm(x * [relative[gain] for gain in gains]), x.sum() * relative[0.0])
    return float(x @ y / (x @ x)), float(error / (x @ x))


@claim(
    "tied to its W0",
    "loss after shuffling W0 / initial loss goes as g^4 (2 - g^2)^2 at the smallest target",
    "g^4 (2 - g^2)^2",
)
def _shuffled_loss(dataset: xr.Dataset) -> Finding:
    # To an accuracy of 0.1.
    there = [comparison for comparison in comparisons(dataset) if comparison.measured["shuffled_loss"].size]
    if not there:
        return NOT_IN_THIS_RUN
    smallest = min(comparison.target for comparison in there)
    laws = {c: c.gain**4 * (2 - c.gain**2) ** 2 for c in there if c.target == smallest}
    most = max(laws, key=lambda c: abs(float(c.measured["shuffled_loss"].mean()) - laws[c]))
    found, exact = mean_and_error(most.measured["shuffled_loss"]), most.theory["shuffled_loss"]
    text = f"furthest from it at {most}: {found} (law {laws[most]:.2f}, exact theory {exact:.2f})"
    probabilities = [probability(c.measured["shuffled_loss"], law, BY_EYE) for c, law in laws.items()]
    return Finding(text, min(probabilities) > UNLIKELY / len(probabilities))


def size_of_change(dataset: xr.Dataset, gain: float, target: float, paper: float) -> Finding:
    """Check |dW| against the paper's figure, to the accuracy of reading it."""
    found = comparison_at(dataset, gain, target)
    if found is None or not found.measured["change_norm"].size:
        return NOT_IN_THIS_RUN
    x = found.measured["change_norm"]
    text = f"{mean_and_error(x)} (exact theory {found.theory['change_norm']:.3f})"
    return Finding(text, probability(x, paper, BY_EYE * paper) > UNLIKELY)


LAWS = (
    ("convergence time", "convergence_epoch", 2, "(1 - g^2)^2"),
    ("size of the change", "change_norm", 1, "1 - g^2"),
    ("average gradient", "average_gradient", -1, "1/(1 - g^2)"),
)

LINEAR_GAIN = Experiment(
    name="linear-gain",
    description="The networks of linear: convergence, |dW|, gradient, shuffled loss against g (paper Fig. 4)",
    presets=PRESETS,
    claims=(
        *(
            Claim(
                name,
                f"relative to g = 0, the {name} goes as {law} at the smallest target",
                law,
                partial(follows_a_power, quantity=quantity, power=power),
            )
            for name, quantity, power, law in LAWS
        ),
        _shuffled_loss,
        *(
            Claim(
                f"|dW| at g = {gain:g}",
                f"|dW| is near {paper} at g = {gain:g}, target 2",
                str(paper),
                partial(size_of_change, gain=gain, target=2.0, paper=paper),
            )
            for gain, paper in ((0.0, 0.85), (0.6, 0.43))
        ),
        exact_theory("all of these, and the outlier of W,", *SCALARS),
    ),
)
