"""Both theories of one linear network over learning time, with trained networks for comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.experiments.averages import mean_and_std
from rankscope.figures.labels import axis_label
from rankscope.figures.theory_curves import EXACT_LABEL, PAPER_LABEL, target_label
from rankscope.plot.style import COLORS, GREY, INK, label_panels, styled

LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "exact": (EXACT_LABEL, {"color": COLORS[0], "linewidth": 1.6}),
    "third order": (PAPER_LABEL, {"color": COLORS[1], "linestyle": (0, (4, 2))}),
}
PANELS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("loss", {}, "loss / initial loss"),
    ("singular_value", {"singular_index": 1}, "singular value\n$s_1$ of $\\Delta W$"),
    ("singular_value", {"singular_index": 2}, "singular value\n$s_2$ of $\\Delta W$"),
    ("change_norm", {}, axis_label("change_norm")),
    ("outlier", {}, "outlier eigenvalue\nof $W$"),
    ("shuffled_loss", {}, axis_label("shuffled_loss")),
)
LOWEST_LOSS = 1e-4


def theory(predicted: xr.Dataset, simulated: xr.Dataset | None = None) -> Figure:
    """Draw loss, singular values, norm of the change, outlier and loss after shuffle against learning time.

    Parameters
    ----------
    predicted
        Over `theory` and `tau`, as `experiments.prediction.predict` returns it.
    simulated
        Over `sample` and `tau`, as `simulate` returns it.
    """
    gain = float(predicted.attrs["gain"])
    with styled():
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = list(figure.subplots(2, 3).flat)
        for ax, (name, where, label) in zip(axes, PANELS, strict=True):
            _draw(ax, predicted, simulated, name, **where)
            ax.set_ylabel(label)
            ax.set_xlim(0, 1.03 * float(predicted["tau"][-1]))
            ax.locator_params(axis="x", nbins=4)
            if name == "loss":
                ax.set(yscale="log", ylim=(LOWEST_LOSS, 2))
            elif name == "outlier":
                _draw_bulk(ax, gain)
            else:
                ax.set_ylim(bottom=0)
        figure.supxlabel(r"learning time $\tau$ (learning rate $\times$ epoch)", fontsize=9)
        label_panels(figure, axes, offset=(-42, 4))
        title = f"$g$ = {gain:g}, {target_label(predicted.attrs['target'])}"
        if simulated is not None:
            count = f"{simulated.sizes['sample']} networks of {int(simulated['hidden_size'])} units"
            title += f"; {count}: mean and standard deviation"
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, title=title)
    return figure


def _draw(ax: Axes, predicted: xr.Dataset, simulated: xr.Dataset | None, name: str, **where: Any) -> None:
    scale = float(predicted["loss"].isel(theory=0, tau=0)) if name == "loss" else 1.0
    for which, (label, line) in LINES.items():
        ax.plot(predicted["tau"], predicted[name].sel(theory=which, **where) / scale, label=label, zorder=3, **line)
    if simulated is None:
        return
    values, time = simulated[name].sel(**where) / scale, simulated["tau"]
    if "tau" not in values.dims:  # measured at the end only
        values, time = values.expand_dims(tau=1, axis=-1), time[-1:]
    points = mean_and_std(values)
    mean = points["mean"].where(points["count"] > values.sizes["sample"] / 2)
    ax.errorbar(
        time,
        mean,
        np.nan_to_num(points["std"].values),
        fmt="o",
        markersize=3,
        color="#555555",
        elinewidth=0.8,
        alpha=0.8,
        zorder=2,
        label="networks",
    )


def _draw_bulk(ax: Axes, gain: float) -> None:
    ax.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    if gain > 0:
        ax.axhline(gain, color=GREY, linewidth=0.8)
        right = ax.get_yaxis_transform()
        ax.text(1, gain, "bulk below $g$", color=GREY, fontsize=7.5, va="bottom", ha="right", transform=right)
    ax.set_ylim(min(gain, 0.95) * 0.95, 1.02)
