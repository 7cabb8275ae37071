"""Schuessler et al. 2020, Fig. 4: learning in the linear network against the gain g of the random connectivity.

The paper's laws are of lowest order in the target and so the same for all targets. The exact theory deviates from them
the more, the larger the target is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankscope.experiments.averages import over_converged
from rankscope.experiments.linear_theory import Array, exact_over_gain
from rankscope.figures.averages import draw_averages, explain_averages
from rankscope.figures.labels import axis_label
from rankscope.figures.selection import networks_of, trained_along
from rankscope.figures.theory_curves import EXACT, EXACT_LABEL, PAPER, target_label
from rankscope.plot.style import INK, entry, label_panels, series, styled

DRAWN = ("convergence_epoch", "learning_rate", "change_norm", "average_gradient", "shuffled_loss")
UPPER, LOWER = (0.04, 0.97, "top"), (0.04, 0.05, "bottom")


class Panel(NamedTuple):
    """A quantity, the paper's law for it, where the law is written, and whether it is relative to g = 0."""

    label: str
    law: Callable[[Array], Array]
    formula: str
    corner: tuple[float, float, str]
    relative: bool = True


PANELS = {
    "convergence_time": Panel(
        "convergence time $\\tau$\n/ that at $g$ = 0", lambda g: (1 - g**2) ** 2, "$(1-g^2)^2$", LOWER
    ),
    "change_norm": Panel(
        "norm of the change $\\|\\Delta W\\|$\n/ that at $g$ = 0", lambda g: 1 - g**2, "$1-g^2$", LOWER
    ),
    "average_gradient": Panel(
        "average gradient norm\n/ that at $g$ = 0", lambda g: 1 / (1 - g**2), "$1/(1-g^2)$", UPPER
    ),
    "shuffled_loss": Panel(
        "loss after shuffle\n/ initial loss", lambda g: g**4 * (2 - g**2) ** 2, "$g^4(2-g^2)^2$", UPPER, relative=False
    ),
}


def linear_gain(dataset: xr.Dataset) -> Figure:
    """Draw four quantities against g, one curve a target: mean and standard deviation over the converged samples.

    Convergence time is learning time: learning rate times epoch. The exact theory (solid) is gradient flow, which has
    no learning rate. The change of networks whose steps are too long to settle (target 2, g = 0.9) exceeds it.

    Takes measurements of the experiment `linear` along `gain`, `target` and `sample`.
    """
    run = networks_of(dataset, "linear-gain", "fixed_point", DRAWN, ("gain", "target", "sample")).compute()
    run["convergence_time"] = run["convergence_epoch"] * run["learning_rate"]
    targets = [float(target) for target in trained_along(run, "target") if target != 0]
    lowest, highest = float(run["gain"].min()), float(run["gain"].max())
    exact = {target: exact_over_gain(target, highest) for target in targets}
    averages = {name: over_converged(run, name) for name in PANELS}
    with styled():
        figure = Figure(figsize=(6.6, 5.4), layout="constrained")
        axes = list(figure.subplots(2, 2, sharex=True).flat)
        handles: dict[str, Line2D] = {}
        for (name, panel), ax in zip(PANELS.items(), axes, strict=True):
            by_target = {target: averages[name].sel(target=target) for target in targets}
            theories = {target: solved[name] for target, solved in exact.items()}
            handles = _draw(ax, panel, by_target, theories)
        margin = 0.05 * (highest - lowest) or 0.1
        axes[0].set_xlim(lowest - margin, highest + margin)
        label_panels(figure, axes)
        figure.align_ylabels()
        handles[EXACT_LABEL] = entry("", color=INK, **EXACT)
        handles["paper's laws"] = entry("", color=INK, **PAPER)
        explain_averages(figure, averages, handles, _note_on_reference(averages, targets))
    return figure


def _draw(
    ax: Axes, panel: Panel, by_target: dict[float, xr.Dataset], theories: dict[float, xr.DataArray]
) -> dict[str, Line2D]:
    curves = {}
    for index, (target, curve) in enumerate(by_target.items()):
        theory = theories[target]
        unit = theory_unit = 1.0
        if panel.relative:
            theory_unit = float(theory[0])
            measured = _at_zero_gain(curve)
            unit = theory_unit if np.isnan(measured) else measured
        ax.plot(theory["gain"], theory / theory_unit, color=series(index)["color"], **EXACT)
        curves[target_label(target)] = curve.assign(mean=curve["mean"] / unit, std=curve["std"] / unit)
    gains = next(iter(theories.values()))["gain"].values
    ax.plot(gains, panel.law(gains), color=INK, zorder=1.5, **PAPER)
    handles = draw_averages(ax, "gain", curves, joined=False)
    ax.set(xlabel=axis_label("gain"), ylabel=panel.label)
    ax.set_ylim(bottom=0)
    ax.tick_params(labelbottom=True)
    x, y, side = panel.corner
    ax.text(x, y, panel.formula, transform=ax.transAxes, va=side, fontsize=8)
    return handles


def _at_zero_gain(curve: xr.Dataset) -> float:
    """Return the mean at g = 0; NaN if there is none."""
    at_0 = curve["mean"].values[np.isclose(curve["gain"], 0)]
    return float(at_0[0]) if at_0.size else np.nan


def _note_on_reference(averages: dict[str, xr.Dataset], targets: list[float]) -> str:
    """Return a note on the targets whose quantities are relative to the theory, as no network converged at g = 0."""
    times = averages["convergence_time"]
    missing = [target_label(target) for target in targets if np.isnan(_at_zero_gain(times.sel(target=target)))]
    return f"no network converged at g = 0; relative to the exact theory there: {', '.join(missing)}" if missing else ""
