"""The first thing to look at: the flip-flop learned from g = 0 and from g = 0.9.

That is from no connectivity at all, and from strong random connectivity. Both networks learn, both changes are
of low rank, but only at g = 0.9 does the change need the W0 it grew on.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import xarray as xr

from rankscope.experiments.cell import Cell, run, store
from rankscope.io.atomic import make_folder
from rankscope.sweep.netcdf import write_netcdf
from rankscope.sweep.processes import OnProgress, Report, run_side_by_side
from rankscope.tasks import FlipFlop

GAINS = (0.0, 0.9)
DEMO_FILE = "demo.nc"


def demo_cells(hidden_size: int = 256, epochs: int = 1000, seed: int = 0) -> list[Cell]:
    """Return the two cells; they share their seed, and with it trials and input and output vectors."""
    return [Cell(FlipFlop(), gain, hidden_size, epochs, seed) for gain in GAINS]


def run_demo(
    cells: list[Cell],
    folder: str | os.PathLike[str],
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> xr.Dataset:
    """Train the cells side by side and return their measurements along `gain`.

    Writes FOLDER/gain-G/ for every cell, as `store` does, and FOLDER/demo.nc for all.

    Raises
    ------
    InputError
        If the folder cannot be written to, or a cell cannot be trained as described.
    """
    root = make_folder(folder)
    measured = run_side_by_side(partial(_run_and_store, root), cells, workers, on_progress)
    together = xr.concat(measured, dim="gain", join="outer", combine_attrs="drop_conflicts")
    write_netcdf(together, root / DEMO_FILE)
    return together


def _run_and_store(root: Path, cell: Cell, report: Report) -> xr.Dataset:
    outcome = run(cell, progress=report)
    store(outcome, root / f"gain-{cell.gain:g}")
    return outcome.measurements
