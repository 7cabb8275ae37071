"""The flow of one network in the plane of two directions."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from rankscope import plot
from rankscope.errors import InputError
from rankscope.figures.selection import require
from rankscope.plot.flow import PATH, STABLE, UNSTABLE
from rankscope.plot.style import entry, note_below, styled

OWN = {"flow_x", "flow_y", "flow_component"}
RESTED = 0.9
"""Mean share of the squared velocity in the plane below which the figure has a note."""


def flow(dataset: xr.Dataset) -> Figure:
    """Draw field, fixed points and trajectories in the plane of two directions of the change.

    Parameters
    ----------
    dataset
        As `rankscope.dynamics.flow` returns it, or a run with the measurement "flow" at the labels of one network. Of
        several samples the first is drawn.

    Raises
    ------
    InputError
        If the dataset has no flow, or that of several networks.
    """
    require(dataset, "flow", "flow_velocity", "flow_kappa", "fixed_point", "flow_trajectory")
    labels = [str(dim) for dim in dataset["flow_velocity"].dims if dim not in OWN]
    one = dataset.isel({dim: 0 for dim in labels if dataset.sizes[dim] == 1 or dim == "sample"})
    several = [f"{dim}={one[dim].values[0]}" for dim in labels if dim in one.dims]
    if several:
        raise InputError(f"dataset must be of one network; choose it, as in --select {' --select '.join(several)}")
    if not np.isfinite(one["flow_velocity"]).any():
        raise InputError("dataset must have a flow of this network, got none")
    with styled():
        figure = Figure(figsize=(4.6, 4.7), layout="constrained")
        plot.flow(one, figure.subplots())
        figure.legend(
            handles=[
                entry("stable fixed point", **STABLE),
                entry("unstable", **UNSTABLE),
                entry("trials", **PATH),
            ],
            loc="outside upper center",
            ncols=3,
        )
        share = float(one["flow_share"].mean())
        moving = f"in the mean {100 * share:.0f} % of the squared velocity lies in the plane"
        note_below(
            figure,
            r"$\kappa$: coordinates of the state along $u_1, u_2$ of $\Delta W$; shade: speed",
            moving if share < RESTED else "",
        )
    return figure
