"""Time of an epoch with constrained weights or penalties against one without, and of a kernel alignment.

    python benchmarks/knobs.py             a table; about a minute on a quiet machine

The flip-flop, N = 256, batches of 32, one core, single precision. Subjects take turns (`timing.py`); the ratio is the
median over the rounds. The kernel alignment is that of 512 trials.
"""

from __future__ import annotations

import argparse
import os

# Before numpy and torch are loaded.
os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")})

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

import rankscope as rs
from timing import Subject, Timed, measure, quotient

SIZE, EPOCHS, TRIALS = 256, 10, 512
NETWORKS: dict[str, dict[str, Any]] = {
    "none": {},
    "density 0.2": {"density": 0.2},
    "dale 0.8": {"dale": 0.8},
    "dale and density": {"dale": 0.8, "density": 0.2},
    "rank 3": {"rank": 3},
    "gamma 2": {"gamma": 2.0},
}
TRAININGS: dict[str, dict[str, Any]] = {
    "weight decay": {"weight_decay": 1e-3},
    "weights_l2": {"penalties": {"weights_l2": 1e-4}},
    "rates_l2": {"penalties": {"rates_l2": 0.1}},
    "weights_nuclear": {"penalties": {"weights_nuclear": 1e-5}},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    cases = {name: (network, {}) for name, network in NETWORKS.items()}
    cases |= {name: ({}, training) for name, training in TRAININGS.items()}
    subjects: dict[str, Subject] = {name: Timed(epochs(*case), parts=EPOCHS) for name, case in cases.items()}
    subjects["kernel alignment"] = Timed(alignment())
    found = measure(subjects, options.rounds, seconds=300, turn_seconds=0.2)
    disturbed = any(one.disturbed for one in found.values())
    table = Table(caption="disturbed" if disturbed else "undisturbed")
    for column in ("knob", "ms", "relative"):
        table.add_column(column, justify="left" if column == "knob" else "right")
    for name, one in found.items():
        relative = "" if name not in cases else f"{quotient(one.samples, found['none'].samples):.2f}"
        table.add_row(name, f"{one.median:.3g}", relative)
    Console(width=100).print(table)


def epochs(network: dict[str, Any], training: dict[str, Any]) -> Callable[[], object]:
    """Return a training of a few epochs."""
    task = rs.tasks.FlipFlop()
    trained = rs.RateRNN.initialize(task, SIZE, rng=0, **network)
    return lambda: rs.train(trained, task, EPOCHS, rng=0, recorded_epochs=0, **training)


def alignment() -> Callable[[], object]:
    """Return a kernel alignment of a network before and after a few epochs."""
    task = rs.tasks.FlipFlop()
    network = rs.RateRNN.initialize(task, SIZE, rng=0)
    before = network.snapshot()
    rs.train(network, task, EPOCHS, rng=0)
    trials = task.sample(TRIALS, 0)
    return lambda: rs.regime.kernel_alignment(before, network, trials)


if __name__ == "__main__":
    main()
