"""Paper Fig. 5 and supplement: what learning changed in a sentiment classifier, and how much of it is needed.

Above: singular values of the recurrent weights of the last layer, and the accuracy with the change, or the weights
themselves, truncated. Below: the same for the other inner weights and for the loss, and gate by gate.
"""

from __future__ import annotations

from typing import Any

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankscope.errors import InputError
from rankscope.figures.style import INK, QUIET, label_panels, look, say_no_measurements, styled

DRAWN = (
    "singular_value",
    "gate_singular_value",
    "truncation_loss",
    "truncation_accuracy",
    "accuracy",
    "evaluation_loss",
)
MATRICES = {"initial": "$W_0$", "trained": "$W$", "change": r"$\Delta W$"}
LINES: dict[str, dict[str, Any]] = {
    "initial": {"color": INK, "linewidth": 0.9, "linestyle": "--", "zorder": 3},
    "trained": {"color": look(0)["color"], "linewidth": 3.0, "alpha": 0.45},
    "change": {"linestyle": "none", "markersize": 2.5, "markeredgewidth": 0, "zorder": 4, **look(1)},
}
TRUNCATED = {"change": r"$W_0 + \Delta W$ truncated", "trained": "$W$ truncated"}
# Of each gate the change is a line in full color; W is a pale one of the same, W0 a thin one.
PALE: dict[str, Any] = {"linewidth": 2.5, "alpha": 0.35}
THIN: dict[str, Any] = {"linewidth": 0.7, "linestyle": "--"}
OTHER: dict[str, Any] = {"linewidth": 0.5, "alpha": 0.5, "marker": ""}
ONE_PERCENT = 0.01


def sentiment(dataset: xr.Dataset) -> Figure:
    """Draw singular values and truncation curves of a run: two main panels and six of the supplement.

    Parameters
    ----------
    dataset
        Measurements of the experiment `sentiment`. Of several samples, the first is drawn, and thin truncation curves
        of the others; all networks must be of one size and kind.

    Raises
    ------
    InputError
        If it is of another experiment, or its networks differ by something else than `sample`.
    """
    absent = [name for name in (*DRAWN, "status") if name not in dataset.variables]
    if absent:
        raise InputError(f"dataset must be of a run of 'sentiment', got one without {', '.join(absent)}")
    other = [str(dim) for dim in dataset["status"].dims if dim != "sample"]
    if other:
        raise InputError(f"dataset must differ by sample only, got several {other[0]}; choose with dataset.isel")
    run = dataset[[*DRAWN, "status"]].compute()
    run = run if "sample" in run["status"].dims else run.expand_dims("sample")
    finite = [index for index in range(run.sizes["sample"]) if bool(run["truncation_loss"][index].notnull().any())]
    run = run.isel(sample=finite)
    weights = _recurrent_first(run)
    with styled():
        figure = Figure(figsize=(7.4, 8.4), layout="constrained")
        grid = figure.add_gridspec(3, 6, height_ratios=[1.35, 1, 1])
        axes = [figure.add_subplot(grid[0, begin : begin + 3]) for begin in (0, 3)]
        axes += [figure.add_subplot(grid[row, begin : begin + 2]) for row in (1, 2) for begin in (0, 2, 4)]
        if not finite:
            for ax in axes:
                say_no_measurements(ax)
            return figure
        one = run.isel(sample=0)
        _draw_whole(axes[0], one, weights[0])
        _draw_truncated(axes[1], run, "truncation_accuracy", "accuracy")
        for ax, weight in zip(axes[2:4], weights[1:], strict=False):
            _draw_whole(ax, one, weight)
        _draw_truncated(axes[4], run, "truncation_loss", "evaluation_loss")
        for ax, weight in zip(axes[5:], weights, strict=False):
            _draw_gates(ax, one, weight)
        _label(axes)
        for ax in axes[2 + len(weights[1:3]) : 4] + axes[5 + len(weights[:3]) :]:
            say_no_measurements(ax)
        label_panels(figure, axes, offset=(-26, 5))
        _explain(figure, axes, run)
    return figure


def _recurrent_first(run: xr.Dataset) -> list[str]:
    """Return the names of the weights: recurrent ones from the last layer to the first, then those between layers."""
    names = [str(name) for name in run["weight"].values]
    recurrent = sorted((name for name in names if "_hh_" in name), reverse=True)
    return recurrent + sorted(set(names) - set(recurrent), reverse=True)


def weight_label(name: str) -> str:
    """Return what a weight of torch's is: "layer 2, recurrent" of weight_hh_l1."""
    layer = int(name.rpartition("_l")[2]) + 1
    return f"layer {layer}, {'recurrent' if '_hh_' in name else 'input'}"


def _draw_whole(ax: Axes, network: xr.Dataset, weight: str) -> None:
    values = network["singular_value"].sel(weight=weight)
    for matrix, line in LINES.items():
        ax.plot(values["singular_index"], values.sel(matrix=matrix), **line)
    ax.set_title(weight_label(weight))
    ax.set_ylim(bottom=0)


def _draw_gates(ax: Axes, network: xr.Dataset, weight: str) -> None:
    values = network["gate_singular_value"].sel(weight=weight)
    for index in range(values.sizes["gate"]):
        of_gate, color = values.isel(gate=index), look(index)["color"]
        ax.plot(values["singular_index"], of_gate.sel(matrix="trained"), color=color, **PALE)
        ax.plot(values["singular_index"], of_gate.sel(matrix="initial"), color=color, **THIN)
        ax.plot(values["singular_index"], of_gate.sel(matrix="change"), color=color)
    ax.set_title(f"{weight_label(weight)}, by gate")
    ax.set_ylim(bottom=0)


def _draw_truncated(ax: Axes, run: xr.Dataset, curve: str, whole: str) -> None:
    for index, kind in enumerate(TRUNCATED):
        curves = run[curve].sel(truncated=kind)
        for sample in range(1, run.sizes["sample"]):
            ax.plot(run["rank"], curves.isel(sample=sample), color=look(index)["color"], **OTHER)
        first = curves.isel(sample=0)
        ax.plot(run["rank"], first, markersize=3, markeredgewidth=0, linewidth=1.1, **look(index))
    level = float(run[whole].isel(sample=0))
    ax.axhline(level, color=QUIET, linewidth=0.9, linestyle=":", zorder=0)
    if whole == "accuracy":
        ax.axhspan(level - ONE_PERCENT, level, color=QUIET, alpha=0.25, linewidth=0, zorder=0)
    # Small ranks are where it happens; of the rest, there are many.
    ax.set_xscale("symlog", linthresh=10, linscale=1.2)
    ax.set_xticks([0, 5, 10, 30, 100, 255], ["0", "5", "10", "30", "100", "255"])
    ax.set_xticks([], minor=True)
    ax.set_xlim(-0.4, max(255, float(run["rank"].max())) * 1.05)


def _label(axes: list[Axes]) -> None:
    for ax in (axes[0], axes[2], axes[3], *axes[5:]):
        ax.set_xlabel("index of the singular value")
    for ax in (axes[0], axes[2], axes[5]):
        ax.set_ylabel("singular value")
    for ax, text in ((axes[1], "validation accuracy"), (axes[4], "validation loss")):
        ax.set(xlabel="rank (logarithmic above 10)", ylabel=text)
    axes[1].set_title("all inner weights truncated")
    axes[4].set_title("all inner weights truncated")


def _explain(figure: Figure, axes: list[Axes], run: xr.Dataset) -> None:
    axes[0].legend(handles=[Line2D([], [], label=text, **LINES[matrix]) for matrix, text in MATRICES.items()])
    curves = [
        Line2D([], [], markersize=3, markeredgewidth=0, label=text, **look(index))
        for index, text in enumerate(TRUNCATED.values())
    ]
    level = Line2D([], [], color=QUIET, linewidth=0.9, linestyle=":", label="whole; shaded: up to 1 % less")
    axes[1].legend(handles=[*curves, level], loc="lower right")
    gates = [
        Line2D([], [], color=look(index)["color"], label=f"{gate} gate")
        for index, gate in enumerate(run["gate"].values)
    ]
    kinds = [
        Line2D([], [], color=INK, label=r"$\Delta W$"),
        Line2D([], [], color=INK, label="$W$", **PALE),
        Line2D([], [], color=INK, label="$W_0$", **THIN),
    ]
    figure.legend(handles=[*gates, *kinds], loc="outside lower center", ncols=len(gates) + len(kinds), title="by gate")
