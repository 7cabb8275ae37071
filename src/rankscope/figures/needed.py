"""The rank that a task needs, beside the functional rank, for each gain of the initial connectivity."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rankscope.experiments.averages import mean_and_std
from rankscope.experiments.needed import loss_at_rank, needed_rank, ranks_of, used_rank
from rankscope.figures.labels import axis_label, task_label
from rankscope.figures.selection import require, single
from rankscope.plot.style import entry, gain_label, label_panels, mark_criterion, mark_empty, note_below, series, styled

SHIFT = 0.03  # of the range of gains, between the two curves
KINDS = {"trained at rank $R$": "needed", "change truncated": "used"}


def needed(dataset: xr.Dataset) -> Figure:
    """Draw the loss after training at rank R, and the smallest R beside the functional rank against g, a column a task.

    Takes measurements along `task`, `gain`, `sample`, `trained_rank` and `start`.
    """
    require(dataset, "needed", "evaluation_loss", "initial_loss", "functional_rank", "trained_rank")
    run = single(dataset, "hidden_size") if "hidden_size" in dataset["status"].dims else dataset
    loss, ranks = loss_at_rank(run), ranks_of(run)
    found = {"needed": needed_rank(run), "used": used_rank(run)}
    names, gains = loss["task"].values, loss["gain"].values
    with styled():
        figure = Figure(figsize=(1.0 + 2.1 * len(names), 4.7), layout="constrained")
        axes = figure.subplots(2, len(names), squeeze=False, sharey="row")
        for column, name in enumerate(names):
            above, below = axes[:, column]
            above.set_title(task_label(name))
            for index, gain in enumerate(gains):
                table = loss.sel(task=name, gain=gain).values.astype(float)
                known = np.isfinite(table).any(0)
                if known.any():
                    style = {**series(index), "markersize": 4}
                    for row in table:
                        above.plot(
                            ranks,
                            row,
                            linestyle="none",
                            marker=style["marker"],
                            color=style["color"],
                            ms=2.5,
                            alpha=0.4,
                        )
                    means = np.exp(np.nanmean(np.log(table[:, known]), axis=0))
                    above.plot(np.array(ranks)[known], means, linewidth=1.1, **style)
            above.set_yscale("log")
            above.set_xlabel("rank $R$ in training")
            above.set_xticks(ranks)
            mark_criterion(above)
            width = float(np.ptp(gains)) or 1.0
            drawn = False
            for index, kind in enumerate(KINDS.values()):
                average = mean_and_std(found[kind].sel(task=name))
                style = {**series(len(gains) + index), "markersize": 5}
                known = (average["count"] > 0).values
                drawn |= bool(known.any())
                x = gains[known] + (index - 0.5) * SHIFT * width
                below.errorbar(
                    x, average["mean"].values[known], yerr=average["std"].values[known], linewidth=1.1, **style
                )
            if not drawn:
                mark_empty(below)
            below.set_xlabel(axis_label("gain"))
            below.set_xticks(gains)
            below.set_xlim(gains.min() - 0.08 * width, gains.max() + 0.08 * width)
            below.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0, 0].set_ylabel("loss / initial loss,\nbest start")
        axes[1, 0].set_ylabel("smallest rank\nbelow 5 %")
        axes[1, 0].set_ylim(bottom=0)
        label_panels(figure, axes.ravel(), offset=(-16, 6))
        lines = [entry(gain_label(gain), markersize=4, **series(index)) for index, gain in enumerate(gains)]
        lines += [entry(kind, markersize=5, **series(len(gains) + index)) for index, kind in enumerate(KINDS)]
        figure.legend(handles=lines, loc="outside upper center", ncols=len(lines))
        note_below(
            figure, "above: each network, and geometric means; below: means and standard deviations over networks"
        )
    return figure
