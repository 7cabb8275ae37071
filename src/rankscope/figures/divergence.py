"""Supplement: when learning a number fails, and what the connectivity looks like then.

A linear network answers with a finite number only while all eigenvalues of W stay below 1. Learning a large number
takes an outlier close to 1, where a step that is harmless elsewhere overshoots; it may land beyond, and then there is
no way back. Every network does it at its own time, or not at all, so they are drawn one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankscope.figures.selection import networks_of, trained_along
from rankscope.figures.style import COLOURS, INK, QUIET, label_panels, say_no_measurements, styled
from rankscope.figures.theory_curves import EXACT_LABEL, PAPER_LABEL, Array, Place

DRAWN = ("loss", "eigenvalue_real_history", "recorded_epoch", "learning_rate")
# A loss below has been learned, one above is on its way to infinity; in units of the first one.
LEAST_LOSS, MOST_LOSS = 1e-7, 100.0
BESIDE = 0.05  # shown of the real axis beyond 1, and below the lowest eigenvalue
NETWORK: dict[str, Any] = {"color": QUIET, "linewidth": 0.6, "alpha": 0.6, "zorder": 1}
ONE: dict[str, Any] = {"color": INK, "linewidth": 0.9, "zorder": 2}
EXACT: dict[str, Any] = {"color": COLOURS[0], "linewidth": 1.6, "zorder": 3}
PAPER: dict[str, Any] = {"color": COLOURS[1], "linewidth": 1.4, "linestyle": (0, (4, 2)), "zorder": 3}
FAILED: dict[str, Any] = {"linestyle": "none", "marker": "X", "markersize": 6, "markeredgecolor": "white", "zorder": 4}


@dataclass(frozen=True)
class Trajectory:
    """What one network, or a theory, went through.

    Attributes
    ----------
    loss
        (epochs,); NaN where there is none any more.
    epochs, real_parts
        (records,) and (records, k): of the eigenvalues that are drawn.
    """

    line: dict[str, Any]
    loss: Array
    epochs: Array
    real_parts: Array
    diverged: bool

    @property
    def last(self) -> int:
        """The last epoch with a finite loss."""
        return int(np.flatnonzero(np.isfinite(self.loss))[-1])


def divergence(dataset: xr.Dataset) -> Figure:
    """Draw the loss and, below it, the largest real parts of eigenvalues of W, for each gain and target.

    Every network is drawn, of its eigenvalues the first; of one network, the first that diverged or else the first, all
    that were recorded. The exact theory takes the very steps of the networks, and may diverge as they do.

    Parameters
    ----------
    dataset
        Measurements of the experiment `divergence` along `gain`, `target` and `sample`, of one `hidden_size`.

    Raises
    ------
    InputError
        If it is of another experiment, or holds several hidden sizes.
    """
    run = networks_of(dataset, "divergence", "fixed_point", DRAWN, ("gain", "target", "sample")).compute()
    gains, targets = ([float(x) for x in trained_along(run, dim)] for dim in ("gain", "target"))
    with styled():
        figure = Figure(figsize=(0.8 + 2.9 * len(targets), 1.0 + 3.4 * len(gains)), layout="constrained")
        heights = [1, 1.15] * len(gains)
        grid = figure.subplots(2 * len(gains), len(targets), sharex=True, squeeze=False, height_ratios=heights)
        for gain, above, below in zip(gains, grid[::2], grid[1::2], strict=True):
            for target, losses, eigenvalues in zip(targets, above, below, strict=True):
                place = Place(run, gain, target)
                losses.set_title(str(place))
                trajectories = _trajectories(place)
                _draw_losses(losses, trajectories)
                _draw_eigenvalues(eigenvalues, trajectories, gain)
                if not trajectories:
                    say_no_measurements(losses)
            above[0].set_ylabel("loss\n/ initial loss")
            below[0].set_ylabel("largest real parts\nof eigenvalues of $W$")
        for ax in grid[-1]:
            ax.set_xlabel("epoch")
        label_panels(figure, list(grid.flat), offset=(-18, 5))
        figure.align_ylabels()
        figure.legend(handles=_legend(), loc="outside upper center", ncols=2)
    return figure


def _trajectories(place: Place) -> list[Trajectory]:
    """Return the networks of a place, and the theories of it after them."""
    example = int(place.diverged.argmax()) if place.diverged.any() else 0
    found = []
    for sample, diverged in enumerate(place.diverged):
        network, shown = place.networks.isel(sample=sample), sample == example
        real = network["eigenvalue_real_history"].values
        recorded = network["recorded_epoch"].values
        found.append(
            Trajectory(
                ONE if shown else NETWORK,
                network["loss"].values,
                recorded,
                real if shown else real[:, :1],
                bool(diverged),
            )
        )
    for theory, line in ((place.expansion, PAPER), (place.exact, EXACT)):
        if theory is not None:
            loss, outlier = theory["loss"].values, theory["outlier"].values[:, None]
            found.append(Trajectory(line, loss, theory["epoch"].values, outlier, bool(np.isnan(loss[-1]))))
    return [one for one in found if np.isfinite(one.loss).any()]


def _draw_losses(ax: Axes, trajectories: list[Trajectory]) -> None:
    for one in trajectories:
        relative = np.clip(one.loss[: one.last + 1] / one.loss[0], 0.1 * LEAST_LOSS, MOST_LOSS)
        ax.plot(np.arange(one.last + 1), relative, **one.line)
        if one.diverged:
            ax.plot(one.last, relative[-1], color=one.line["color"], clip_on=False, **FAILED)
    ax.set(yscale="log", ylim=(LEAST_LOSS, MOST_LOSS))


def _draw_eigenvalues(ax: Axes, trajectories: list[Trajectory], gain: float) -> None:
    highest, lowest = 1 + BESIDE, gain
    for one in trajectories:
        # Weights whose loss is not finite are not those of a network any more.
        kept = one.epochs <= one.last
        epochs, real = one.epochs[kept], one.real_parts[kept]
        ax.plot(epochs, real, **one.line)
        lowest = np.nanmin(real, initial=lowest)
        if one.diverged and epochs.size:
            end = min(real[-1, 0], highest)
            ax.plot(epochs[-1], end, color=one.line["color"], clip_on=False, **FAILED)
    ax.axhline(1, color=INK, linewidth=0.8, linestyle=":", zorder=1)
    ax.axhline(gain, color=QUIET, linewidth=0.8, zorder=1)
    ax.set_ylim(lowest - BESIDE, highest)


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], label=EXACT_LABEL, **EXACT),
        Line2D([], [], label=PAPER_LABEL, **PAPER),
        Line2D([], [], label="networks", **NETWORK),
        Line2D([], [], label="one of them, with all recorded eigenvalues", **ONE),
        Line2D([], [], color=INK, label="diverged", **FAILED),
        Line2D([], [], color=INK, linewidth=0.8, linestyle=":", label="1: there is no fixed point beyond"),
        Line2D([], [], color=QUIET, linewidth=0.8, label="$g$: the bulk is below"),
    ]
