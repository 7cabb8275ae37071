"""The panels of the paper's Fig. 1, each drawn for one task along `gain` into axes that it is given.

`learning` stacks them for one task, `tasks` puts three tasks side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from rankscope.figures.style import INK, QUIET, gain_label, look

SHOWN_RANKS = 25
CRITERION = 0.05


def inputs_are_paired(dataset: xr.Dataset) -> bool:
    """Return whether each output channel has an input channel of its own, to be drawn with it."""
    return dataset.sizes["input_channel"] == dataset.sizes["output_channel"]


def draw_trial(axes: list[Axes], dataset: xr.Dataset) -> None:
    """Draw the example trial, one output channel an axis: inputs grey, target black, outputs in color."""
    for channel, ax in enumerate(axes):
        inputs = [channel] if inputs_are_paired(dataset) else range(dataset.sizes["input_channel"])
        draw_channel(ax, dataset, channel, inputs)
        ax.set_ylabel(f"channel {channel + 1}" if len(axes) > 1 else "output")
        ax.tick_params(labelbottom=channel == len(axes) - 1)
    axes[-1].set_xlabel("time (membrane time constants)")
    handles, labels = axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes[0].legend(
        unique.values(),
        unique.keys(),
        ncols=4,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        columnspacing=1.1,
        handlelength=1.4,
        borderaxespad=0.2,
    )


def draw_channel(ax: Axes, dataset: xr.Dataset, channel: int, inputs: list[int] | range) -> None:
    """Draw one output channel of the example trial, with its target and with these input channels."""
    trial = _trial(dataset)
    for which in inputs:
        values = trial["example_input"].isel(input_channel=which)
        ax.plot(trial["time"], values, color=QUIET, linewidth=0.9, drawstyle="steps-pre", label="input")
    for index, gain in enumerate(dataset["gain"].values):
        output = dataset["example_output"].isel(gain=index, output_channel=channel)
        ax.plot(trial["time"], output, color=look(index)["color"], label=gain_label(gain))
    mask = trial["example_mask"].isel(output_channel=channel)
    target = trial["example_target"].isel(output_channel=channel).where(mask > 0)
    ax.plot(trial["time"], target, color=INK, linewidth=2.0, linestyle=(0, (1.2, 1.2)), label="target")
    ax.axhline(0, color=QUIET, linewidth=0.4, zorder=0)


def draw_inputs(ax: Axes, dataset: xr.Dataset) -> None:
    """Draw the input channels of the example trial; several above each other, with a bar that says what 1 is."""
    trial = _trial(dataset)
    count = dataset.sizes["input_channel"]
    levels = [2.0 * (count - 1 - which) for which in range(count)]
    for which, level in enumerate(levels):
        values = trial["example_input"].isel(input_channel=which) + level
        ax.axhline(level, color=QUIET, linewidth=0.4, zorder=0)
        ax.plot(trial["time"], values, color=QUIET, linewidth=0.9, drawstyle="steps-pre", label="input")
    ax.set_ylabel("input" if count == 1 else "input channel")
    if count > 1:
        ax.set_yticks(levels, [str(which + 1) for which in range(count)])
        at_right_end = ax.get_yaxis_transform()
        ax.plot([0.97, 0.97], [levels[0], levels[0] + 1], color=INK, linewidth=1.2, transform=at_right_end)
        ax.text(0.95, levels[0] + 0.5, "1", transform=at_right_end, ha="right", va="center", fontsize=7)


def draw_loss(ax: Axes, dataset: xr.Dataset, note: str | None = "converged: below 5 %") -> None:
    """Draw the loss over epochs, with the level at which a run counts as converged, and where it does.

    Parameters
    ----------
    note
        On the level; None writes its height beside the axes.
    """
    for index, gain in enumerate(dataset["gain"].values):
        run = dataset.isel(gain=index)
        relative = run["loss"] / float(run["initial_loss"])
        ax.semilogy(run["epoch"], relative, color=look(index)["color"], linewidth=1.0, label=gain_label(gain))
        when = float(run["convergence_epoch"])
        if not np.isnan(when):
            ax.plot(when, CRITERION, markeredgecolor="white", markersize=7, **look(index))
    mark_criterion(ax, note)
    ax.set(xlabel="epoch", ylabel="loss / initial loss")
    ax.margins(x=0.02)


def draw_singular_values(ax: Axes, dataset: xr.Dataset) -> None:
    """Draw the leading singular values of the change against their index."""
    values = dataset["singular_value"].sel(matrix="change").isel(singular_index=slice(0, SHOWN_RANKS))
    for index, gain in enumerate(dataset["gain"].values):
        ax.plot(values["singular_index"], values.isel(gain=index), label=gain_label(gain), **_dots(index))
    ax.set(xlabel="index of the singular value", ylabel=r"singular value of $\Delta W$")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MultipleLocator(5))


def draw_truncation(
    ax: Axes, dataset: xr.Dataset, note: str | None = "functional rank (ringed): first below 5 %"
) -> None:
    """Draw the loss with the change truncated to rank R, relative to R = 0, with the functional rank ringed.

    Parameters
    ----------
    note
        On the level below which the rank suffices; None writes its height beside the axes.
    """
    for index, gain in enumerate(dataset["gain"].values):
        run = dataset.isel(gain=index)
        curve = run["truncation_loss"] / run["truncation_loss"].sel(rank=0)
        ax.semilogy(curve["rank"], curve, label=gain_label(gain), **_dots(index))
        rank = float(run["functional_rank"])
        if not np.isnan(rank):
            (ring,) = ax.plot(
                [rank], [float(curve.sel(rank=rank))], marker="o", markersize=9, color=look(index)["color"]
            )
            ring.set_markerfacecolor("none")
    mark_criterion(ax, note)
    ax.set(xlabel=r"rank that $\Delta W$ is truncated to", ylabel="loss / loss at rank 0")
    ax.xaxis.set_major_locator(MultipleLocator(5))


def _trial(dataset: xr.Dataset) -> xr.Dataset:
    """Return the example trial, which all gains share, from the first gain that has it."""
    shared = dataset[["example_input", "example_mask", "example_target"]]
    known = shared["example_mask"].notnull().any(["step", "output_channel"]).values
    return shared.isel(gain=int(known.argmax()))


def _dots(index: int) -> dict[str, Any]:
    return {"markersize": 3.5, "linewidth": 0.9, **look(index)}


def mark_criterion(ax: Axes, note: str | None) -> None:
    """Draw the level below which a network has converged, with a note on it or, for None, its height beside it."""
    ax.axhline(CRITERION, color=QUIET, linewidth=0.8, linestyle="--", zorder=0)
    at_right_end = ax.get_yaxis_transform()
    text, x, place = (
        (f"{100 * CRITERION:g} %", 1.01, ("left", "center")) if note is None else (note, 1.0, ("right", "bottom"))
    )
    ax.text(x, CRITERION, text, transform=at_right_end, ha=place[0], va=place[1], fontsize=7.5, color=QUIET)
