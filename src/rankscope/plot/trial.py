"""A trial of a task: inputs, targets and outputs over time, in strips above each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.plot.curves import new_axes
from rankscope.plot.style import GREY, INK, series
from rankscope.validation import integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 0.12  # between two strips of a trial, as a fraction of the panel
INPUT: dict[str, Any] = {"color": GREY, "linewidth": 0.9}
TARGET: dict[str, Any] = {"color": INK, "linewidth": 2.0, "linestyle": (0, (1.2, 1.2))}
ZERO: dict[str, Any] = {"color": GREY, "linewidth": 0.4, "zorder": 0}
MOST_CHANNELS = 8

Array = NDArray[np.float64]


def trial(
    trials: Any, outputs: Sequence[Any] = (), ax: Axes | None = None, *, index: int = 0, dt: float | None = None
) -> Axes:
    """Plot one trial: each output with its own input, or all inputs in a strip above the outputs.

    Parameters
    ----------
    trials
        `Trials`, as `task.sample(8, rng)` draws them.
    outputs
        Outputs of networks to these trials, each (batch, time, out).
    ax
        Axes to replace by the strips; by default those of a new figure.
    index : int
        Number of the trial.
    dt
        Length of a step in time constants; without it, time is in steps.

    Returns
    -------
    The axes whose place the strips have.

    Raises
    ------
    InputError
        If there is no such trial, or outputs do not fit.
    """
    index = integer("index", index, minimum=0, maximum=len(trials.inputs) - 1)
    inputs, targets, mask = (_array(values)[index] for values in (trials.inputs, trials.targets, trials.mask))
    steps = inputs.shape[0]
    found = [_array(values)[index] for values in outputs]
    for output in found:
        if output.shape[-1] != targets.shape[-1] or output.shape[0] not in (steps, 1):
            raise InputError(f"outputs must have the shape of the targets {targets.shape}, got {output.shape}")
    time = np.arange(1, steps + 1) * (1.0 if dt is None else dt)
    panel = new_axes((3.6, 3.2)) if ax is None else ax
    draw_trial(panel, time, inputs, targets, mask, found)
    if dt is None:
        panel.child_axes[-1].set_xlabel("time step")
    return panel


def draw_trial(
    panel: Axes, time: Array, inputs: Array, targets: Array, mask: Array, outputs: Sequence[Array]
) -> list[Axes]:
    """Draw one trial in strips within `panel`.

    Parameters
    ----------
    time
        (steps,)
    inputs, targets, mask
        (steps, channels); targets are drawn where the mask is above 0.
    outputs
        Of each network (steps, out), in the order of the colors.
    """
    shown, answers = min(inputs.shape[1], MOST_CHANNELS), min(targets.shape[1], MOST_CHANNELS)
    paired = inputs.shape[1] == targets.shape[1] <= MOST_CHANNELS
    strips = _strips(panel, [*([] if paired else [0.5 + 0.3 * shown]), *[1.0] * answers])
    if not paired:
        _draw_inputs(strips[0], time, inputs[:, :shown])
    for channel, ax in enumerate(strips[-answers:]):
        if paired:
            _draw_input(ax, time, inputs[:, channel])
        for number, output in enumerate(outputs):
            ax.plot(time[-len(output) :], output[:, channel], color=series(number)["color"])
        target = np.where(mask[:, channel] > 0, targets[:, channel], np.nan)
        ax.plot(time[-len(target) :], target, marker="." if len(target) == 1 else "", **TARGET)
        ax.axhline(0, **ZERO)
        ax.set_ylabel(f"output {channel + 1}" if targets.shape[1] > 1 else "output")
    share_limits(strips[-answers:])
    strips[-1].set_xlabel("time (time constants)")
    return strips


def share_limits(axes: Iterable[Axes]) -> None:
    """Set the vertical limits of all axes to a range that contains all their curves."""
    visible = [ax for ax in axes if ax.axison]
    limits = [ax.get_ylim() for ax in visible]
    for ax in visible:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _draw_inputs(ax: Axes, time: Array, inputs: Array) -> None:
    """Draw all input channels, several above each other with a scale bar."""
    count = inputs.shape[1]
    levels = [2.0 * (count - 1 - channel) for channel in range(count)]
    for channel, level in enumerate(levels):
        ax.axhline(level, **ZERO)
        _draw_input(ax, time, inputs[:, channel], level)
    ax.set_ylabel("input" if count == 1 else "input channel")
    if count > 1:
        ax.set_yticks(levels, [str(channel + 1) for channel in range(count)])
        right = ax.get_yaxis_transform()
        ax.plot([0.97, 0.97], [levels[0], levels[0] + 1], color=INK, linewidth=1.2, transform=right)
        ax.text(0.95, levels[0] + 0.5, "1", transform=right, ha="right", va="center", fontsize=7)


def _draw_input(ax: Axes, time: Array, values: Array, level: float = 0.0) -> None:
    ax.plot(time, values + level, drawstyle="steps-pre", **INPUT)


def _strips(panel: Axes, heights: list[float]) -> list[Axes]:
    """Replace `panel` by axes below each other that share the time axis."""
    panel.set_axis_off()
    unit = (1 - GAP * (len(heights) - 1)) / sum(heights)
    top, strips = 1.0, list[Any]()
    for height in heights:
        bottom = top - unit * height
        strips.append(panel.inset_axes((0, bottom, 1, unit * height), sharex=strips[0] if strips else None))
        top = bottom - GAP
    for ax in strips[:-1]:
        ax.tick_params(labelbottom=False)
    return strips


def _array(values: Any) -> Array:
    array = values.detach().cpu().numpy() if hasattr(values, "detach") else values
    return np.asarray(array, dtype=np.float64)
