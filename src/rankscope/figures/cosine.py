"""Supplement: a linear network without input learns to oscillate.

Its outputs are the sum of the eigenmodes of W. An oscillation that neither grows nor decays needs a pair of eigenvalues
1 ± 2 pi i / period, and learning takes the leading ones there, but only from W0: at g = 0 there is no second direction.
A network in steps of dt needs (exp(2 pi i dt / period) - 1 + dt) / dt, which for dt = 0.1 is a little less than 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankscope.figures.panels import mark_criterion
from rankscope.figures.selection import networks_of, trained_along, was_trained
from rankscope.figures.style import INK, QUIET, gain_label, label_panels, legend_above, look, styled
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
OTHER: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.6, "marker": ""}
CONTINUOUS: dict[str, Any] = {"color": INK, "linewidth": 0.9, "linestyle": ":"}
IN_STEPS: dict[str, Any] = {"color": INK, "linewidth": 0.9, "linestyle": (0, (5, 2))}
TARGET: dict[str, Any] = {"color": INK, "linewidth": 2.0, "linestyle": (0, (1.2, 1.2))}
MARKED = 0.12  # of the diagonal of a panel, from one marker to the next


def cosine(dataset: xr.Dataset) -> Figure:
    """Draw outputs, loss, and real and imaginary part of the leading eigenvalue of W, one color a gain.

    The eigenvalue with the largest real part leads. All samples are drawn, the first with a broad line; the outputs are
    those of the first.

    Parameters
    ----------
    dataset
        Measurements of the experiment `cosine` along `gain` and `sample`, of one `hidden_size`.

    Raises
    ------
    InputError
        If it is of another experiment, or holds several hidden sizes.
    """
    run = networks_of(dataset, "cosine", "cosine", DRAWN, ("gain", "sample")).compute()
    gains = trained_along(run, "gain")
    with styled():
        figure = Figure(figsize=(6.8, 5.4), layout="constrained")
        axes = list(figure.subplots(2, 2).flat)
        for index, gain in enumerate(gains):
            networks = run.sel(gain=gain)
            networks = networks.isel(sample=was_trained(networks).values)
            for sample in range(networks.sizes["sample"]):
                line = _first(index) if sample == 0 else {"color": look(index)["color"], **OTHER}
                _draw_learning(axes[1:], networks.isel(sample=sample), line)
            _draw_output(axes[0], networks.isel(sample=0), _first(index))
            if index == 0:
                _draw_target(axes[0], networks.isel(sample=0))
                _draw_undamped(axes[2:], networks.isel(sample=0))
        mark_criterion(axes[1], note=None)
        axes[0].set(xlabel="time (membrane time constants)", ylabel="output")
        axes[1].set(xlabel="epoch", ylabel="loss / initial loss", yscale="log")
        axes[2].set(xlabel="epoch", ylabel="real part of the\nleading eigenvalue of $W$")
        axes[3].set(xlabel="epoch", ylabel="imaginary part of the\nleading eigenvalue of $W$")
        label_panels(figure, axes)
        colors = [Line2D([], [], label=gain_label(gain), **_first(index)) for index, gain in enumerate(gains)]
        legend_above(figure, colors, _kinds())
    return figure


def _first(index: int) -> dict[str, Any]:
    return {"linewidth": 1.3, "markersize": 4, "markeredgewidth": 0, **look(index)}


def _draw_output(ax: Axes, network: xr.Dataset, line: dict[str, Any]) -> None:
    output = network["example_output"].isel(output_channel=0)
    ax.plot(network["time"], output, markevery=MARKED, **line)


def _draw_target(ax: Axes, network: xr.Dataset) -> None:
    """Draw the target, and shade the part of the trial that counts in the loss."""
    time, counts = network["time"].values, network["example_mask"].isel(output_channel=0).values > 0
    ax.plot(time, network["example_target"].isel(output_channel=0), zorder=3, **TARGET)
    if counts.any():
        ax.axvspan(0, float(time[counts].max()), color=QUIET, alpha=0.15, linewidth=0, zorder=0)


def _draw_learning(axes: Sequence[Axes], network: xr.Dataset, line: dict[str, Any]) -> None:
    """Draw the loss, and the real and the imaginary part of the leading eigenvalue; of a pair, the one above 0."""
    first = network.isel(leading_eigenvalue=0)
    real, imaginary = first["eigenvalue_real_history"], abs(first["eigenvalue_imag_history"])
    loss = network["loss"] / network["loss"][0]
    for ax, along, values in zip(axes, ("epoch", *2 * ["recorded_epoch"]), (loss, real, imaginary), strict=True):
        finite = np.isfinite(values.values)
        ax.plot(network[along].values[finite], values.values[finite], markevery=MARKED, **line)


def _draw_undamped(axes: Sequence[Axes], network: xr.Dataset) -> None:
    """Draw where the eigenvalues of an undamped oscillation are, in continuous time and in the network's steps."""
    period = float(network["period"]) if "period" in network.coords else Cosine().period
    dt = float(network["time"][1] - network["time"][0])
    continuous = 1 + 2j * np.pi / period
    in_steps = (np.exp(2j * np.pi * dt / period) - 1 + dt) / dt
    for ax, part in zip(axes, ("real", "imag"), strict=True):
        ax.axhline(getattr(continuous, part), zorder=0, **CONTINUOUS)
        ax.axhline(getattr(in_steps, part), zorder=0, **IN_STEPS)


def _kinds() -> list[Line2D]:
    return [
        Line2D([], [], label="target (shaded: counts in the loss)", **TARGET),
        Line2D([], [], label=r"undamped: $1 + 2\pi i\,/\,$period", **CONTINUOUS),
        Line2D([], [], label="undamped in steps of $dt$", **IN_STEPS),
    ]
