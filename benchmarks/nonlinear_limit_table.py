"""Networks of 256 to 1,024 units beside the limit of infinitely many, with one set of trials, at g = 0.

    python benchmarks/nonlinear_limit_table.py [--only TASK] [--largest N] [--json]

trains five networks of each size on the flip-flop, Romo with one output and Mante, all with fixed input weights, and
solves `NonlinearLimit` with four scramblings. Prints for each quantity the means, the extrapolation of the networks to
1/N = 0 and the limit. Finished networks are kept in docs/results/nonlinear_limit.csv: the same command resumes. About
an hour of one core.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rankscope.io.atomic import replacing
from rankscope.theory import NonlinearLimit

FILE = Path(__file__).parents[1] / "docs" / "results" / "nonlinear_limit.csv"
SIZES, SAMPLES, SCRAMBLINGS = (256, 512, 1024), 5, 4
LIMIT = 0  # what the file has as N of the limit

Row = dict[str, Any]


class Case(NamedTuple):
    """A task, how long it is trained, the nodes of its limit, and the epochs at which the loss is compared."""

    task: dict[str, Any]
    epochs: int
    nodes: int
    losses_at: tuple[int, ...]


CASES = {
    "flipflop": Case({"name": "flipflop"}, 250, 512, (25, 50, 100, 240)),
    "romo, one output": Case({"name": "romo", "outputs": 1}, 1500, 512, (100, 300, 600, 1490)),
    "mante": Case({"name": "mante"}, 600, 512, (50, 100, 300, 590)),
}
NEARBY = 10  # epochs over which a loss is averaged: single batches scatter


def measured(case: Case, N: int, sample: int) -> Row:
    """Return the quantities of one network, or of one scrambling of the limit."""
    limit = NonlinearLimit(case.task, case.nodes)
    options: dict[str, Any] = {"epochs": case.epochs, "rng": 0, "recorded_epochs": [case.epochs - 1]}
    if N == LIMIT:
        course = limit.solve(scrambling=sample, **options)
    else:
        course = limit.simulate(N, network_rng=1000 * N + sample, **options)
    end = course.isel(epoch=-1)
    row: Row = {"convergence_epoch": float(course["convergence_epoch"]), "|dW|": float(end["change_norm"])}
    row |= {f"s{i}": float(end["singular_value"].sel(singular_index=i)) for i in range(1, 5)}
    row["functional_rank"] = float(course["functional_rank"])
    return row | {f"loss {epoch}": nearby(course["loss"], epoch) for epoch in case.losses_at}


def nearby(loss: xr.DataArray, epoch: int) -> float:
    """Return the mean loss of some epochs from `epoch` on."""
    return float(loss[epoch : epoch + NEARBY].mean())


def stored() -> list[Row]:
    """Return the rows of the file."""
    if not FILE.exists():
        return []
    with FILE.open(newline="") as file:
        return list(csv.DictReader(file))


def store(rows: list[Row]) -> None:
    """Write the rows to the file."""
    with replacing(FILE) as temporary, Path(temporary).open("w", newline="") as file:
        writer = csv.DictWriter(file, ["task", "N", "sample", "quantity", "value"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def extrapolate(values: dict[int, NDArray[np.float64]]) -> tuple[float, float]:
    """Return the mean over networks at 1/N = 0, by a straight line through the means, and its standard error."""
    N = np.array(list(values))
    mean = np.array([found.mean() for found in values.values()])
    # The variance of a single network falls as 1/N: one estimate from all sizes.
    scaled = np.concatenate([(found - found.mean()) * np.sqrt(n) for n, found in values.items()])
    variance = np.sum(scaled**2) / (scaled.size - len(N)) / N / np.array([found.size for found in values.values()])
    design = np.stack([np.ones(len(N)), 1 / N], axis=1)
    precision = design.T @ (design / variance[:, None])
    at_infinity = np.linalg.solve(precision, design.T @ (mean / variance))
    return float(at_infinity[0]), float(np.sqrt(np.linalg.inv(precision)[0, 0]))


def summary(rows: list[Row], name: str) -> list[Row]:
    """Return a row a quantity: means by N, extrapolation, limit, and their distance in standard errors."""
    of_task = [row for row in rows if row["task"] == name]
    found = []
    for quantity in dict.fromkeys(row["quantity"] for row in of_task):
        by_size: dict[int, list[float]] = {}
        for row in of_task:
            if row["quantity"] == quantity:
                by_size.setdefault(int(row["N"]), []).append(float(row["value"]))
        values = {N: np.array(by_size[N]) for N in SIZES if N in by_size}
        if LIMIT not in by_size or len(values) < 2:
            continue
        limit = np.array(by_size[LIMIT])
        value, error = extrapolate(values)
        limit_error = float(limit.std(ddof=1) / np.sqrt(limit.size))
        means = {str(N): (float(x.mean()), float(x.std(ddof=1) / np.sqrt(x.size))) for N, x in values.items()}
        both = float(np.hypot(error, limit_error))
        distance = abs(value - float(limit.mean())) / both if both else 0.0
        found.append(
            {
                "task": name,
                "quantity": quantity,
                "by N": means,
                "extrapolated": (value, error),
                "limit": (float(limit.mean()), limit_error),
                "standard errors": distance,
            }
        )
    return found


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(CASES))
    parser.add_argument("--largest", type=int, default=max(SIZES))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = stored()
    done = {(row["task"], int(row["N"]), int(row["sample"])) for row in rows}
    names = [arguments.only] if arguments.only else list(CASES)
    for N in (LIMIT, *SIZES):
        for name in names if arguments.largest >= N else ():
            for sample in range(SCRAMBLINGS if N == LIMIT else SAMPLES):
                if (name, N, sample) not in done:
                    one = measured(CASES[name], N, sample)
                    rows += [
                        {"task": name, "N": N, "sample": sample, "quantity": q, "value": f"{v:.7g}"}
                        for q, v in one.items()
                    ]
                    store(rows)
    found = [row for name in names for row in summary(rows, name)]
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    table = Table("task", "quantity", *map(str, SIZES), "extrapolated", "limit", "standard errors")
    for row in found:
        sizes = [plus_minus(*row["by N"][str(N)]) if str(N) in row["by N"] else "" for N in SIZES]
        ends = [plus_minus(*row[end]) for end in ("extrapolated", "limit")]
        table.add_row(row["task"], row["quantity"], *sizes, *ends, f"{row['standard errors']:.1f}")
    Console(width=140).print(table)


def plus_minus(value: float, error: float) -> str:
    """Return "value ± error"."""
    return f"{value:.4g} ± {error:.1g}"


if __name__ == "__main__":
    main()
