"""Paper Fig. 3: what learning does to the loss and to dW in a linear network, and what two theories say of it.

The paper's expansion is one in learning time, and leaves the networks half-way; the exact theory stays with them. In
effective learning time the beginning of learning is the same at all gains.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankscope.figures.style import INK, gain_label, label_panels, look, say_no_measurements, styled
from rankscope.figures.theory_curves import (
    NETWORKS,
    TIME_LABEL,
    Place,
    draw_place,
    explain_theories,
    read_places,
    target_label,
)

TARGETS = (0.5, 1.0, 2.0)
GAINS = (0.0, 0.6, 0.8)
GAINS_OF_ALL_TARGETS = 2  # the first of them, where all targets share a panel
APART = 10.5  # points, between names of targets
HEIGHT = 130.0  # points, of a panel of singular values, or a little less than it has


def linear(dataset: xr.Dataset) -> Figure:
    """Draw the loss at three targets, and below it the first and second singular value of dW at all of them.

    Networks are drawn as the mean and the standard deviation over the samples that did not diverge; the exact theory
    (solid) takes their very steps; the paper's (dashed) stays where its readout reaches the target.

    Parameters
    ----------
    dataset
        Measurements of the experiment `linear` along `gain`, `target` and `sample`, of one `hidden_size`. Of many gains
        and targets three are drawn.

    Raises
    ------
    InputError
        If it is of another experiment, or holds several hidden sizes.
    """
    places = read_places(dataset, "linear", GAINS, TARGETS)
    count = len(places)
    gains = list(next(iter(places.values())))
    with styled():
        figure = Figure(figsize=(7.2, 5.6), layout="constrained")
        grid = figure.add_gridspec(2, 2 * count, height_ratios=[1, 1.25])
        losses = [figure.add_subplot(grid[0, 2 * i : 2 * i + 2]) for i in range(count)]
        singular = [figure.add_subplot(grid[1, i * count : (i + 1) * count]) for i in range(2)]
        for (target, by_gain), ax in zip(places.items(), losses, strict=True):
            _draw_loss(ax, list(by_gain.values()))
            ax.set_title(target_label(target))
        losses[0].set_ylabel("loss")
        for index, ax in enumerate(singular, start=1):
            drawn = [by_gain[gain] for by_gain in places.values() for gain in gains[:GAINS_OF_ALL_TARGETS]]
            _draw_singular_value(ax, drawn, index, gains)
        label_panels(figure, [*losses, *singular])
        entries = [Line2D([], [], label=gain_label(gain), **NETWORKS, **look(i)) for i, gain in enumerate(gains)]
        every = [place for by_gain in places.values() for place in by_gain.values()]
        explain_theories(figure, entries, every, "networks: mean, standard deviation")
    return figure


def _draw_loss(ax: Axes, places: list[Place]) -> None:
    until = max(place.interesting for place in places) or 1.0
    for index, place in enumerate(places):
        draw_place(ax, place, None, look(index), until, shift=index / len(places))
    # Deviations from a mean near 0 reach below it, where there is no loss.
    highest = ax.get_ylim()[1]
    ax.set(xlabel=TIME_LABEL, xlim=(-0.03 * until, until), ylim=(-0.05 * highest, highest))
    ax.locator_params(nbins=4)
    if not any(place.networks.sizes["sample"] for place in places):
        say_no_measurements(ax)


def _draw_singular_value(ax: Axes, places: list[Place], index: int, gains: list[float]) -> None:
    until = max(place.interesting for place in places) or 1.0
    for place in places:
        draw_place(ax, place, index, look(gains.index(place.gain)), until)
    ax.set(xlabel=TIME_LABEL, ylabel=rf"singular value $s_{index}$ of $\Delta W$", xlim=(-0.03 * until, 1.18 * until))
    ax.set_ylim(bottom=0)
    ax.locator_params(nbins=6)
    _name_targets(ax, places, index, until, gains)


def _name_targets(ax: Axes, places: list[Place], index: int, until: float, gains: list[float]) -> None:
    """Write the target at the right end of each curve, in its color; once where two of it end together."""
    columns: dict[float, list[tuple[float, str, str]]] = {}
    per_unit = HEIGHT / ax.get_ylim()[1]
    for place in places:
        if place.exact is None or index not in place.exact["singular_index"]:
            continue
        curve = place.exact["singular_value"].sel(singular_index=index).dropna("epoch")
        x = place.effective_time(curve["epoch"])
        last = int(np.flatnonzero(x <= until * (1 + 1e-9))[-1])
        ends = columns.setdefault(until if x[last] > 0.9 * until else float(x[last]), [])
        height, name = float(curve[last]) * per_unit, target_label(place.target)
        together = [end for end in ends if end[1] == name and abs(height - end[0]) < APART]
        if together:
            ends[ends.index(together[0])] = ((height + together[0][0]) / 2, name, INK)
        else:
            ends.append((height, name, look(gains.index(place.gain))["color"]))
    for x_end, ends in columns.items():
        heights, names, colors = zip(*sorted(ends), strict=True)
        for height, place_of_name, name, color in zip(heights, _apart(heights), names, colors, strict=True):
            ax.annotate(
                name,
                xy=(x_end, height / per_unit),
                xytext=(4, place_of_name - height),
                textcoords="offset points",
                fontsize=7.5,
                va="center",
                color=color,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.8},
            )


def _apart(heights: Sequence[float]) -> list[float]:
    """Return increasing heights, moved so that neighbors are apart, each pair in both directions alike."""
    moved = list(heights)
    for _ in range(10 * len(moved)):
        for i in range(len(moved) - 1):
            short = APART - (moved[i + 1] - moved[i])
            if short > 0:
                moved[i : i + 2] = moved[i] - short / 2, moved[i + 1] + short / 2
    return moved
