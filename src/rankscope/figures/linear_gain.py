"""Paper Fig. 4: what the strength g of the random connectivity does to learning in the linear network.

Learning from stronger random connectivity is faster, goes along longer gradients to a smaller change, and ties the
change to its W0. The paper's laws, of lowest order in the target, are alike for all targets. The exact theory is not:
the larger the target, the further it is from the laws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankscope.figures.averages import draw_averages, explain, over_converged
from rankscope.figures.selection import networks_of, trained_along
from rankscope.figures.style import INK, QUIET, label_panels, look, styled
from rankscope.figures.theory_curves import ACCURACY, EXACT, PAPER, Array, target_label
from rankscope.theory import InfiniteWidth

DRAWN = ("convergence_epoch", "learning_rate", "change_norm", "average_gradient", "shuffled_loss")
BORROWED = "no network converged at g = 0; relative to the exact theory there: "
HIGHEST_GAIN = 0.99  # of a curve: at 1 there is no linear network left
CURVE_POINTS = 21  # of the exact theory, along g
TIMES = 100  # at which its gradient is averaged
UPPER, LOWER = (0.04, 0.97, "top"), (0.04, 0.05, "bottom")


@dataclass(frozen=True)
class Quantity:
    """One panel.

    Attributes
    ----------
    law, formula
        The paper's.
    corner
        Where the formula is written: x, y and which side of it is there.
    relative
        Whether to the value at g = 0.
    """

    label: str
    law: Callable[[Array], Array]
    formula: str
    corner: tuple[float, float, str]
    relative: bool = True


QUANTITIES = {
    "convergence_time": Quantity(
        "convergence time $\\tau$\n/ that at $g$ = 0", lambda g: (1 - g**2) ** 2, "$(1-g^2)^2$", LOWER
    ),
    "change_norm": Quantity(
        "norm of the change $\\|\\Delta W\\|$\n/ that at $g$ = 0", lambda g: 1 - g**2, "$1-g^2$", LOWER
    ),
    "average_gradient": Quantity(
        "average gradient norm\n/ that at $g$ = 0", lambda g: 1 / (1 - g**2), "$1/(1-g^2)$", UPPER
    ),
    "shuffled_loss": Quantity(
        "loss after shuffle\n/ initial loss", lambda g: g**4 * (2 - g**2) ** 2, "$g^4(2-g^2)^2$", UPPER, relative=False
    ),
}


def linear_gain(dataset: xr.Dataset) -> Figure:
    """Draw four quantities against g, one curve a target: mean and standard deviation over the converged samples.

    Convergence time is learning time, learning rate times epoch. The exact theory (solid) is that of gradient flow,
    which needs no learning rate and so is a curve over all g; its norm and loss after shuffle are those at the end.
    Networks whose steps are too long to settle (target 2, g = 0.9) wander on, and their change grows beyond it.

    Parameters
    ----------
    dataset
        Measurements of the experiment `linear` along `gain`, `target` and `sample`, of one `hidden_size`.

    Raises
    ------
    InputError
        If it is of another experiment, or holds several hidden sizes.
    """
    run = networks_of(dataset, "linear-gain", "fixed_point", DRAWN, ("gain", "target", "sample")).compute()
    run["convergence_time"] = run["convergence_epoch"] * run["learning_rate"]
    targets = [float(target) for target in trained_along(run, "target") if target != 0]
    # Denser towards the highest gain, where the curves bend.
    highest = min(float(run["gain"].max()), HIGHEST_GAIN)
    gains = np.unique(highest * np.sin(np.linspace(0, np.pi / 2, CURVE_POINTS)))
    exact = {target: _exact(gains, target) for target in targets}
    averages = {name: over_converged(run, name) for name in QUANTITIES}
    with styled():
        figure = Figure(figsize=(6.6, 5.4), layout="constrained")
        axes = list(figure.subplots(2, 2, sharex=True).flat)
        handles: dict[str, Line2D] = {}
        borrowed = set[str]()
        for (name, quantity), ax in zip(QUANTITIES.items(), axes, strict=True):
            curves = {}
            for index, target in enumerate(targets):
                curve, theory = averages[name].sel(target=target), exact[target][name]
                of_networks, of_theory = (_without_w0(curve), theory[0]) if quantity.relative else (1.0, 1.0)
                if np.isnan(of_networks):
                    of_networks = of_theory
                    borrowed.add(target_label(target))
                ax.plot(gains, theory / of_theory, color=look(index)["color"], **EXACT)
                curves[target_label(target)] = curve.assign(
                    mean=curve["mean"] / of_networks, std=curve["std"] / of_networks
                )
            ax.plot(gains, quantity.law(gains), color=INK, zorder=1.5, **PAPER)
            handles = draw_averages(ax, "gain", curves, joined=False)
            _finish(ax, quantity)
        margin = 0.05 * float(np.ptp(run["gain"].values)) or 0.1
        axes[0].set_xlim(float(run["gain"].min()) - margin, float(run["gain"].max()) + margin)
        label_panels(figure, axes)
        figure.align_ylabels()
        handles["exact, infinite width"] = Line2D([], [], color=INK, **EXACT)
        handles[r"paper, lowest order in $\hat z$"] = Line2D([], [], color=INK, **PAPER)
        explain(figure, averages, handles)
        if borrowed:
            notes = [figure.get_supxlabel(), BORROWED + ", ".join(sorted(borrowed))]
            figure.supxlabel("\n".join(filter(None, notes)), fontsize=7, color=QUIET)
    return figure


def _finish(ax: Axes, quantity: Quantity) -> None:
    ax.set(xlabel="gain $g$ of the initial connectivity", ylabel=quantity.label)
    ax.set_ylim(bottom=0)
    ax.tick_params(labelbottom=True)
    x, y, side = quantity.corner
    ax.text(x, y, quantity.formula, transform=ax.transAxes, va=side, fontsize=8)


def _without_w0(curve: xr.Dataset) -> float:
    """Return the mean at g = 0; NaN if there is none."""
    at_0 = curve["mean"].values[np.isclose(curve["gain"], 0)]
    return float(at_0[0]) if at_0.size else np.nan


def _exact(gains: Array, target: float) -> dict[str, Array]:
    """Return what the exact theory says of each quantity along these gains."""
    rows = []
    for gain in gains:
        theory = InfiniteWidth(float(gain), target, ACCURACY)
        until = theory.convergence_time()
        # Denser towards the end, where the gradient rises and falls.
        times = until * (1 - np.linspace(1, 0, TIMES) ** 3)
        along = theory.solve([*times, np.inf])
        end = along.isel(tau=-1)
        gradient = np.trapezoid(along["gradient_norm"][:-1], times) / until
        rows.append([until, float(end["change_norm"]), float(gradient), float(end["shuffled_loss"])])
    return dict(zip(QUANTITIES, np.transpose(rows), strict=True))
