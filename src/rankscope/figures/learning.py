"""One task's column of the paper's Fig. 1: a trial, the loss, the singular values of the change, the truncation loss.

Takes a Dataset with the variables of `experiments.measure` along `gain`; draws, computes nothing.
"""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from rankscope.figures.panels import draw_loss, draw_singular_values, draw_trial, draw_truncation
from rankscope.figures.style import label_panels, styled


def learning(dataset: xr.Dataset, title: str | None = None) -> Figure:
    """Draw the column.

    Parameters
    ----------
    dataset
        Measurements along `gain`.
    title
        Above the figure.
    """
    with styled():
        channels = dataset.sizes["output_channel"]
        heights = [0.8 + 0.85 * channels, 6.6]
        figure = Figure(figsize=(4.4, sum(heights)), layout="constrained")
        trial_part, rest_part = figure.subfigures(2, 1, height_ratios=heights)
        trial_axes = list(trial_part.subplots(channels, 1, sharex=True, sharey=True, squeeze=False).flat)
        rest = list(rest_part.subplots(3, 1))
        draw_trial(trial_axes, dataset)
        draw_loss(rest[0], dataset)
        draw_singular_values(rest[1], dataset)
        rest[1].legend(loc="upper right")
        draw_truncation(rest[2], dataset)
        label_panels(figure, [trial_axes[0], *rest])
        if title is not None:
            figure.suptitle(title)
    return figure
