"""Schuessler et al. 2020, supplement: leading singular values of dW in linear networks, on a logarithmic scale."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from rankscope.experiments.averages import mean_and_std
from rankscope.experiments.linear_theory import Condition
from rankscope.figures.theory_curves import (
    NETWORKS,
    TIME_LABEL,
    condition_label,
    draw_condition,
    explain_theories,
    read_conditions,
)
from rankscope.plot.style import GREY, entry, label_panels, mark_empty, series, styled

TARGETS = (0.5, 1.0, 2.0)
GAINS = (0.3, 0.8)
INDICES = range(1, 6)
#: Lower end of the scale: W is in single precision.
FLOOR = float(np.finfo(np.float32).eps)
#: From this index on, all singular values are rounding errors: nearly equal, as of a random matrix.
ALL_ROUNDING = 20


def linear_log(dataset: xr.Dataset) -> Figure:
    """Draw the five largest singular values of dW over effective learning time, a panel for each target and gain.

    Networks and theories are drawn as in `linear`. The shaded region is below the largest recorded index from 20 on,
    where singular values are rounding errors of W.

    Takes measurements of the experiment `linear` along `gain`, `target` and `sample`. Of many targets three are
    drawn, of many gains two.
    """
    conditions = read_conditions(dataset, "linear-log", GAINS, TARGETS)
    rows = len(next(iter(conditions.values())))
    with styled():
        figure = Figure(figsize=(0.8 + 2.1 * len(conditions), 0.9 + 2.2 * rows), layout="constrained")
        grid = figure.subplots(rows, len(conditions), sharex="col", sharey=True, squeeze=False)
        for by_gain, column in zip(conditions.values(), grid.T, strict=True):
            until = max(condition.shown_time for condition in by_gain.values())
            for condition, ax in zip(by_gain.values(), column, strict=True):
                _draw(ax, condition, until)
            column[-1].set_xlabel(TIME_LABEL)
        for ax in grid[:, 0]:
            ax.set_ylabel(r"singular values of $\Delta W$")
        label_panels(figure, grid.flat, offset=(-16, 6))
        entries: list[Artist] = [entry(f"$s_{index}$", **NETWORKS, **series(index - 1)) for index in INDICES]
        entries.append(Patch(color=GREY, alpha=0.3, linewidth=0, label="rounding"))
        explain_theories(figure, entries, conditions, "networks: mean, standard deviation (of the logarithm)")
    return figure


def _draw(ax: Axes, condition: Condition, until: float) -> None:
    for index in INDICES:
        shift = (index - 1) / len(INDICES)
        draw_condition(ax, condition, index, series(index - 1), until, shift=shift, log=True)
    last = int(condition.networks["leading_index"].max())
    if last >= ALL_ROUNDING and condition.finite.sizes["sample"]:
        epochs, values = condition.measured(last)
        x, level = condition.effective_time(epochs), mean_and_std(values)["mean"]
        ax.fill_between(x, level, 0.1 * FLOOR, color=GREY, alpha=0.3, linewidth=0)
    ax.set_yscale("log", nonpositive="clip")
    ax.set(title=condition_label(condition), ylim=(FLOOR, 2))
    if until > 0:
        ax.set_xlim(-0.03 * until, until)
    if condition.empty:
        mark_empty(ax)
    ax.locator_params(axis="x", nbins=4)
