"""Learning of a task in infinitely wide nonlinear networks over epochs, with trained networks for comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.figures.labels import axis_label, task_label
from rankscope.plot.style import COLORS, GREY, INK, entry, label_panels, mark_criterion, styled

CURVES = 6
NETWORKS: dict[str, Any] = {"color": GREY, "linewidth": 0.7, "alpha": 0.8, "zorder": 1}


def nonlinear_limit(limit: xr.Dataset, networks: xr.Dataset | None = None) -> Figure:
    """Draw loss, norm and singular values of the change over epochs, and the outputs in the example trial.

    Parameters
    ----------
    limit
        As `NonlinearLimit.errors` returns it, with the attributes `task` and `nodes`. Bands are the standard deviation
        over scramblings.
    networks
        Over `sample`, as `NonlinearLimit.simulate` returns them.
    """
    value, scatter = limit.sel(estimate="value"), limit.sel(estimate="scrambling")
    epochs = limit["epoch"].values
    with styled():
        figure = Figure(figsize=(7.2, 5.0), layout="constrained")
        axes = figure.subplots(2, 2)
        loss, norm, singular, trial = axes.flat
        _curve(loss, value["loss"] / value["loss"][0], scatter["loss"] / value["loss"][0], COLORS[0])
        _curve(norm, value["change_norm"], scatter["change_norm"], COLORS[0])
        for index in range(1, min(CURVES, limit.sizes["singular_index"]) + 1):
            where = {"singular_index": index}
            _curve(
                singular, value["singular_value"].sel(where), scatter["singular_value"].sel(where), COLORS[index - 1]
            )
        if networks is not None:
            loss.plot(epochs, (networks["loss"] / networks["loss"].isel(epoch=0)).T, **NETWORKS)
            norm.plot(epochs, networks["change_norm"].T, **NETWORKS)
            for index in range(1, min(CURVES, limit.sizes["singular_index"]) + 1):
                singular.plot(epochs, networks["singular_value"].sel(singular_index=index).T, **NETWORKS)
        mark_criterion(loss)
        loss.set(yscale="log", ylabel="loss / initial loss")
        norm.set(ylabel=axis_label("change_norm"), ylim=(0, None))
        singular.set(ylabel="singular values of $\\Delta W$", ylim=(0, None))
        for ax in (loss, norm, singular):
            ax.set(xlabel="epoch", xlim=(0, epochs[-1]))
        _outputs(trial, value, networks)
        label_panels(figure, axes.flat, offset=(-34, 4))
        title = f"{task_label(limit.attrs['task'])}, $g$ = 0, infinitely many units ({limit.attrs['nodes']} nodes)"
        handles = [entry("limit; band: scatter between scramblings of the nodes", color=COLORS[0])]
        if networks is not None:
            handles.append(entry(f"networks of {networks.attrs['units']} units", color=GREY, linewidth=0.7))
        figure.legend(handles=handles, loc="outside upper center", ncols=2, title=title)
    return figure


def _curve(ax: Axes, value: xr.DataArray, scatter: xr.DataArray, color: str) -> None:
    known = value.notnull().values
    x, mean, spread = value["epoch"].values[known], value.values[known], np.nan_to_num(scatter.values[known])
    ax.plot(x, mean, color=color, zorder=3)
    ax.fill_between(x, np.maximum(mean - spread, 1e-12), mean + spread, color=color, alpha=0.25, linewidth=0, zorder=2)


def _outputs(ax: Axes, value: xr.Dataset, networks: xr.Dataset | None) -> None:
    recorded = value["example_output"].dropna("epoch", how="all").isel(epoch=-1)
    target = value["example_target"]
    time = np.arange(1, recorded.sizes["step"] + 1)
    for channel in range(recorded.sizes["output_channel"]):
        color = COLORS[channel % len(COLORS)]
        ax.plot(time, target.isel(output_channel=channel), color=INK, linewidth=0.8, linestyle=":", zorder=2)
        ax.plot(time, recorded.isel(output_channel=channel), color=color, zorder=3)
        if networks is not None:
            last = networks["example_output"].dropna("epoch", how="all").isel(epoch=-1, output_channel=channel)
            ax.plot(time, last.transpose("step", "sample"), **NETWORKS)
    ax.set(xlabel="step of the example trial", ylabel="outputs (targets dotted)", xlim=(0, time[-1]))
