"""Schuessler et al. 2020, Fig. 2: learning time and learned change against the gain of the initial connectivity."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankscope.experiments.averages import over_converged
from rankscope.figures.averages import draw_averages, explain_averages, scale_averages
from rankscope.figures.labels import axis_label, task_label
from rankscope.figures.selection import over_tasks, require
from rankscope.plot.style import INK, label_panels, styled

SHOWN = ("convergence_epoch", "change_norm", "shuffled_loss", "functional_rank")


def gain(dataset: xr.Dataset) -> Figure:
    """Draw four quantities against g, one curve a task: mean and standard deviation over the converged samples.

    Takes measurements along `task`, `gain` and `sample`.
    """
    require(dataset, "gain", "gain")
    run = over_tasks(dataset)
    averages = {name: over_converged(run, name) for name in SHOWN}
    with styled():
        figure = Figure(figsize=(5.5, 4.8), layout="constrained")
        axes = dict(zip(SHOWN, figure.subplots(2, 2, sharex=True).flat, strict=True))
        handles: dict[str, Line2D] = {}
        for name, ax in axes.items():
            curves = {task_label(task): averages[name].sel(task=task) for task in run["task"].values}
            handles = draw_averages(ax, "gain", curves)
            ax.set(xlabel=axis_label("gain"), ylabel=axis_label(name))
            ax.tick_params(labelbottom=True)
            scale_averages(ax, name)
        # The panels share the axis. It includes gains at which nothing converged.
        gains = run["gain"].values
        margin = 0.05 * float(np.ptp(gains)) or 0.1
        axes["shuffled_loss"].set_xlim(gains.min() - margin, gains.max() + margin)
        axes["shuffled_loss"].axhline(1, color=INK, linewidth=0.8, linestyle=":", zorder=0)
        label_panels(figure, axes.values())
        figure.align_ylabels()
        explain_averages(figure, averages, handles)
    return figure
