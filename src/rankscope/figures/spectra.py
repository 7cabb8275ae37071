"""Supplement: what learning does to the spectra of the connectivity.

The change has a few large singular values, and puts a few eigenvalues outside the disc of radius g that random
connectivity fills.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from numpy.typing import NDArray

from rankscope.figures.selection import the_only, with_dims
from rankscope.figures.style import INK, QUIET, gain_label, label_panels, look, styled, task_label

SHOWN = 40
TRAINED: dict[str, Any] = {"linewidth": 3, "alpha": 0.4}
INITIAL: dict[str, Any] = {"linewidth": 0.8, "linestyle": "--"}
LINE: dict[str, Any] = {"linewidth": 0.8, "linestyle": ":"}
MATRICES = {"change": r"$\Delta W$", "trained": "$W$"}


def spectra(dataset: xr.Dataset) -> Figure:
    """Draw the singular values and eigenvalues of dW and W, a block a task: seven panels at three gains.

    Parameters
    ----------
    dataset
        Measurements of the experiment `spectra` along `task` and `gain`, of one `hidden_size`. Of several samples the
        first is drawn.

    Raises
    ------
    InputError
        If it holds several hidden sizes.
    """
    whole = with_dims(the_only(dataset, "hidden_size"), "task", "gain", "sample").isel(sample=0)
    names = whole["task"].values
    limit = _limit(whole)
    with styled():
        figure = Figure(
            figsize=(max(5.2, 2.8 + 1.4 * whole.sizes["gain"]), 0.3 + 2.8 * len(names)), layout="constrained"
        )
        blocks = np.ravel(figure.subfigures(len(names), 1))
        panels: list[Axes] = []
        for block, name in zip(blocks, names, strict=True):
            in_block = _draw_block(block, whole.sel(task=name), limit)
            in_block[0].set_title(task_label(name), fontweight="bold")
            panels += in_block
        label_panels(figure, panels, offset=(-20, 5))
        entries = _legend(whole["gain"].values)
        figure.legend(
            handles=entries, loc="outside upper center", ncols=len(entries), handlelength=1.3, columnspacing=1.2
        )
    return figure


def _draw_block(block: SubFigure, run: xr.Dataset, limit: float) -> list[Axes]:
    gains = run["gain"].values
    grid = block.add_gridspec(len(MATRICES), 1 + len(gains), width_ratios=[1.6] + [1.0] * len(gains))
    singular = block.add_subplot(grid[:, 0])
    _draw_singular_values(singular, run)
    panels = [singular]
    for row, matrix in enumerate(MATRICES):
        for index, gain in enumerate(gains):
            ax = block.add_subplot(grid[row, 1 + index])
            _draw_eigenvalues(ax, run.isel(gain=index).sel(matrix=matrix), index, limit)
            ax.set_title(f"{MATRICES[matrix]}, {gain_label(gain)}", fontsize=8, pad=3)
            ax.set_xlabel(r"Re $\lambda$" if row == len(MATRICES) - 1 else "")
            ax.set_ylabel(r"Im $\lambda$" if index == 0 else "")
            ax.tick_params(labelbottom=row == len(MATRICES) - 1, labelleft=index == 0)
            panels.append(ax)
    return panels


def _draw_singular_values(ax: Axes, run: xr.Dataset) -> None:
    """Draw those of dW as dots, of W as a broad pale line and of W0, which it mostly covers, as a thin one on it."""
    values = run["singular_value"].isel(singular_index=slice(0, SHOWN))
    positive = values.where(values > 0)
    for index in range(run.sizes["gain"]):
        one, color = positive.isel(gain=index), look(index)["color"]
        x = one["singular_index"]
        ax.plot(x, one.sel(matrix="trained"), color=color, **TRAINED)
        ax.plot(x, one.sel(matrix="initial"), color=color, **INITIAL)
        ax.plot(x, one.sel(matrix="change"), linestyle="none", markersize=2.5, **look(index))
    ax.set_yscale("log")
    ax.set(xlabel="index of the singular value", ylabel="singular value")


def _draw_eigenvalues(ax: Axes, run: xr.Dataset, index: int, limit: float) -> None:
    real, imaginary = run["eigenvalue_real"].values, run["eigenvalue_imag"].values
    ax.axvline(1, color=INK, zorder=3, **LINE)
    ax.add_patch(Circle((0, 0), float(run["gain"]), fill=False, edgecolor=QUIET, linewidth=0.9, zorder=3))
    ax.plot(
        real, imaginary, linestyle="none", marker="o", markersize=2.3, color=look(index)["color"], markeredgewidth=0
    )
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    outside = int(np.sum((np.abs(real) > limit) | (np.abs(imaginary) > limit)))
    if outside:
        ax.text(0.03, 0.97, f"{outside} outside", transform=ax.transAxes, va="top", fontsize=7)


def _limit(whole: xr.Dataset) -> float:
    """Return a limit that holds the eigenvalues of every network that did not diverge, and the circles."""
    kept = whole.sel(matrix=list(MATRICES)).where(whole["status"] != "diverged")
    parts = [np.abs(kept[name].values) for name in ("eigenvalue_real", "eigenvalue_imag")]
    largest = max((part[np.isfinite(part)].max(initial=1.0) for part in parts), default=1.0)
    return 1.08 * max(float(largest), float(whole["gain"].max()))


def _legend(gains: NDArray[np.float64]) -> list[Line2D]:
    colors = [Line2D([], [], linestyle="none", label=gain_label(gain), **look(i)) for i, gain in enumerate(gains)]
    circle = {"linestyle": "none", "marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": QUIET}
    styles: dict[str, dict[str, Any]] = {
        r"$\Delta W$": {"linestyle": "none", "marker": "o", "markersize": 2.5, "color": INK},
        "$W$": {"color": INK, **TRAINED},
        "$W_0$": {"color": INK, **INITIAL},
        "radius $g$": circle,
        r"Re $\lambda$ = 1": {"color": INK, **LINE},
    }
    return colors + [Line2D([], [], label=label, **style) for label, style in styles.items()]
