"""Where the time of an epoch goes, end to end, for the three tasks of the paper.

    python benchmarks/epoch.py             a table; about a minute on a quiet machine
    python benchmarks/epoch.py --json      the same numbers as one JSON object

How to read it. `rankscope.train` runs as in `gain --preset paper` (N = 256, batch 32, as many looks at the weights for
an epoch as there), with a clock around each of its parts; milliseconds an epoch. *Forward* and *back* are the walks
through time, the nonlinearity included, *gradients* the products for the weights; *products* is what these three would
take at the best rate at which one core was seen to multiply matrices in this run, for the steps that are computed.
*Other* is everything else: what calls what, the readout, the norm of the gradient, the loop. The clocks
themselves cost about a microsecond each.
"""

from __future__ import annotations

import argparse
import json
import os

# Before numpy and torch are loaded.
os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")})

import contextlib
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import rankscope as rs
from rankscope.experiments import EXPERIMENTS
from rankscope.networks import forward_backward
from rankscope.networks.kernels import build
from rankscope.tasks.trials import BuiltInTask
from rankscope.training import manual_gradient, train
from rankscope.training.recorder import Recorder
from timing import processor_name

PARTS: dict[str, tuple[Any, str]] = {
    "forward": (build.TimeLoopKernel, "forward"),
    "back": (build.TimeLoopKernel, "adjoint"),
    "gradients": (forward_backward, "grams"),
    "packing": (forward_backward, "time_loop"),
    "loss": (manual_gradient, "_squared_loss"),
    "Adam": (manual_gradient.ManualGradient, "step"),
    "drawing": (BuiltInTask, "sample"),
    "recording": (Recorder, "record_matrices"),
}
BATCH, N, EPOCHS, TURNS = 32, 256, 240, 5
RECORDS = 200


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [profile(name) for name in ("flipflop", "mante", "romo")]
    if options.json:
        print(json.dumps({"processor": processor_name(), "torch": str(torch.__version__), "tasks": rows}, indent=2))
        return
    table = Table(title=f"{processor_name()}, one core, torch {torch.__version__}", title_justify="left")
    for number, column in enumerate(("task", "epoch", *PARTS, "other", "products", "outside them")):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        times = (f"{row[name]:.2f}" for name in ("epoch", *PARTS, "other", "products"))
        table.add_row(row["task"], *times, f"{100 * (1 - row['products'] / row['epoch']):.1f} %")
    Console(width=130).print(table)


def profile(name: str) -> dict[str, Any]:
    """Return milliseconds an epoch by part, medians over turns."""
    task = rs.tasks.make(name)
    epochs = next(job.training.epochs for job in EXPERIMENTS["gain"].jobs("paper") if job.task["name"] == name)
    records = range(0, EPOCHS, epochs // RECORDS)
    turns: list[dict[str, float]] = []
    rates = []
    for _ in range(TURNS):
        rates.append(best_rate())
        network = rs.RateRNN.initialize(task, hidden_size=N, gain=0.9, rng=0)
        with clocks() as spent:
            began = time.perf_counter()
            train(network, task, EPOCHS, 0, recorded_epochs=records)
            whole = time.perf_counter() - began
        parts = {part: 1000 * spent[part] / EPOCHS for part in PARTS}
        turns.append({"epoch": 1000 * whole / EPOCHS, **parts})
    found = {part: float(np.median([turn[part] for turn in turns])) for part in turns[0]}
    trials = task.sample(BATCH, rng=0)
    silent = forward_backward.silent_steps(trials.inputs, network.weights, network.dynamics, None)
    products = 1e-6 * 6 * (task.steps - silent) * BATCH * N**2 / float(np.median(rates))
    return {"task": name, **found, "other": found["epoch"] - sum(found[p] for p in PARTS), "products": products}


@contextlib.contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Put a clock around every part; give the seconds that each took."""
    spent: dict[str, float] = defaultdict(float)
    with contextlib.ExitStack() as stack:
        for part, (owner, name) in PARTS.items():
            stack.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name), part, spent)))
        yield spent


def timed(call: Callable[..., Any], part: str, spent: dict[str, float]) -> Callable[..., Any]:
    """Return `call` with a clock."""

    @functools.wraps(call)
    def clocked(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments, **options)
        finally:
            spent[part] += time.perf_counter() - began

    return clocked


def best_rate() -> float:
    """Return the rate of a large product by the fastest means here, in GFLOP/s."""
    x, W = torch.randn(3200, N), torch.randn(N, N)
    calls: list[Callable[[], object]] = [functools.partial(torch.mm, x, W)]
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        packed = torch.ops.mkldnn._reorder_linear_weight(W, len(x))
        calls.append(functools.partial(torch.ops.mkldnn._linear_pointwise.default, x, packed, None, "none", [], ""))
    if build.supports(N):
        calls.append(functools.partial(build.AffineKernel(W), x, torch.zeros(len(x), N)))
    medians = []
    for call in calls:
        times = []
        for _ in range(40):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        medians.append(float(np.median(times)))
    return 2e-9 * len(x) * N**2 / min(medians)


if __name__ == "__main__":
    main()
