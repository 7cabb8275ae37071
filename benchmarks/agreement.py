"""Does rankscope agree with an independent implementation? Full trainings, compared as distributions.

Trains networks of 256 units on flip-flop, Mante and Romo at full length and compares four numbers of each with
those of an independent implementation, whose results are read from a JSON file: convergence epoch, |dW|, functional
rank, and the loss after shuffling W0. For each it prints both means with their standard errors, and z, the
difference in units of its own standard error; |z| < 2 is agreement.

    python benchmarks/agreement.py --gain 0.9 --samples 4
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from rankscope.experiments.cell import Cell, run, summary
from rankscope.sweep.processes import Report, run_side_by_side
from rankscope.tasks import make

EPOCHS = {"flipflop": 1000, "mante": 2000, "romo": 6000}
QUANTITIES = {
    "convergence_epoch": "convergence_epoch",
    "change_norm": "change_norm",
    "functional_rank": "functional_rank",
    "shuffled_loss": "shuffled_loss_relative",
}
REFERENCE = Path(__file__).parents[1] / "tests" / "reference" / "nonlinear_n256.json"


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gain", type=float, default=0.9, choices=(0.0, 0.9, 1.8))
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tasks", nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--reference", type=Path, default=REFERENCE)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    theirs = json.loads(options.reference.read_text())
    # The longest first, so that the last core does not wait for a Romo.
    cells = [
        Cell(make(task), gain=options.gain, epochs=EPOCHS[task], seed=seed)
        for task in sorted(options.tasks, key=lambda name: -EPOCHS[name])
        for seed in range(options.samples)
    ]
    began = time.perf_counter()
    ours = run_side_by_side(summarize, cells, options.workers)
    seconds = time.perf_counter() - began
    rows = [compare(task, name, options.gain, ours, theirs) for task in options.tasks for name in QUANTITIES]
    if options.json:
        json.dump({"gain": options.gain, "seconds": seconds, "rows": rows}, sys.stdout, indent=2)
    else:
        show(rows, f"g = {options.gain:g}, {options.samples} networks a task, {seconds:.0f} s")


def summarize(cell: Cell, report: Report) -> dict[str, Any]:
    """Train one network and return its scalars."""
    return summary(run(cell, progress=report).measurements)


def compare(
    task: str, name: str, gain: float, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return both means with their standard errors, and the difference in units of its standard error."""
    a = np.array([row[name] for row in ours if row["task"] == task], dtype=float)
    b = np.array([row[QUANTITIES[name]] for row in theirs if row["task"] == task and row["gain"] == gain], dtype=float)
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    errors = [x.std(ddof=1) / np.sqrt(x.size) for x in (a, b)]
    difference = a.mean() - b.mean()
    spread = float(np.hypot(*errors))
    return {
        "task": task,
        "quantity": name,
        "ours": a.mean(),
        "ours_error": errors[0],
        "ours_values": a.tolist(),
        "reference": b.mean(),
        "reference_error": errors[1],
        "reference_values": b.tolist(),
        "z": difference / spread if spread > 0 else (0.0 if difference == 0 else float("inf")),
    }


def show(rows: list[dict[str, Any]], title: str) -> None:
    """Print the comparison as a table."""
    table = Table("task", "quantity", "ours", "reference", "z", "agrees", title=title)
    for row in rows:
        table.add_row(
            row["task"],
            row["quantity"],
            f"{row['ours']:.4g} ± {row['ours_error']:.2g}",
            f"{row['reference']:.4g} ± {row['reference_error']:.2g}",
            f"{row['z']:+.2f}",
            "yes" if abs(row["z"]) < 2 else "NO",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
