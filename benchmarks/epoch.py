"""Time of the stages of an epoch of `rankscope.train`, for the three tasks of the paper.

    python benchmarks/epoch.py             a table; about a minute on a quiet machine
    python benchmarks/epoch.py --json      the same numbers as one JSON object

The networks are trained as in `gain --preset paper` (N = 256, batch 32, 200 recordings in a training), with a timer
around each stage; milliseconds per epoch, medians over several trainings. *Forward* and *backward* are the two time
loops. *Weight gradients* is the rest of `ManualGradient`: the products for the gradients of the weights, the loss,
packing the weights for the loops, and the norm of the gradient. *Other* is what no timer covers: the training loop and
its records. *Products* is the time of the three matrix products of an epoch, for the steps that are computed, at the
best rate of one core in this run. Each timer costs about a microsecond. The script stops if a stage was never called.
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
from rankscope.networks.kernels import build
from rankscope.networks.recurrence import silent_steps
from rankscope.tasks.trials import BuiltInTask
from rankscope.training.manual_gradient import ManualGradient
from rankscope.training.recorder import Recorder
from timing import processor_name

TIMED: dict[str, tuple[type, str]] = {
    "forward": (build.TimeLoopKernel, "forward"),
    "backward": (build.TimeLoopKernel, "adjoint"),
    "gradient": (ManualGradient, "__call__"),
    "Adam": (ManualGradient, "step"),
    "drawing": (BuiltInTask, "sample"),
    "recording": (Recorder, "record_matrices"),
}
"""Methods with a timer; "gradient" includes "forward" and "backward"."""
STAGES = ("forward", "backward", "weight gradients", "Adam", "drawing", "recording", "other")
BATCH, N, EPOCHS, TURNS = 32, 256, 240, 5
RECORDS = 200


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [profile(name) for name in ("flipflop", "mante", "romo")]
    if options.json:
        print(json.dumps({"processor": processor_name(), "torch": str(torch.__version__), "tasks": rows}, indent=2))
        return
    table = Table(title=f"{processor_name()}, one core, torch {torch.__version__}", title_justify="left")
    for number, column in enumerate(("task", "epoch", *STAGES, "products", "outside them")):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        times = (f"{row[name]:.2f}" for name in ("epoch", *STAGES, "products"))
        table.add_row(row["task"], *times, f"{100 * (1 - row['products'] / row['epoch']):.1f} %")
    Console(width=130).print(table)


def profile(name: str) -> dict[str, Any]:
    """Return milliseconds per epoch of each stage, medians over turns."""
    task = rs.tasks.make(name)
    epochs = next(job.training.epochs for job in EXPERIMENTS["gain"].jobs("paper") if job.task["name"] == name)
    records = range(0, EPOCHS, epochs // RECORDS)
    turns: list[dict[str, float]] = []
    rates = []
    for _ in range(TURNS):
        rates.append(best_rate())
        network = rs.RateRNN.initialize(task, hidden_size=N, gain=0.9, rng=0)
        with timers() as seconds:
            began = time.perf_counter()
            rs.train(network, task, EPOCHS, 0, recorded_epochs=records)
            whole = time.perf_counter() - began
        turns.append(stages({"epoch": whole, **seconds}))
    found = {stage: 1000 / EPOCHS * float(np.median([turn[stage] for turn in turns])) for stage in turns[0]}
    silent = silent_steps(task.sample(BATCH, rng=0).inputs, network.weights, network.dynamics, None)
    products = 1e-6 * 6 * (task.steps - silent) * BATCH * N**2 / float(np.median(rates))
    return {"task": name, **found, "products": products}


def stages(seconds: dict[str, float]) -> dict[str, float]:
    """Split an epoch into disjoint stages."""
    uncalled = [name for name in TIMED if name not in seconds]
    if uncalled:
        raise RuntimeError(f"train never called the methods timed as {', '.join(uncalled)}: update TIMED")
    found = dict(seconds)
    gradient = found.pop("gradient")
    found["weight gradients"] = gradient - found["forward"] - found["backward"]
    found["other"] = found["epoch"] - sum(found[stage] for stage in STAGES if stage != "other")
    return found


@contextlib.contextmanager
def timers() -> Iterator[dict[str, float]]:
    """Add a timer to every method of `TIMED`; yield the seconds that each took."""
    spent: dict[str, float] = defaultdict(float)
    with contextlib.ExitStack() as stack:
        for stage, (owner, name) in TIMED.items():
            stack.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name), stage, spent)))
        yield spent


def timed(call: Callable[..., Any], stage: str, spent: dict[str, float]) -> Callable[..., Any]:
    """Return `call` with a timer."""

    @functools.wraps(call)
    def with_timer(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments, **options)
        finally:
            spent[stage] += time.perf_counter() - began

    return with_timer


def best_rate() -> float:
    """Return the best rate of a large product by any library, in GFLOP/s."""
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
