"""Paper Fig. 2: how fast tasks are learned, and what learning writes, against the gain of the initial connectivity."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankscope.figures.averages import LABELS, draw_averages, explain, over_converged, scale_averages
from rankscope.figures.selection import the_only, with_dims
from rankscope.figures.style import INK, label_panels, styled, task_label

SHOWN = ("convergence_epoch", "change_norm", "shuffled_loss", "functional_rank")


def gain(dataset: xr.Dataset) -> Figure:
    """Draw four quantities against g, one curve a task: mean and standard deviation over the converged samples.

    Parameters
    ----------
    dataset
        Measurements of the experiment `gain` along `task`, `gain` and `sample`, of one `hidden_size`.

    Raises
    ------
    InputError
        If it holds several hidden sizes.
    """
    whole = with_dims(the_only(dataset, "hidden_size"), "task", "gain", "sample")
    averages = {name: over_converged(whole, name) for name in SHOWN}
    with styled():
        figure = Figure(figsize=(5.5, 4.8), layout="constrained")
        axes = dict(zip(SHOWN, figure.subplots(2, 2, sharex=True).flat, strict=True))
        handles: dict[str, Line2D] = {}
        for name, ax in axes.items():
            curves = {task_label(task): averages[name].sel(task=task) for task in whole["task"].values}
            handles = draw_averages(ax, "gain", curves)
            ax.set(xlabel="gain $g$ of the initial connectivity", ylabel=LABELS[name])
            ax.tick_params(labelbottom=True)
            scale_averages(ax, name)
        # The panels share it; a gain at which nothing converged belongs to it, too.
        gains = whole["gain"].values
        margin = 0.05 * float(np.ptp(gains)) or 0.1
        axes["shuffled_loss"].set_xlim(gains.min() - margin, gains.max() + margin)
        axes["shuffled_loss"].axhline(1, color=INK, linewidth=0.8, linestyle=":", zorder=0)
        label_panels(figure, list(axes.values()))
        figure.align_ylabels()
        explain(figure, averages, handles)
    return figure
