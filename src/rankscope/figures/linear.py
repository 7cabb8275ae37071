"""Schuessler et al. 2020, Fig. 3: loss and learned change of linear networks, with the predictions of two theories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.experiments.linear_theory import Condition
from rankscope.figures.theory_curves import (
    NETWORKS,
    TIME_LABEL,
    draw_condition,
    explain_theories,
    read_conditions,
    target_label,
)
from rankscope.plot.style import INK, gain_entries, label_panels, mark_empty, series, styled

TARGETS = (0.5, 1.0, 2.0)
GAINS = (0.0, 0.6, 0.8)
GAINS_OF_ALL_TARGETS = 2  # gains that are drawn where all targets share a panel
LABEL_DISTANCE = 10.5  # points, between labels of targets
PANEL_HEIGHT = 130.0  # points, of a panel of singular values, at least


def linear(dataset: xr.Dataset) -> Figure:
    """Draw the loss at three targets, and below it the first and second singular value of dW at all of them.

    Points are the mean and the standard deviation over the networks that did not diverge. The exact theory (solid)
    takes the same gradient steps. The paper's theory (dashed) is constant after its readout has reached the target.

    Takes measurements of the experiment `linear` along `gain`, `target` and `sample`. Of many gains and targets
    three are drawn.
    """
    conditions = read_conditions(dataset, "linear", GAINS, TARGETS)
    count = len(conditions)
    gains = list(next(iter(conditions.values())))
    with styled():
        figure = Figure(figsize=(7.2, 5.6), layout="constrained")
        grid = figure.add_gridspec(2, 2 * count, height_ratios=[1, 1.25])
        losses = [figure.add_subplot(grid[0, 2 * i : 2 * i + 2]) for i in range(count)]
        singular = [figure.add_subplot(grid[1, i * count : (i + 1) * count]) for i in range(2)]
        for (target, by_gain), ax in zip(conditions.items(), losses, strict=True):
            _draw_loss(ax, list(by_gain.values()))
            ax.set_title(target_label(target))
        losses[0].set_ylabel("loss")
        for index, ax in enumerate(singular, start=1):
            drawn = [by_gain[gain] for by_gain in conditions.values() for gain in gains[:GAINS_OF_ALL_TARGETS]]
            _draw_singular_value(ax, drawn, index, gains)
        label_panels(figure, [*losses, *singular])
        explain_theories(figure, gain_entries(gains, **NETWORKS), conditions, "networks: mean, standard deviation")
    return figure


def _draw_loss(ax: Axes, conditions: list[Condition]) -> None:
    until = _shown_time(conditions)
    for index, condition in enumerate(conditions):
        draw_condition(ax, condition, None, series(index), until, shift=index / len(conditions))
    # Error bars of a mean near 0 would extend the axis below 0.
    highest = ax.get_ylim()[1]
    ax.set(xlabel=TIME_LABEL, xlim=(-0.03 * until, until), ylim=(-0.05 * highest, highest))
    ax.locator_params(nbins=4)
    if all(condition.empty for condition in conditions):
        mark_empty(ax)


def _draw_singular_value(ax: Axes, conditions: list[Condition], index: int, gains: list[float]) -> None:
    until = _shown_time(conditions)
    for condition in conditions:
        draw_condition(ax, condition, index, series(gains.index(condition.gain)), until)
    ax.set(xlabel=TIME_LABEL, ylabel=rf"singular value $s_{index}$ of $\Delta W$", xlim=(-0.03 * until, 1.18 * until))
    ax.set_ylim(bottom=0)
    ax.locator_params(nbins=6)
    _label_targets(ax, conditions, index, until, gains)


def _shown_time(conditions: Iterable[Condition]) -> float:
    return max(condition.shown_time for condition in conditions) or 1.0


def _label_targets(ax: Axes, conditions: list[Condition], index: int, until: float, gains: list[float]) -> None:
    """Write the target at the right end of each curve, in its color; once if two curves of a target end together."""
    columns: dict[float, list[tuple[float, str, str]]] = {}
    per_unit = PANEL_HEIGHT / ax.get_ylim()[1]
    for condition in conditions:
        if condition.exact is None or index not in condition.exact["singular_index"]:
            continue
        curve = condition.exact["singular_value"].sel(singular_index=index).dropna("epoch")
        x = condition.effective_time(curve["epoch"])
        last = int(np.flatnonzero(x <= until * (1 + 1e-9))[-1])
        ends = columns.setdefault(until if x[last] > 0.9 * until else float(x[last]), [])
        height, text = float(curve[last]) * per_unit, target_label(condition.target)
        together = [end for end in ends if end[1] == text and abs(height - end[0]) < LABEL_DISTANCE]
        if together:
            ends[ends.index(together[0])] = ((height + together[0][0]) / 2, text, INK)
        else:
            ends.append((height, text, series(gains.index(condition.gain))["color"]))
    for x_end, ends in columns.items():
        heights, texts, colors = zip(*sorted(ends), strict=True)
        for height, moved, text, color in zip(heights, _spread(heights), texts, colors, strict=True):
            ax.annotate(
                text,
                xy=(x_end, height / per_unit),
                xytext=(4, moved - height),
                textcoords="offset points",
                fontsize=7.5,
                va="center",
                color=color,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.8},
            )


def _spread(heights: Sequence[float]) -> list[float]:
    """Return increasing heights, moved so that neighbors are at least `LABEL_DISTANCE` apart."""
    moved = list(heights)
    for _ in range(10 * len(moved)):
        for i in range(len(moved) - 1):
            missing = LABEL_DISTANCE - (moved[i + 1] - moved[i])
            if missing > 0:
                moved[i : i + 2] = moved[i] - missing / 2, moved[i + 1] + missing / 2
    return moved
