"""The work of one cell of a sweep, whatever kind of cell it is: train, measure, and say on what it was trained."""

from __future__ import annotations

import os

import xarray as xr

from rankscope.experiments.base import AnyCell
from rankscope.sweep.processes import Report


def measure_cell(cell: AnyCell, report: Report, checkpoint: str | os.PathLike[str]) -> xr.Dataset:
    """Train and measure one cell, going on from its checkpoint if it has one."""
    return cell.measure(report, checkpoint).assign_attrs(device="cpu")
