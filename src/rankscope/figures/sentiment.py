"""Schuessler et al. 2020, Fig. 5 and supplement: the learned change of a sentiment classifier, and the rank it needs.

Top: singular values of the recurrent weights of the last layer, and the accuracy with the change, or the weights
themselves, truncated. Below: loss and accuracy along training, and the ranks that the accuracy needs, where copies of
the network were kept; the other weight matrices and the truncated loss; each gate separately.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import InputError
from rankscope.plot.style import GREY, INK, entry, label_panels, mark_empty, series, styled

DRAWN = (
    "singular_value",
    "gate_singular_value",
    "truncation_loss",
    "truncation_accuracy",
    "accuracy",
    "evaluation_loss",
    "loss",
    "validation_loss",
    "validation_accuracy",
)
ALONG = "functional_rank_along"
SYMBOLS = {"initial": "$W_0$", "trained": "$W$", "change": r"$\Delta W$"}
WHOLE: dict[str, dict[str, Any]] = {
    "initial": {"color": INK, "linewidth": 0.9, "linestyle": "--", "zorder": 3},
    "trained": {"color": series(0)["color"], "linewidth": 3.0, "alpha": 0.45},
    "change": {"linestyle": "none", "markersize": 2.5, "markeredgewidth": 0, "zorder": 4, **series(1)},
}
BY_GATE: dict[str, dict[str, Any]] = {
    "trained": {"linewidth": 2.5, "alpha": 0.35},
    "initial": {"linewidth": 0.7, "linestyle": "--"},
    "change": {},
}
TRUNCATED = {"change": r"$W_0 + \Delta W$ truncated", "trained": "$W$ truncated"}
CURVE: dict[str, Any] = {"markersize": 3, "markeredgewidth": 0, "linewidth": 1.1}
OTHER_SAMPLE: dict[str, Any] = {"linewidth": 0.5, "alpha": 0.5}
FULL: dict[str, Any] = {"color": GREY, "linewidth": 0.9, "linestyle": ":"}
ONE_PERCENT = 0.01
RANKS = (0, 5, 10, 30, 100, 255)


def sentiment(dataset: xr.Dataset) -> Figure:
    """Draw singular values, truncation curves and the course of training: two main panels and nine further ones.

    Takes measurements of the experiment `sentiment`. Of several samples the first is drawn, with thin curves of the
    others; all networks must be of one size and kind.
    """
    run = _networks(dataset)
    weights = _recurrent_first(run)
    with styled():
        figure = Figure(figsize=(7.4, 10.4), layout="constrained")
        grid = figure.add_gridspec(4, 6, height_ratios=[1.35, 1, 1, 1])
        axes = [figure.add_subplot(grid[0, begin : begin + 3]) for begin in (0, 3)]
        axes += [figure.add_subplot(grid[row, begin : begin + 2]) for row in (1, 2, 3) for begin in (0, 2, 4)]
        if not run.sizes["sample"]:
            for ax in axes:
                mark_empty(ax)
            return figure
        first = run.isel(sample=0)
        course, spectra, by_gate = axes[2:5], (axes[0], *axes[5:7]), axes[8:]
        for ax, weight in zip(spectra, weights, strict=False):
            _draw_whole(ax, first, weight)
        for ax, weight in zip(by_gate, weights, strict=False):
            _draw_gates(ax, first, weight)
        _draw_truncated(axes[1], run, "truncation_accuracy", "accuracy")
        _draw_truncated(axes[7], run, "truncation_loss", "evaluation_loss")
        _draw_course(course[0], run, {"loss": "training", "validation_loss": "validation"}, "loss")
        _draw_course(course[1], run, {"validation_accuracy": "validation"}, "accuracy")
        if ALONG in run:
            _draw_ranks(course[2], run)
        for ax in (axes[0], axes[5], axes[8]):
            ax.set_ylabel("singular value")
        for ax in axes:
            if not ax.lines:
                mark_empty(ax)
        label_panels(figure, axes, offset=(-26, 5))
        _explain(figure, axes, run)
    return figure


def weight_label(name: str) -> str:
    """Return a name for a weight of a torch network: "layer 2, recurrent" for weight_hh_l1."""
    layer = int(name.rpartition("_l")[2]) + 1
    return f"layer {layer}, {'recurrent' if '_hh_' in name else 'input'}"


def _networks(dataset: xr.Dataset) -> xr.Dataset:
    """Return the drawn variables along `sample`, of the networks that have a truncation curve."""
    absent = [name for name in (*DRAWN, "status") if name not in dataset.variables]
    if absent:
        raise InputError(f"dataset must be of a run of 'sentiment', got one without {', '.join(absent)}")
    other = [str(dim) for dim in dataset["status"].dims if dim != "sample"]
    if other:
        raise InputError(f"dataset must differ by sample only, got several {other[0]}; choose with dataset.isel")
    along = [name for name in (ALONG, "functional_rank", "functional_rank_trained") if ALONG in dataset]
    run = dataset[[*DRAWN, *along, "status"]].compute()
    run = run if "sample" in run["status"].dims else run.expand_dims("sample")
    known = run["truncation_loss"].notnull().any(["truncated", "rank"])
    return run.isel(sample=known.values)


def _recurrent_first(run: xr.Dataset) -> list[str]:
    """Return the weights: recurrent ones from the last layer to the first, then those between layers."""
    names = [str(name) for name in run["weight"].values]
    recurrent = sorted((name for name in names if "_hh_" in name), reverse=True)
    return recurrent + sorted(set(names) - set(recurrent), reverse=True)


def _draw_whole(ax: Axes, network: xr.Dataset, weight: str) -> None:
    values = network["singular_value"].sel(weight=weight)
    for matrix, line in WHOLE.items():
        ax.plot(values["singular_index"], values.sel(matrix=matrix), **line)
    ax.set(title=weight_label(weight), xlabel="index of the singular value")
    ax.set_ylim(bottom=0)


def _draw_gates(ax: Axes, network: xr.Dataset, weight: str) -> None:
    values = network["gate_singular_value"].sel(weight=weight)
    for index in range(values.sizes["gate"]):
        for matrix, line in BY_GATE.items():
            one = values.isel(gate=index).sel(matrix=matrix)
            ax.plot(one["singular_index"], one, color=series(index)["color"], **line)
    ax.set(title=f"{weight_label(weight)}, by gate", xlabel="index of the singular value")
    ax.set_ylim(bottom=0)


def _draw_truncated(ax: Axes, run: xr.Dataset, curve: str, full: str) -> None:
    for index, kind in enumerate(TRUNCATED):
        curves = run[curve].sel(truncated=kind)
        for sample in range(1, run.sizes["sample"]):
            ax.plot(run["rank"], curves.isel(sample=sample), color=series(index)["color"], **OTHER_SAMPLE)
        ax.plot(run["rank"], curves.isel(sample=0), **CURVE, **series(index))
    level = float(run[full].isel(sample=0))
    ax.axhline(level, zorder=0, **FULL)
    if full == "accuracy":
        ax.axhspan(level - ONE_PERCENT, level, color=GREY, alpha=0.25, linewidth=0, zorder=0)
    ax.set(
        title="all matrices truncated",
        xlabel="rank (logarithmic above 10)",
        ylabel="validation accuracy" if full == "accuracy" else "validation loss",
    )
    # The curves change most at small ranks.
    ax.set_xscale("symlog", linthresh=10, linscale=1.2)
    ax.set_xticks(RANKS, map(str, RANKS))
    ax.set_xticks([], minor=True)
    ax.set_xlim(-0.4, max(RANKS[-1], float(run["rank"].max())) * 1.05)


def _draw_course(ax: Axes, run: xr.Dataset, curves: dict[str, str], label: str) -> None:
    """Draw curves over passes; those of validation have the second color. A training loss is with dropout."""
    passes = run["epoch"].values + 1
    for name, text in curves.items():
        style = {"color": series(0 if text == "training" else 1)["color"]}
        for sample in range(1, run.sizes["sample"]):
            ax.plot(passes, run[name].isel(sample=sample), **style, **OTHER_SAMPLE)
        ax.plot(passes, run[name].isel(sample=0), **style, linewidth=1.1, label=text)
    ax.set(title="training", xlabel="passes over the sentences", ylabel=label)
    ax.legend()


def _draw_ranks(ax: Axes, run: xr.Dataset) -> None:
    """Draw the ranks from which on the accuracy is within 1 %, at the kept epochs and at the end."""
    passes = [*run["kept_epoch"].values, run.sizes["epoch"]]
    for index, (kind, end) in enumerate((("change", "functional_rank"), ("trained", "functional_rank_trained"))):
        ranks = np.column_stack([run[ALONG].sel(truncated=kind).transpose("sample", ...).values, run[end].values])
        for row in ranks[1:]:
            ax.plot(passes, row, color=series(index)["color"], **OTHER_SAMPLE)
        ax.plot(passes, ranks[0], label=SYMBOLS[kind], **CURVE, **series(index))
    ax.set(title="rank within 1 % of accuracy", xlabel="passes over the sentences", ylabel="functional rank")
    ax.set_yscale("symlog", linthresh=10)
    ax.set_ylim(bottom=0)
    ax.set_yticks((0, 5, 10, 100), ("0", "5", "10", "100"))
    ax.legend()


def _explain(figure: Figure, axes: list[Axes], run: xr.Dataset) -> None:
    axes[0].legend(handles=[entry(symbol, **WHOLE[matrix]) for matrix, symbol in SYMBOLS.items()])
    curves = [entry(text, **CURVE, **series(index)) for index, text in enumerate(TRUNCATED.values())]
    axes[1].legend(handles=[*curves, entry("full rank; shaded: up to 1 % less", **FULL)], loc="lower right")
    gates = [entry(f"{gate} gate", color=series(i)["color"]) for i, gate in enumerate(run["gate"].values)]
    kinds = [entry(SYMBOLS[matrix], color=INK, **line) for matrix, line in BY_GATE.items()]
    figure.legend(handles=[*gates, *kinds], loc="outside lower center", ncols=len(gates) + len(kinds), title="by gate")
