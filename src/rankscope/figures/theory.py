"""One linear network on paper: both theories over learning time, and networks trained to compare with, if any.

The exact theory is drawn solid, the paper's expansion dashed, networks as points with the standard deviation over them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.figures.style import COLOURS, INK, QUIET, label_panels, styled

LINES = {
    "exact": {"color": COLOURS[0], "linewidth": 1.6},
    "third order": {"color": COLOURS[1], "linestyle": (0, (4, 2))},
}
NAMES = {"exact": "exact, infinite width", "third order": "paper, third order"}
TAU = r"learning time $\tau$ (learning rate $\times$ epoch)"
LEAST_LOSS = 1e-4


def theory(predicted: xr.Dataset, simulated: xr.Dataset | None = None) -> Figure:
    """Draw loss, singular values, norm of the change, outlier and loss after shuffle against learning time.

    Parameters
    ----------
    predicted
        Over `theory` and `tau`, as `experiments.prediction.predict` returns it.
    simulated
        Over `sample` and `tau`, as `simulate` returns it.
    """
    with styled():
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.subplots(2, 3).ravel()
        loss, first, second, norm, outlier, shuffled = axes
        for ax, name, label in (
            (loss, "loss", "loss\n/ initial loss"),
            (norm, "change_norm", "norm of the change\n" + r"$\|\Delta W\|$"),
            (outlier, "outlier", "outlier eigenvalue\nof $W$"),
            (shuffled, "shuffled_loss", "loss after shuffle\n/ initial loss"),
        ):
            _draw(ax, predicted, simulated, name)
            ax.set_ylabel(label)
        for ax, index in ((first, 1), (second, 2)):
            _draw(ax, predicted, simulated, "singular_value", singular_index=index)
            ax.set_ylabel("singular value\n" + rf"$s_{index}$ of $\Delta W$")
        loss.set_yscale("log")
        loss.set_ylim(LEAST_LOSS, 2)
        gain = float(predicted.attrs["gain"])
        outlier.axhline(1, color=INK, linewidth=0.8, linestyle=":")
        if gain > 0:
            outlier.axhline(gain, color=QUIET, linewidth=0.8)
            along = outlier.get_yaxis_transform()
            outlier.text(1, gain, "bulk below $g$", color=QUIET, fontsize=7.5, va="bottom", ha="right", transform=along)
        outlier.set_ylim(min(gain, 0.95) * 0.95, 1.02)
        for ax in (first, second, norm, shuffled):
            ax.set_ylim(bottom=0)
        for ax in axes:
            ax.set_xlim(0, 1.03 * float(predicted["tau"][-1]))
            ax.locator_params(axis="x", nbins=4)
        figure.supxlabel(TAU, fontsize=9)
        label_panels(figure, list(axes), offset=(-42, 4))
        title = rf"$g$ = {gain:g}, $\hat z$ = {predicted.attrs['target']:g}"
        if simulated is not None:
            many = f"{simulated.sizes['sample']} networks of {int(simulated['hidden_size'])} units"
            title += f"; {many}: mean and standard deviation"
        handles, labels = loss.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, title=title)
    return figure


def _draw(ax: Axes, predicted: xr.Dataset, simulated: xr.Dataset | None, name: str, **where: Any) -> None:
    scale = float(predicted["loss"].isel(theory=0, tau=0)) if name == "loss" else 1.0
    for which, line in LINES.items():
        curve = predicted[name].sel(theory=which, **where) / scale
        ax.plot(predicted["tau"], curve, label=NAMES[which], zorder=3, **line)  # type: ignore[arg-type]
    if simulated is None:
        return
    values = simulated[name].sel(**where) / scale
    time = simulated["tau"]
    if "tau" not in values.dims:  # measured at the end alone
        values, time = values.expand_dims(tau=1, axis=-1), time[-1:]
    enough = values.notnull().sum("sample") > values.sizes["sample"] / 2
    mean, std = values.mean("sample").where(enough), values.std("sample", ddof=1 if values.sizes["sample"] > 1 else 0)
    ax.errorbar(
        time,
        mean,
        np.where(np.isfinite(std), std, 0),
        fmt="o",
        markersize=3,
        color="#555555",
        elinewidth=0.8,
        alpha=0.8,
        zorder=2,
        label="networks",
    )
