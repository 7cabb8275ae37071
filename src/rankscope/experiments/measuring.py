"""The work of one cell of a sweep, whatever kind of cell it is: train, measure, and say on what it was trained."""

from __future__ import annotations

import os

import xarray as xr

from rankscope.experiments.base import AnyCell
from rankscope.sweep.processes import Report
from rankscope.training import group_checkpoint


def measure_cell(cell: AnyCell, report: Report, checkpoint: str | os.PathLike[str]) -> xr.Dataset:
    """Train and measure one cell, going on from its checkpoint if it has one.

    The attribute `device` of what is returned says where it was trained, by what its checkpoint says of itself.
    """
    standing = group_checkpoint.standing(checkpoint)
    device = "cpu" if standing is None else standing.notes.get("device", "cpu")
    if standing is not None and not standing.status and device != "cpu":
        device = f"{device}, then cpu"
    return cell.measure(report, checkpoint).assign_attrs(device=device)
