"""Schuessler et al. 2020, supplement: divergence of learning, and the eigenvalues of W when it happens.

Each network diverges at its own epoch or not at all, so networks are drawn individually.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.experiments.linear_theory import Array, Condition
from rankscope.figures.selection import networks_of, trained_along
from rankscope.figures.theory_curves import EXACT_LABEL, PAPER_LABEL, condition_label
from rankscope.plot.style import COLORS, GREY, INK, entry, label_panels, mark_empty, styled

DRAWN = ("loss", "eigenvalue_real_history", "recorded_epoch", "learning_rate")
LOSS_LIMITS = (1e-7, 100.0)  # in units of the initial loss
MARGIN = 0.05  # of the real axis, beyond 1 and below the lowest eigenvalue
NETWORK: dict[str, Any] = {"color": GREY, "linewidth": 0.6, "alpha": 0.6, "zorder": 1}
EXAMPLE: dict[str, Any] = {"color": INK, "linewidth": 0.9, "zorder": 2}
EXACT: dict[str, Any] = {"color": COLORS[0], "linewidth": 1.6, "zorder": 3}
PAPER: dict[str, Any] = {"color": COLORS[1], "linewidth": 1.4, "linestyle": (0, (4, 2)), "zorder": 3}
DIVERGED: dict[str, Any] = {
    "linestyle": "none",
    "marker": "X",
    "markersize": 6,
    "markeredgecolor": "white",
    "zorder": 4,
}
ONE: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": ":"}
BULK: dict[str, Any] = {"color": GREY, "linewidth": 0.8}


class Trajectory(NamedTuple):
    """Learning of a network or a theory: loss (epochs,), NaN after divergence, and real parts (records, k)."""

    line: dict[str, Any]
    loss: Array
    recorded: Array
    real_parts: Array
    diverged: bool

    @property
    def last(self) -> int:
        """The last epoch with a finite loss."""
        return int(np.flatnonzero(np.isfinite(self.loss))[-1])


def divergence(dataset: xr.Dataset) -> Figure:
    """Draw the loss and, below it, the largest real parts of eigenvalues of W, for each gain and target.

    Of each network the leading eigenvalue is drawn; of one example, the first that diverged or else the first, all
    recorded ones. The exact theory takes the networks' gradient steps, and may diverge too.

    Takes measurements of the experiment `divergence` along `gain`, `target` and `sample`.
    """
    run = networks_of(dataset, "divergence", "fixed_point", DRAWN, ("gain", "target", "sample")).compute()
    gains, targets = ([float(x) for x in trained_along(run, dim)] for dim in ("gain", "target"))
    with styled():
        figure = Figure(figsize=(0.8 + 2.9 * len(targets), 1.0 + 3.4 * len(gains)), layout="constrained")
        heights = [1, 1.15] * len(gains)
        grid = figure.subplots(2 * len(gains), len(targets), sharex=True, squeeze=False, height_ratios=heights)
        for gain, above, below in zip(gains, grid[::2], grid[1::2], strict=True):
            for target, losses, eigenvalues in zip(targets, above, below, strict=True):
                condition = Condition(run, gain, target)
                losses.set_title(condition_label(condition))
                trajectories = _trajectories(condition)
                _draw_losses(losses, trajectories)
                _draw_eigenvalues(eigenvalues, trajectories, gain)
                if not trajectories:
                    mark_empty(losses)
            above[0].set_ylabel("loss\n/ initial loss")
            below[0].set_ylabel("largest real parts\nof eigenvalues of $W$")
        for ax in grid[-1]:
            ax.set_xlabel("epoch")
        label_panels(figure, grid.flat, offset=(-18, 5))
        figure.align_ylabels()
        entries = [
            entry(EXACT_LABEL, **EXACT),
            entry(PAPER_LABEL, **PAPER),
            entry("networks", **NETWORK),
            entry("example network, all recorded eigenvalues", **EXAMPLE),
            entry("diverged", color=INK, **DIVERGED),
            entry("1: no stable fixed point above", **ONE),
            entry("$g$: the bulk is below", **BULK),
        ]
        figure.legend(handles=entries, loc="outside upper center", ncols=2)
    return figure


def _trajectories(condition: Condition) -> list[Trajectory]:
    """Return the trajectories of the networks, then of the theories."""
    example = int(condition.diverged.argmax()) if condition.diverged.any() else 0
    found = []
    for sample, diverged in enumerate(condition.diverged):
        network = condition.networks.isel(sample=sample)
        loss, recorded = network["loss"].values, network["recorded_epoch"].values
        real = network["eigenvalue_real_history"].values
        line, shown = (EXAMPLE, real) if sample == example else (NETWORK, real[:, :1])
        found.append(Trajectory(line, loss, recorded, shown, bool(diverged)))
    for theory, line in ((condition.expansion, PAPER), (condition.exact, EXACT)):
        if theory is not None:
            loss, outlier = theory["loss"].values, theory["outlier"].values[:, None]
            found.append(Trajectory(line, loss, theory["epoch"].values, outlier, bool(np.isnan(loss[-1]))))
    return [one for one in found if np.isfinite(one.loss).any()]


def _draw_losses(ax: Axes, trajectories: list[Trajectory]) -> None:
    lowest, highest = LOSS_LIMITS
    for one in trajectories:
        relative = np.clip(one.loss[: one.last + 1] / one.loss[0], 0.1 * lowest, highest)
        ax.plot(np.arange(one.last + 1), relative, **one.line)
        if one.diverged:
            ax.plot(one.last, relative[-1], color=one.line["color"], clip_on=False, **DIVERGED)
    ax.set(yscale="log", ylim=LOSS_LIMITS)


def _draw_eigenvalues(ax: Axes, trajectories: list[Trajectory], gain: float) -> None:
    highest, lowest = 1 + MARGIN, gain
    for one in trajectories:
        # After the last finite loss the weights are meaningless.
        kept = one.recorded <= one.last
        epochs, real = one.recorded[kept], one.real_parts[kept]
        ax.plot(epochs, real, **one.line)
        lowest = np.nanmin(real, initial=lowest)
        if one.diverged and epochs.size:
            ax.plot(epochs[-1], min(real[-1, 0], highest), color=one.line["color"], clip_on=False, **DIVERGED)
    ax.axhline(1, zorder=1, **ONE)
    ax.axhline(gain, zorder=1, **BULK)
    ax.set_ylim(lowest - MARGIN, highest)
