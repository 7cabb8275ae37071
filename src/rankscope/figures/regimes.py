"""Rank and size of the change beside the meters of the regime, against the norm of the output weights."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray
from scipy.stats import spearmanr

from rankscope.experiments.averages import averages_of
from rankscope.figures.averages import MARKER_SIZE, draw_averages, explain_averages, scale_averages
from rankscope.figures.labels import task_label
from rankscope.figures.selection import over_tasks, require
from rankscope.plot.style import GREY, entry, gain_label, label_panels, series, styled

SHOWN = {
    "functional_rank": "functional rank",
    "change_norm": "norm of the change\n$\\|\\Delta W\\|$",
    "kernel_alignment": "kernel alignment\n(1: lazy, 0: rich)",
    "output_alignment": "alignment with\nthe outputs $\\rho$",
}
UNIT = (-0.04, 1.04)
SPREAD = 0.12
"""Vertical displacement of networks of one rank, so that they do not hide each other."""


def regimes(dataset: xr.Dataset) -> Figure:
    """Draw functional rank, |dW|, kernel and output alignment against |w|, and rank against richness, a row a task.

    Takes the measurements "norms", "truncation", "activity" and "kernel" along `task`, `gain`, `output_norm` and
    `sample`.
    """
    require(dataset, "regimes", "gain", "output_norm", *SHOWN)
    run = over_tasks(dataset, "output_norm")
    averages = {name: averages_of(run, name) for name in SHOWN}
    names, gains = run["task"].values, run["gain"].values
    with styled():
        figure = Figure(figsize=(10.2, 0.9 + 2.1 * len(names)), layout="constrained")
        axes = figure.subplots(len(names), len(SHOWN) + 1, squeeze=False)
        handles: dict[str, Line2D] = {}
        for row, task in zip(axes, names, strict=True):
            for ax, name in zip(row, SHOWN, strict=False):
                curves = {gain_label(gain): averages[name].sel(task=task, gain=gain) for gain in gains}
                handles = draw_averages(ax, "output_norm", curves)
                scale_averages(ax, name)
                _scale_norms(ax, run["output_norm"].values)
            row[2].set_ylim(*UNIT)
            _draw_null(row[3], run, task)
            _draw_ranks(row[-1], run.sel(task=task))
            row[0].set_ylabel(task_label(task), fontweight="bold")
        for ax, title in zip(axes[0], SHOWN.values(), strict=False):
            ax.set_title(title)
        axes[0, -1].set_title("functional rank\nagainst kernel alignment")
        for ax in axes[-1, :-1]:
            ax.set_xlabel("norm of the outputs $|w|$")
        axes[-1, -1].set_xlabel("kernel alignment")
        label_panels(figure, axes.ravel(), offset=(-14, 5))
        random = "random outputs, $1/\\sqrt{N}$"
        null = entry(random, color=GREY, linestyle=":", linewidth=0.9)
        figure.legend([*handles.values(), null], [*handles, random], loc="outside upper center", ncols=6)
        explain_averages(figure, averages, {})
    return figure


def _scale_norms(ax: Axes, norms: NDArray[np.float64]) -> None:
    ax.set_xscale("log")
    ax.set_xlim(0.8 * norms.min(), 1.25 * norms.max())
    ax.set_xticks(norms, [f"{norm:.2g}" for norm in norms])
    ax.xaxis.set_minor_locator(NullLocator())


def _draw_null(ax: Axes, run: xr.Dataset, task: str) -> None:
    if "output_alignment_null" in run:
        null = run["output_alignment_null"].sel(task=task).max(["gain", "sample"])
        ax.plot(run["output_norm"].values, null.values, color=GREY, linewidth=0.9, linestyle=":", zorder=0)


def _draw_ranks(ax: Axes, run: xr.Dataset) -> None:
    """Draw the functional rank of each network against its kernel alignment, with their rank correlation."""
    lazy, ranks = (
        run[name].transpose("gain", "output_norm", "sample").values for name in ("kernel_alignment", "functional_rank")
    )
    known = np.isfinite(lazy) & np.isfinite(ranks)
    for index, _ in enumerate(run["gain"].values):
        shift = SPREAD * (index - (run.sizes["gain"] - 1) / 2)
        at = known[index]
        ax.plot(lazy[index][at], ranks[index][at] + shift, linestyle="none", markersize=MARKER_SIZE, **series(index))
    ax.set_xlim(*UNIT)
    ax.set_ylim(0, max(ranks[known].max(initial=1) * 1.25, 2))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if known.sum() > 3 and np.ptp(ranks[known]) > 0 and np.ptp(lazy[known]) > 0:
        correlation = spearmanr(lazy[known], ranks[known]).statistic
        text = f"Spearman {correlation:+.2f}".replace("-", "\N{MINUS SIGN}")
        ax.text(0.97, 0.97, text, transform=ax.transAxes, ha="right", va="top", fontsize=8)
