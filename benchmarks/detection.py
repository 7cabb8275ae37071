"""Count how often planted directions are found in noise, and how often there are false alarms.

    python benchmarks/detection.py             the two tables; about a minute
    python benchmarks/detection.py --json      the same numbers as one JSON object

A change of rank 8 with equal singular values is added to an m x n matrix of independent entries with the standard
deviation sigma. It can be seen in the singular values from sigma (m n)^(1/4) on (Benaych-Georges & Nadakuditi 2012).
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from rankscope.lowrank import change
from rankscope.lowrank.noise_edges import Measures, measure

SHAPES = ((64, 64), (256, 256), (1024, 256))
STRENGTHS = (0.8, 1.0, 1.25, 1.5, 2.0)
RANK, SEEDS, NOISES = 8, 20, 100


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args()
    torch.set_num_threads(1)
    planted = {
        shape: {strength: [found(shape, strength, seed) for seed in range(SEEDS)] for strength in STRENGTHS}
        for shape in SHAPES
    }
    noise = {shape: [found(shape, 0.0, 1000 + seed) for seed in range(NOISES)] for shape in SHAPES}
    if options.json:
        print(json.dumps({str(k): v for k, v in planted.items()} | {f"noise {k}": v for k, v in noise.items()}))
        return
    table = Table("shape", *(f"{strength:g}" for strength in STRENGTHS), "false alarms in noise", "no flat bulk")
    for shape, strengths in planted.items():
        alarms = sum(bool(count) for count in noise[shape])
        unknown = sum(count is None for counts in (*strengths.values(), noise[shape]) for count in counts)
        cells = [summary(counts) for counts in strengths.values()]
        table.add_row(f"{shape[0]} x {shape[1]}", *cells, f"{alarms} of {NOISES}", str(unknown))
    console = Console(width=120)
    console.print(table)
    console.print(f"Mean number of directions that stand out, of {RANK}, and the largest, in {SEEDS} matrices each.")


def found(shape: tuple[int, int], strength: float, seed: int) -> int | None:
    """Return how many directions stand out of noise with directions of this strength, in units of the threshold."""
    rng = np.random.default_rng(seed)
    m, n = shape
    U, V = (np.linalg.qr(rng.standard_normal((size, RANK)))[0] for size in shape)
    dW = rng.standard_normal(shape) + strength * (m * n) ** 0.25 * U @ V.T
    measures: Measures = measure(change(np.zeros(shape), dW))
    return measures.standing_out


def summary(counts: list[int | None]) -> str:
    """Return the mean and the largest of the counts that are known."""
    known = [count for count in counts if count is not None]
    return f"{np.mean(known):.1f} ({max(known)})" if known else "-"


if __name__ == "__main__":
    main()
