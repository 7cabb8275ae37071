"""Accuracy of truncated, resampled and low-rank networks on the five tasks of Dubreuil et al. 2022."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rankscope.experiments.populations import FULL, LOW_RANKS, PROTOCOL, PUBLISHED, SHORT
from rankscope.figures.selection import require, with_dims
from rankscope.plot.style import GREY, entry, label_panels, note_below, series, styled

LARGEST = 12
"""Largest rank that is drawn."""
WORDS = {1: "one Gaussian", 2: "two Gaussians", 3: "three Gaussians"}
TITLE_WIDTH = 20  # characters
FIRST_OF_POPULATIONS = 3  # colors of gains come before
ROWS = ("truncated", "resampled", "trained")
TITLES = {
    "truncated": "accuracy, change\ntruncated to rank $R$",
    "resampled": "accuracy, units\ndrawn at rank $R$",
    "trained": "accuracy, trained\nat rank $R$",
}


def populations(dataset: xr.Dataset) -> Figure:
    """Draw accuracies over rank, a column a task: of truncated, of resampled, and of networks trained at low rank.

    Takes the measurements "trial_accuracy" and "populations" along `task`, `gain`, `sample` and `trained_rank`.
    """
    require(dataset, "populations", "accuracy_of_rank", "trained_rank", "gain")
    run = with_dims(dataset, "task", "gain", "sample", "trained_rank")
    names = [name for name in PROTOCOL if name in run["task"].values]
    present = {name: [row for row in ROWS if _has(run.sel(task=name), row)] for name in names}
    rows = [row for row in ROWS if any(row in found for found in present.values())]
    with styled():
        figure = Figure(figsize=(1.3 + 1.75 * max(len(names), 2), 0.9 + 1.75 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), len(names), sharey=True, squeeze=False)
        gains: dict[float, Line2D] = {}
        for column, name in enumerate(names):
            title = textwrap.fill(f"{name.replace('_', ' ')} ({SHORT[name]})", TITLE_WIDTH)
            axes[0, column].set_title(title)
            for row, kind in enumerate(rows):
                ax = axes[row, column]
                if kind not in present[name]:
                    ax.set_visible(False)
                    continue
                one = run.sel(task=name)
                gains |= _truncated(ax, one, name) if kind == "truncated" else {}
                if kind == "resampled":
                    _resampled(ax, one)
                if kind == "trained":
                    _trained(ax, one)
                ax.axhline(0.5, color=GREY, linewidth=0.7, linestyle=":", zorder=0)
                ax.set_xlabel("rank $R$")
                ax.xaxis.set_major_locator(MaxNLocator(integer=True))
                ax.set_ylim(0.2, 1.03)
                if column == 0 or not axes[row, column - 1].get_visible():
                    ax.set_ylabel(TITLES[kind])
                    ax.tick_params(labelleft=True)
        label_panels(figure, [ax for ax in axes.flat if ax.get_visible()], offset=(-22, 6))
        lines = [
            *gains.values(),
            entry("published family a", color=GREY, linestyle="--", linewidth=1.0),
            entry("published family b", color=GREY, linestyle="-.", linewidth=1.0),
        ]
        if len(rows) > 1:
            lines += [entry("not resampled", color=GREY, marker="o", markersize=3, linewidth=1.0)]
            lines += [
                entry(f"units from {word}", markersize=4, **series(FIRST_OF_POPULATIONS + count - 1))
                for count, word in WORDS.items()
            ]
        figure.legend(handles=lines, loc="outside upper center", ncols=3 if len(names) > 2 else 2)
        note_below(
            figure,
            "means and standard deviations over networks; dotted: chance",
            _note(run, rows),
        )
    return figure


def _has(one: xr.Dataset, row: str) -> bool:
    full = FULL in one["trained_rank"].values
    if row == "truncated":
        return full and bool(one["accuracy_of_rank"].sel(trained_rank=FULL).notnull().any())
    if row == "resampled":
        found = "resampled_accuracy" in one and full
        return found and bool(one["resampled_accuracy"].sel(trained_rank=FULL).notnull().any())
    return any(_known(one, str(rank)) for rank in LOW_RANKS)


def _known(one: xr.Dataset, trained_rank: str) -> bool:
    there = trained_rank in one["trained_rank"].values
    return there and bool(one["accuracy_of_rank"].sel(trained_rank=trained_rank).notnull().any())


def _truncated(ax: Axes, one: xr.Dataset, name: str) -> dict[float, Line2D]:
    for (means, _), style in zip(PUBLISHED.get(name, {}).values(), ("--", "-."), strict=False):
        ax.plot(range(1, len(means) + 1), means, color=GREY, linestyle=style, linewidth=1.0, zorder=1)
    found = {}
    at = one["accuracy_of_rank"].sel(trained_rank=FULL)
    full = [gain for gain in one["gain"].values if bool(at.sel(gain=gain).notnull().any())]
    for index, gain in enumerate(full):
        curve = at.sel(gain=gain)
        curve = curve.isel(accuracy_rank=(curve["accuracy_rank"] <= LARGEST).values)
        look = {**series(index), "markersize": 3.5}
        _draw(ax, curve["accuracy_rank"].values, curve, **look)
        found[float(gain)] = entry(f"ρ = {gain:g}", linewidth=1.1, **look)
    return found


def _resampled(ax: Axes, one: xr.Dataset) -> None:
    """Draw what is resampled at the lowest gain."""
    found = one["resampled_accuracy"].sel(trained_rank=FULL)
    gain = _lowest(one)
    truncated = one["accuracy_of_rank"].sel(trained_rank=FULL, gain=gain)
    ranks = found["resampled_rank"].values
    truncated = truncated.isel(accuracy_rank=np.isin(truncated["accuracy_rank"], ranks))
    _draw(ax, truncated["accuracy_rank"].values, truncated, color=GREY, marker="o", markersize=3)
    for count in found["populations"].values:
        style = series(FIRST_OF_POPULATIONS + int(count) - 1)
        _draw(ax, ranks, found.sel(populations=count, gain=gain), **style, markersize=3.5)


def _trained(ax: Axes, one: xr.Dataset) -> None:
    ranks = [rank for rank in LOW_RANKS if _known(one, str(rank))]
    accuracy = one["accuracy_of_rank"]
    flat = xr.concat([accuracy.sel(trained_rank=str(rank), accuracy_rank=rank).max("gain") for rank in ranks], "R")
    _draw(ax, np.array(ranks), flat, color=GREY, marker="o", markersize=3)
    if "resampled_accuracy_larger" not in one:
        return
    for count in one["populations"].values:
        found = one["resampled_accuracy_larger"].sel(populations=count)
        flat = xr.concat([found.sel(trained_rank=str(rank), resampled_rank=rank).max("gain") for rank in ranks], "R")
        _draw(ax, np.array(ranks), flat, **series(FIRST_OF_POPULATIONS + int(count) - 1), markersize=3.5)


def _lowest(run: xr.Dataset) -> float:
    """Return the lowest gain of the networks that were resampled after a training without constraints."""
    known = run["resampled_accuracy"].sel(trained_rank=FULL).notnull()
    there = known.any([dim for dim in known.dims if dim != "gain"])
    return float(run["gain"].values[there.values].min())


def _note(run: xr.Dataset, rows: list[str]) -> str:
    notes = [f"units drawn at rank $R$: ρ = {_lowest(run):g}"] if "resampled" in rows else []
    notes += ["trained at rank $R$: ρ = 0, four times as many units are drawn"] if "trained" in rows else []
    return "; ".join(notes)


def _draw(ax: Axes, x: NDArray[Any], values: xr.DataArray, **style: Any) -> None:
    """Draw the mean over samples with its standard deviation."""
    table = values.transpose("sample", ...).values.astype(float)
    known = np.isfinite(table).any(0)
    count = np.isfinite(table).sum(0)
    mean = np.where(known, np.nansum(table, 0) / np.maximum(count, 1), np.nan)
    spread = np.sqrt(np.nansum((table - mean) ** 2, 0) / np.maximum(count - 1, 1))
    ax.errorbar(x, mean, yerr=spread, linewidth=1.1, elinewidth=0.7, **style)
