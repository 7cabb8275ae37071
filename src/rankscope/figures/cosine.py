"""Schuessler et al. 2020, supplement: a linear network without input learns to oscillate.

An undamped oscillation needs a pair of eigenvalues 1 ± 2 pi i / period. In time steps of dt the pair is at
(exp(2 pi i dt / period) - 1 + dt) / dt, with a real part slightly below 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.experiments.averages import was_trained
from rankscope.figures.selection import networks_of, trained_along
from rankscope.plot.style import (
    GREY,
    INK,
    entry,
    gain_entries,
    label_panels,
    legend_above,
    mark_criterion,
    series,
    styled,
)
from rankscope.tasks import Cosine

DRAWN = (
    "loss",
    "eigenvalue_real_history",
    "eigenvalue_imag_history",
    "recorded_epoch",
    "time",
    "example_output",
    "example_target",
    "example_mask",
)
FIRST: dict[str, Any] = {"linewidth": 1.3, "markersize": 4, "markeredgewidth": 0}
OTHERS: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.6, "marker": ""}
CONTINUOUS: dict[str, Any] = {"color": INK, "linewidth": 0.9, "linestyle": ":"}
IN_STEPS: dict[str, Any] = {"color": INK, "linewidth": 0.9, "linestyle": (0, (5, 2))}
TARGET: dict[str, Any] = {"color": INK, "linewidth": 2.0, "linestyle": (0, (1.2, 1.2))}
MARKER_DISTANCE = 0.12  # of the diagonal of a panel


def cosine(dataset: xr.Dataset) -> Figure:
    """Draw output, loss, and real and imaginary part of the leading eigenvalue of W, one color a gain.

    The leading eigenvalue has the largest real part. All samples are drawn, the first as a broad line; the output is
    that of the first.

    Takes measurements of the experiment `cosine` along `gain` and `sample`.
    """
    run = networks_of(dataset, "cosine", "cosine", DRAWN, ("gain", "sample")).compute()
    gains = trained_along(run, "gain")
    with styled():
        figure = Figure(figsize=(6.8, 5.4), layout="constrained")
        axes = list(figure.subplots(2, 2).flat)
        for index, gain in enumerate(gains):
            networks = run.sel(gain=gain)
            networks = networks.isel(sample=was_trained(networks).values)
            first = FIRST | series(index)
            for sample in range(networks.sizes["sample"]):
                line = first if sample == 0 else series(index) | OTHERS
                _draw_learning(axes[1:], networks.isel(sample=sample), line)
            broad = networks.isel(sample=0, output_channel=0)
            axes[0].plot(broad["time"], broad["example_output"], markevery=MARKER_DISTANCE, **first)
        example = run.sel(gain=gains[0])
        example = example.isel(sample=int(was_trained(example).values.argmax()))
        _draw_target(axes[0], example)
        _draw_undamped(axes[2:], example)
        mark_criterion(axes[1])
        axes[0].set(xlabel="time (membrane time constants)", ylabel="output")
        axes[1].set(xlabel="epoch", ylabel="loss / initial loss", yscale="log")
        axes[2].set(xlabel="epoch", ylabel="real part of the\nleading eigenvalue of $W$")
        axes[3].set(xlabel="epoch", ylabel="imaginary part of the\nleading eigenvalue of $W$")
        label_panels(figure, axes)
        lines = [
            entry("target (shaded: trained interval)", **TARGET),
            entry(r"undamped: $1 + 2\pi i\,/\,$period", **CONTINUOUS),
            entry("undamped in steps of $dt$", **IN_STEPS),
        ]
        legend_above(figure, gain_entries(gains, **FIRST), lines)
    return figure


def _draw_target(ax: Axes, network: xr.Dataset) -> None:
    """Draw the target, and shade the interval that enters the loss."""
    time, trained = network["time"].values, network["example_mask"].isel(output_channel=0).values > 0
    ax.plot(time, network["example_target"].isel(output_channel=0), zorder=3, **TARGET)
    if trained.any():
        ax.axvspan(0, float(time[trained].max()), color=GREY, alpha=0.15, linewidth=0, zorder=0)


def _draw_learning(axes: Sequence[Axes], network: xr.Dataset, line: dict[str, Any]) -> None:
    """Draw loss, and real and (positive) imaginary part of the leading eigenvalue."""
    leading = network.isel(leading_eigenvalue=0)
    real, imaginary = leading["eigenvalue_real_history"], abs(leading["eigenvalue_imag_history"])
    loss = network["loss"] / network["loss"][0]
    for ax, along, values in zip(axes, ("epoch", *2 * ["recorded_epoch"]), (loss, real, imaginary), strict=True):
        finite = np.isfinite(values.values)
        ax.plot(network[along].values[finite], values.values[finite], markevery=MARKER_DISTANCE, **line)


def _draw_undamped(axes: Sequence[Axes], network: xr.Dataset) -> None:
    """Draw the eigenvalues of an undamped oscillation, in continuous time and in the network's time steps."""
    period = float(network["period"]) if "period" in network.coords else Cosine().period
    dt = float(network["time"][1] - network["time"][0])
    continuous = 1 + 2j * np.pi / period
    in_steps = (np.exp(2j * np.pi * dt / period) - 1 + dt) / dt
    for ax, component in zip(axes, ("real", "imag"), strict=True):
        ax.axhline(getattr(continuous, component), zorder=0, **CONTINUOUS)
        ax.axhline(getattr(in_steps, component), zorder=0, **IN_STEPS)
