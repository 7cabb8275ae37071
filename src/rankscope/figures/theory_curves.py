"""Draw linear networks beside two theories, in the same way in every figure of the linear experiments.

Networks are points with error bars: mean and standard deviation over the samples. Theories are lines: the paper's
expansion is dashed, the exact theory of infinite width solid. Over epochs, the exact theory takes the same gradient
steps as the networks (`descend`): for a large target and a large g, steps are too long for gradient flow to describe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import InputError
from rankscope.experiments.averages import mean_and_std
from rankscope.experiments.linear_theory import Array, Condition
from rankscope.figures.selection import networks_of, trained_along
from rankscope.plot.style import INK, entry, gain_label, legend_above, note_below

Conditions = dict[float, dict[float, Condition]]

EXACT: dict[str, Any] = {"linewidth": 0.9}
PAPER: dict[str, Any] = {"linewidth": 1.1, "linestyle": (0, (4, 2))}
NETWORKS: dict[str, Any] = {"linestyle": "none", "markersize": 3.5, "markeredgewidth": 0}
EXACT_LABEL = "exact theory, infinite width"
PAPER_LABEL = "paper's theory, third order"
TIME_LABEL = r"effective learning time $\beta^2\tau$"
DRAWN = ("loss", "singular_value_history", "recorded_epoch", "convergence_epoch", "learning_rate")
POINTS = 14  # along a curve


def read_conditions(
    dataset: xr.Dataset, experiment: str, gains: Sequence[float], targets: Sequence[float]
) -> Conditions:
    """Return the networks of a linear run by target and, within each, by gain, both increasing.

    Parameters
    ----------
    gains, targets
        Preferred values; if the run has more, the nearest to these are taken. Gains are below 1.

    Raises
    ------
    InputError
        If the dataset is of another experiment than `linear`, or no gain is below 1.
    """
    run = networks_of(dataset, experiment, "fixed_point", DRAWN, ("gain", "target", "sample"))
    all_gains = trained_along(run, "gain")
    chosen_gains = _nearest(all_gains[all_gains < 1], gains)
    if not chosen_gains:
        raise InputError(
            f"dataset must hold a gain below 1, where linear networks are stable, got {all_gains.min():g} or more"
        )
    chosen_targets = _nearest(trained_along(run, "target"), targets)
    run = run.sel(gain=chosen_gains, target=chosen_targets).compute()
    return {target: {gain: Condition(run, gain, target) for gain in chosen_gains} for target in chosen_targets}


def draw_condition(
    ax: Axes,
    condition: Condition,
    index: int | None,
    style: dict[str, Any],
    until: float,
    *,
    shift: float = 0.0,
    log: bool = False,
) -> None:
    """Draw networks and theories of one condition over effective learning time.

    Parameters
    ----------
    index
        Of the singular value of dW to draw; None for the loss.
    style
        Color and marker.
    until
        The last effective learning time to draw.
    shift
        Of the points along the curve, in units of their distance, so that points of coinciding curves stay apart.
    log
        Whether mean and standard deviation are of the logarithm.
    """
    until *= 1 + 1e-9  # times are products of decimals
    for solved, line in ((condition.expansion, PAPER), (condition.exact, EXACT)):
        if solved is not None and (index is None or index in solved["singular_index"]):
            curve = solved["loss"] if index is None else solved["singular_value"].sel(singular_index=index)
            x = condition.effective_time(solved["epoch"])
            shown = (x <= until) & ((curve.values > 0) | (not log))
            ax.plot(x[shown], curve[shown], color=style["color"], **line)
    if not condition.finite.sizes["sample"] or (index is not None and index not in condition.finite["leading_index"]):
        return
    epochs, values = condition.measured(index)
    x = condition.effective_time(epochs)
    points = mean_and_std(xr.apply_ufunc(np.log, values.where(values > 0)) if log else values)
    known = np.flatnonzero((points["count"] > 0).values & (x <= until))
    if not known.size:
        return
    distance = (known.size - 1) / POINTS
    at = known[np.unique((distance * (np.arange(POINTS) + shift)).round().astype(int))]
    mean, std = points["mean"].values[at], np.nan_to_num(points["std"].values[at])
    if log:
        mean, bars = np.exp(mean), np.exp(mean) * [1 - np.exp(-std), np.exp(std) - 1]
    else:
        bars = np.array([std, std])
    ax.errorbar(x[at], mean, yerr=bars, elinewidth=0.7, **NETWORKS, **style)


def explain_theories(figure: Figure, colors: Sequence[Artist], conditions: Conditions, networks: str) -> None:
    """Put the legend above all panels, and below them how many networks diverged and are not drawn.

    Parameters
    ----------
    colors
        Legend entries before those of networks and theories.
    networks
        Legend label of the networks' points.
    """
    lines = [
        entry(networks, color=INK, marker="o", **NETWORKS),
        entry(EXACT_LABEL, color=INK, **EXACT),
        entry(PAPER_LABEL, color=INK, **PAPER),
    ]
    legend_above(figure, colors, lines)
    lost = [
        f"{one.diverged.sum()} of {one.diverged.size} at {condition_label(one)}"
        for by_gain in conditions.values()
        for one in by_gain.values()
        if one.diverged.any()
    ]
    note_below(figure, "diverged, not drawn: " + "; ".join(lost) if lost else "")


def condition_label(condition: Condition) -> str:
    """Return gain and target as a title."""
    return f"{gain_label(condition.gain)}, {target_label(condition.target)}"


def target_label(target: float) -> str:
    """Return a target as a title."""
    return rf"$\hat z$ = {target:g}"


def _nearest(values: Array, preferred: Sequence[float]) -> list[float]:
    """Return the values nearest to the preferred ones, in order; all values if there are no more than preferred."""
    if len(values) <= len(preferred):
        return [float(value) for value in values]
    nearest = {int(np.abs(values - one).argmin()) for one in preferred}
    return [float(values[at]) for at in sorted(nearest)]
