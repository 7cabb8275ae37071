"""How time and memory of an epoch grow with the network, the batch and the length of a trial.

    python benchmarks/scaling.py             tables; about five minutes on a quiet machine
    python benchmarks/scaling.py --quick     up to N = 1024; about one minute
    python benchmarks/scaling.py --json      the same numbers as one JSON object

How to read it. From a network of N = 256 units that learns the flip-flop (batch B = 32, T = 100 steps), one of the
three is varied. The *exponent* of a line is that between it and the line above, log(time ratio) / log(size ratio).
*Expected* is what operations and bytes say. Time: 6 T B N^2 operations in products (exponents 2, 1, 1) and, with far
smaller factors, T B N for everything elementwise and a constant: so exponents come from below, and pass the expected
one only where data leave a cache. Memory, in numbers of 4 bytes: rates and states, 2 T B N; the recurrent weights eight
times (themselves, as they were, their gradient, two averages of Adam, packed forward and backward, scaled), 8 N^2;
batches of trials, drawn eight at a time. Time is the median of some turns in which all sizes take part; memory is the
peak of a process of its own above what it needs for its imports.
"""

from __future__ import annotations

import argparse
import json
import os

# Before numpy and torch are loaded, here and in the processes begun from here.
os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")})

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import rankscope as rs
from memory import peak_megabytes
from timing import Timed, duration, measure, processor_name

SIZES = {
    "N": (64, 128, 256, 512, 1024, 2048, 4096),
    "batch": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    "steps": (25, 50, 100, 200, 400, 800, 1600),
}
LARGEST_QUICK = {"N": 1024, "batch": 128, "steps": 400}
EXPECTED = {"N": 2, "batch": 1, "steps": 1}
WEIGHTS, STATES = 8, 2
TURN_OPERATIONS = 4e10


@dataclass(frozen=True)
class Size:
    """An epoch: N units, trials a batch, steps a trial."""

    N: int = 256
    batch: int = 32
    steps: int = 100

    def task(self) -> rs.tasks.FlipFlop:
        """Return the task with trials of this length."""
        return rs.tasks.FlipFlop(duration=self.steps * rs.tasks.FlipFlop().dt)

    def epochs(self, epochs: int) -> Callable[[], object]:
        """Return a function that trains for so many epochs."""
        network = rs.RateRNN.initialize(self.task(), hidden_size=self.N, gain=0.9, rng=0)
        rng = np.random.default_rng(0)
        return partial(rs.train, network, self.task(), epochs, rng, batch_size=self.batch, recorded_epochs=0)

    def run(self) -> None:
        """Train for three epochs, for a measurement of memory."""
        torch.set_num_threads(1)
        self.epochs(3)()

    @property
    def operations(self) -> float:
        """Of the products of an epoch."""
        return 6.0 * self.steps * self.batch * self.N**2

    @property
    def expected_megabytes(self) -> float:
        """Of weights and states."""
        return 4e-6 * (WEIGHTS * self.N**2 + STATES * self.steps * self.batch * self.N) / 1.048576


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--quick", action="store_true", help="leave out the largest sizes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    largest = LARGEST_QUICK if options.quick else {name: max(values) for name, values in SIZES.items()}
    sizes = {
        name: [replace(Size(), **{name: value}) for value in values if value <= largest[name]]
        for name, values in SIZES.items()
    }
    every = {str(size): size for line in sizes.values() for size in line}
    subjects = {}
    for name, size in every.items():
        epochs = int(np.clip(TURN_OPERATIONS / size.operations / 4, 2, 60))
        subjects[name] = Timed(size.epochs(epochs), parts=epochs)
    measured = measure(subjects, *((3, 60, 0.05) if options.quick else (5, 300, 0.05)))
    memory = {name: peak_megabytes(Size(32, 1, 25).run, size.run) for name, size in every.items()}
    lines = {name: rows(name, line, {n: m.median for n, m in measured.items()}, memory) for name, line in sizes.items()}
    result = {
        "processor": processor_name(),
        "torch": str(torch.__version__),
        "disturbed": [name for name, measurement in measured.items() if measurement.disturbed],
        **lines,
    }
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result, list(sizes))


def rows(
    name: str, line: list[Size], ms: dict[str, float], megabytes: dict[str, float | None]
) -> list[dict[str, float | None]]:
    """Return time, memory and their local exponents along one line of sizes."""
    found: list[dict[str, float | None]] = []
    for before, size in zip([None, *line], line, strict=False):
        row = asdict(size) | {
            "ms": ms[str(size)],
            "gflops": 1e-6 * size.operations / ms[str(size)],
            "megabytes": megabytes[str(size)],
            "expected_megabytes": size.expected_megabytes,
            "exponent": None,
            "memory_exponent": None,
        }
        if before is not None:
            ratio = math.log(getattr(size, name) / getattr(before, name))
            row["exponent"] = math.log(ms[str(size)] / ms[str(before)]) / ratio
            more, less = megabytes[str(size)], megabytes[str(before)]
            row["memory_exponent"] = math.log(more / less) / ratio if more and less else None
        found.append(row)
    return found


def show(result: dict[str, object], names: list[str]) -> None:
    """Print a table for each of the three."""
    console = Console()
    console.print(f"{result['processor']}, one core, torch {result['torch']}, float32", style="bold", highlight=False)
    for name in names:
        table = Table(title=f"{name}, expected exponent of time {EXPECTED[name]}", title_justify="left")
        for column in (name, "epoch", "exponent", "GFLOP/s", "memory", "expected", "exponent"):
            table.add_column(column, justify="right", no_wrap=True)
        line = result[name]
        assert isinstance(line, list)
        for row in line:
            table.add_row(
                str(row[name]),
                duration(row["ms"]),
                *(
                    "" if row[key] is None else f"{row[key]:.{digits}f}"
                    for key, digits in (("exponent", 2), ("gflops", 0))
                ),
                "" if row["megabytes"] is None else f"{row['megabytes']:.0f} MB",
                f"{row['expected_megabytes']:.0f} MB",
                "" if row["memory_exponent"] is None else f"{row['memory_exponent']:.2f}",
            )
        console.print()
        console.print(table)
    disturbed = result["disturbed"]
    assert isinstance(disturbed, list)
    console.print(f"\nDisturbed: {', '.join(disturbed)}." if disturbed else "\nUndisturbed.", highlight=False)


if __name__ == "__main__":
    main()
