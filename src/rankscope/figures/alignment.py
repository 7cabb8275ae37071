"""Alignment of the leading directions of the change with inputs, outputs, activity and adjoints, against the gain."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from rankscope.experiments.averages import averages_of
from rankscope.figures.averages import draw_averages, explain_averages
from rankscope.figures.labels import axis_label, task_label
from rankscope.figures.selection import over_tasks, require
from rankscope.plot.style import GREY, entry, label_panels, series, styled

# Title -> partner and stage beside v, then beside u.
CURVES = {
    "inputs": (("inputs", "before"), ("inputs", "before")),
    "outputs": (("outputs", "before"), ("outputs", "before")),
    r"$W_0$ inputs (for $v$), $W_0^T$ outputs (for $u$)": (("W0 inputs", "before"), ("W0^T outputs", "before")),
    "activity (for $v$), adjoints (for $u$), after learning": (("activity", "after"), ("adjoints", "after")),
}
FIRST = "inputs"
SIDES = {"right": r"overlap of $v$ (reads)", "left": r"overlap of $u$ (writes)"}


def alignment(dataset: xr.Dataset) -> Figure:
    """Draw the overlaps of the leading directions with partners against g, a column a task.

    The overlap of a network is the mean over its directions, weighted with their shares of |dW|^2. Takes the
    measurement "anatomy" along `task`, `gain` and `sample`.
    """
    require(dataset, "alignment", "gain", "overlap", "direction_share")
    run = over_tasks(dataset).isel(block=0)
    weight = run["direction_share"].fillna(0)
    gains = run["gain"].values
    names = run["task"].values
    averages: dict[str, xr.Dataset] = {}
    with styled():
        figure = Figure(figsize=(1.0 + 2.1 * len(names), 4.9), layout="constrained")
        axes = figure.subplots(len(SIDES), len(names), sharex=True, sharey=True, squeeze=False)
        handles: dict[str, Line2D] = {}
        for row, (side, title) in enumerate(SIDES.items()):
            found = {}
            for label, pairs in CURVES.items():
                partner, stage = pairs[row]
                at = {"partner": partner, "stage": stage, "side": side}
                overlap = (run["overlap"].sel(at) * weight).sum("direction", skipna=True) / weight.sum("direction")
                known = run["overlap"].sel(at).notnull().any("direction")
                found[label] = averages_of(run.assign(value=overlap.where(known)), "value")
                null = float(run["overlap_null"].sel(at).max())
                for ax in axes[row]:
                    ax.axhline(null, color=GREY, linewidth=0.7, linestyle=":", zorder=0)
            averages[side] = found[FIRST]
            for ax, name in zip(axes[row], names, strict=True):
                curves = {label: one.sel(task=name) for label, one in found.items()}
                # Networks that did not converge are marked once, and partners that do not exist (W0 inputs at g = 0)
                # are not missing.
                curves = {label: one if label == FIRST else _there(one) for label, one in curves.items()}
                handles = draw_averages(ax, "gain", curves) | handles
                _draw_theory(ax, gains, 0 if side == "right" else 1)
                if row == 0:
                    ax.set_title(task_label(name))
                else:
                    ax.set_xlabel(axis_label("gain"))
            axes[row, 0].set_ylabel(title)
        axes[0, 0].set_ylim(-0.02, 1.02)
        label_panels(figure, axes.ravel(), offset=(-14, 5))
        lines = [
            entry("linear theory, small learning time", color=GREY, linestyle="--", linewidth=1),
            entry("random direction", color=GREY, linestyle=":", linewidth=0.9),
        ]
        figure.legend(
            [*handles.values(), *lines],
            [*handles, *(str(line.get_label()) for line in lines)],
            loc="outside upper center",
            ncols=2,
        )
        explain_averages(
            figure, averages, {}, "means over directions are weighted with their shares of $|\\Delta W|^2$"
        )
    return figure


def _there(curve: xr.Dataset) -> xr.Dataset:
    return curve.isel(gain=(curve["count"] > 0).values)


def _draw_theory(ax: object, gains: NDArray[np.float64], index: int) -> None:
    """Draw 1 - g^2, the overlap of R m with m and of R^T w with w for a random W0 with g < 1."""
    g = np.linspace(0, min(1.0, float(np.nanmax(gains))), 50)
    ax.plot(g, 1 - g**2, color=series(index)["color"], linestyle="--", linewidth=1.0, zorder=1)  # type: ignore[attr-defined]
