"""Speed of training many networks at once on one device, beside one network alone and beside the device's limit.

    python benchmarks/ensemble.py                   on a GPU, or the processor if there is none
    python benchmarks/ensemble.py --device cpu      on the processor
    python benchmarks/ensemble.py --json            the numbers as one JSON object

Times are milliseconds per epoch *and network*: an epoch of 16 networks that takes 32 ms counts as 2. An epoch is one
gradient step on a batch of 32 trials, with sampling and Adam, without recording. *Alone* is `rankscope.train` on one
core; the other columns are `train_together`. On a GPU it is wall time, on a processor the time of one thread. The
*floor* is the matrix products only, 3 * 2 * T * B * N^2 operations at the rate of large `torch.mm` products in single
precision; the *share* is floor / epoch of the largest ensemble. Our kernels are faster than `torch.mm` on some
processors, so *alone* may be below the floor. Each number is the best of several rounds.

On a processor, one process a core is faster than training together: the networks exceed the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")})

import torch
from rich.console import Console
from rich.table import Table

import rankscope as rs
from rankscope.experiments import EXPERIMENTS
from rankscope.training.cuda import find_device, full_precision
from timing import processor_name

BATCH = 32
TASKS = ("flipflop", "mante", "romo")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--networks", type=int, nargs="+", default=None, help="sizes of ensembles")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256], help="units of a network")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--epochs", type=int, default=None, help="epochs a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device = find_device(options.device)
    ensembles = options.networks or ([1, 4, 16] if device.type == "cpu" else [1, 4, 16, 64])
    epochs = options.epochs or {"cpu": 10, "cuda": 160}[device.type]
    torch.set_num_threads(1)
    rate = matrix_rate(device)
    rows = [
        measured(task, N, ensembles, device, epochs, options.rounds, rate)
        for N in options.sizes
        for task in options.tasks
    ]
    found = {
        "device": name_of_device(device),
        "torch": str(torch.__version__),
        "gflops": rate / 1e9,
        "ensembles": ensembles,
        "rows": rows,
    }
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)


def name_of_device(device: torch.device) -> str:
    """Return the model of the GPU or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()


def matrix_rate(device: torch.device) -> float:
    """Return operations a second of large products in single precision: the best of several."""
    N = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(N, N, device=device) for _ in range(2))
    seconds = []
    with full_precision():
        for _ in range(10):
            settle(device)
            began = clock(device)
            torch.mm(a, b)
            settle(device)
            seconds.append(clock(device) - began)
    return 2 * N**3 / min(seconds)


def clock(device: torch.device) -> float:
    """Return seconds to be compared with others: wall time for a card, our own time on a processor."""
    return time.perf_counter() if device.type == "cuda" else time.process_time()


def settle(device: torch.device) -> None:
    """Wait until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(
    name: str, N: int, ensembles: list[int], device: torch.device, epochs: int, rounds: int, rate: float
) -> dict[str, Any]:
    """Return one row: milliseconds per epoch and network."""
    task = rs.tasks.make(name)
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for E in [0, *ensembles]:
            print(f"{name}, N = {N}, {E or 'alone'}", file=sys.stderr, flush=True)
            seconds.setdefault(str(E or "alone"), []).append(turn(task, N, E, device, epochs) / max(E, 1))
    best = {key: 1000 * min(found) for key, found in seconds.items()}
    floor = 1000 * 3 * 2 * task.steps * BATCH * N**2 / rate
    return {"task": name, "N": N, "floor_ms": floor, "ms": best, "share": floor / best[str(ensembles[-1])]}


def turn(task: Any, N: int, E: int, device: torch.device, epochs: int) -> float:
    """Return seconds an epoch, of one network alone if E is 0, else of E together."""
    networks = [rs.RateRNN.initialize(task, hidden_size=N, gain=0.9, rng=seed) for seed in range(max(E, 1))]
    times: list[float] = []

    def progress(*_: float) -> None:
        times.append(clock(device if E else torch.device("cpu")))

    options: dict[str, Any] = {"batch_size": BATCH, "recorded_epochs": 0, "progress": progress}
    total = epochs + 2
    if E:
        rs.train_together(networks, task, total, list(range(E)), device=device, **options)
    else:
        rs.train(networks[0], task, total, 0, **options)
    return (times[-1] - times[1]) / (len(times) - 2)


def gain_seconds(ms: dict[str, float]) -> float:
    """Return the seconds that training `gain --preset paper` takes at these milliseconds per epoch of each task."""
    return sum(ms[job.task["name"]] * job.training.epochs / 1000 for job in EXPERIMENTS["gain"].jobs("paper"))


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    ensembles = [str(E) for E in found["ensembles"]]
    title = f"ms per epoch and network; {found['device']}, {found['gflops']:.0f} GFLOP/s, torch {found['torch']}"
    table = Table("task", "N", "floor", "alone", *(f"{E} together" for E in ensembles), "share", title=title)
    for row in found["rows"]:
        times = [f"{row['ms'][key]:.2f}" for key in ("alone", *ensembles)]
        table.add_row(row["task"], str(row["N"]), f"{row['floor_ms']:.3f}", *times, f"{100 * row['share']:.0f} %")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
