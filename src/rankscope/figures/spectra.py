"""Schuessler et al. 2020, supplement: singular values and eigenvalues before and after learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from rankscope.figures.labels import task_label
from rankscope.figures.selection import over_tasks, require
from rankscope.plot import spectrum
from rankscope.plot.style import GREY, INK, entry, gain_entries, gain_label, label_panels, series, styled

SHOWN = 40
CHANGE: dict[str, Any] = {"linestyle": "none", "markersize": 2.5}
TRAINED: dict[str, Any] = {"linewidth": 3, "alpha": 0.4}
INITIAL: dict[str, Any] = {"linewidth": 0.8, "linestyle": "--"}
ONE: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": ":"}
MATRICES = {"change": r"$\Delta W$", "trained": "$W$"}


def spectra(dataset: xr.Dataset) -> Figure:
    """Draw the singular values and eigenvalues of dW and W, a block a task: seven panels at three gains.

    Takes measurements along `task` and `gain`. Of several samples the first is drawn.
    """
    require(dataset, "spectra", "singular_value", "eigenvalue_real", "eigenvalue_imag")
    run = over_tasks(dataset).isel(sample=0)
    names, gains = run["task"].values, run["gain"].values
    limit = _limit(run)
    with styled():
        figure = Figure(figsize=(max(5.2, 2.8 + 1.4 * len(gains)), 0.3 + 2.8 * len(names)), layout="constrained")
        panels: list[Axes] = []
        for block, name in zip(np.ravel(figure.subfigures(len(names), 1)), names, strict=True):
            in_block = _draw_block(block, run.sel(task=name), limit)
            in_block[0].set_title(task_label(name), fontweight="bold")
            panels += in_block
        label_panels(figure, panels, offset=(-20, 5))
        entries = [
            *gain_entries(gains, linestyle="none"),
            entry(r"$\Delta W$", color=INK, marker="o", **CHANGE),
            entry("$W$", color=INK, **TRAINED),
            entry("$W_0$", color=INK, **INITIAL),
            entry("radius $g$", linestyle="none", marker="o", markersize=9, markerfacecolor="none", color=GREY),
            entry(r"Re $\lambda$ = 1", **ONE),
        ]
        figure.legend(
            handles=entries, loc="outside upper center", ncols=len(entries), handlelength=1.3, columnspacing=1.2
        )
    return figure


def _draw_block(block: SubFigure, run: xr.Dataset, limit: float) -> list[Axes]:
    gains = run["gain"].values
    grid = block.add_gridspec(len(MATRICES), 1 + len(gains), width_ratios=[1.6] + [1.0] * len(gains))
    panels = [block.add_subplot(grid[:, 0])]
    _draw_singular_values(panels[0], run)
    for row, (matrix, symbol) in enumerate(MATRICES.items()):
        last = row == len(MATRICES) - 1
        for index, gain in enumerate(gains):
            ax = block.add_subplot(grid[row, 1 + index])
            _draw_eigenvalues(ax, run.isel(gain=index).sel(matrix=matrix), index, limit)
            ax.set_title(f"{symbol}, {gain_label(gain)}", fontsize=8, pad=3)
            ax.set(xlabel=r"Re $\lambda$" if last else "", ylabel=r"Im $\lambda$" if index == 0 else "")
            ax.tick_params(labelbottom=last, labelleft=index == 0)
            panels.append(ax)
    return panels


def _draw_singular_values(ax: Axes, run: xr.Dataset) -> None:
    """Draw dW as points, W as a broad pale line, and W0 as a thin line above it."""
    values = run["singular_value"].isel(singular_index=slice(0, SHOWN))
    positive = values.where(values > 0)
    for index in range(run.sizes["gain"]):
        one, style = positive.isel(gain=index), series(index)
        x = one["singular_index"]
        ax.plot(x, one.sel(matrix="trained"), color=style["color"], **TRAINED)
        ax.plot(x, one.sel(matrix="initial"), color=style["color"], **INITIAL)
        ax.plot(x, one.sel(matrix="change"), **CHANGE, **style)
    ax.set_yscale("log")
    ax.set(xlabel="index of the singular value", ylabel="singular value")


def _draw_eigenvalues(ax: Axes, run: xr.Dataset, index: int, limit: float) -> None:
    values = run["eigenvalue_real"].values.astype(np.complex128)
    values.imag = run["eigenvalue_imag"].values  # a product with 1j would turn infinity into NaN
    spectrum(values, ax, radius=float(run["gain"]), limit=limit, color=series(index)["color"])


def _limit(run: xr.Dataset) -> float:
    """Return an axis limit that includes the circles and the eigenvalues of all networks that did not diverge."""
    kept = run.sel(matrix=list(MATRICES)).where(run["status"] != "diverged")
    values = np.abs([kept[name].values for name in ("eigenvalue_real", "eigenvalue_imag")])
    largest = values[np.isfinite(values)].max(initial=1.0)
    return 1.08 * max(float(largest), float(run["gain"].max().fillna(0)))
