"""The flow of a network in a plane: field, fixed points and trajectories, as `rankscope.dynamics.flow` returns it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rankscope.errors import InputError
from rankscope.plot.curves import new_axes
from rankscope.plot.style import COLORS, GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STABLE: dict[str, Any] = {"marker": "o", "color": INK, "markersize": 6.5, "linestyle": "none", "zorder": 5}
UNSTABLE: dict[str, Any] = {**STABLE, "markerfacecolor": "white", "markeredgewidth": 1.4, "zorder": 4}
PATH: dict[str, Any] = {"color": COLORS[1], "linewidth": 0.9, "alpha": 0.75, "zorder": 3}


def flow(dataset: Any, ax: Axes | None = None, *, trajectories: bool = True) -> Axes:
    """Plot the flow in a plane, or along one direction the velocity against the coordinate.

    Parameters
    ----------
    dataset
        As `rankscope.dynamics.flow` returns it, of one network.
    ax
        Axes to draw into; by default those of a new figure.
    trajectories
        Whether trajectories of trials are drawn.

    Returns
    -------
    The axes. Stable fixed points are filled, the others open; the shade of the field is the speed.

    Raises
    ------
    InputError
        If the dataset has no flow.
    """
    if "flow_velocity" not in dataset:
        raise InputError(f"dataset must have a flow, got one with {', '.join(map(str, dataset))}")
    panel = new_axes((3.8, 3.6)) if ax is None else ax
    velocity, grid = dataset["flow_velocity"].values, dataset["flow_kappa"].values
    points, multipliers = dataset["fixed_point"].values, dataset["fixed_point_multiplier"].values
    paths = dataset["flow_trajectory"].values if trajectories else np.empty((0, 1, len(grid)))
    if len(grid) == 1:
        panel.axhline(0, color=GREY, linewidth=0.8, zorder=0)
        panel.plot(grid[0], velocity[:, 0], color=COLORS[0])
        panel.set_ylabel(r"velocity $\dot\kappa_1$")
        points = np.column_stack([points[:, 0], np.zeros(len(points))])
    else:
        speed = np.linalg.norm(velocity, axis=-1)
        panel.pcolormesh(*grid, speed.T, cmap="Blues", shading="gouraud", vmax=float(speed.max()) * 1.6, zorder=0)
        x, y = velocity[..., 0].T, velocity[..., 1].T
        panel.streamplot(grid[0], grid[1], x, y, color=GREY, linewidth=0.6, arrowsize=0.7, density=1.1, zorder=1)
        for path in paths:
            panel.plot(path[:, 0], path[:, 1], **PATH)
        panel.set_ylabel(r"$\kappa_2$")
        panel.set_ylim(grid[1][0], grid[1][-1])
    for style, chosen in ((UNSTABLE, multipliers >= 1), (STABLE, multipliers < 1)):
        panel.plot(points[chosen, 0], points[chosen, 1], **style)
    panel.set_xlabel(r"$\kappa_1$")
    panel.set_xlim(grid[0][0], grid[0][-1])
    return panel
