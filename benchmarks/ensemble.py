"""How fast networks learn together on one device, beside one alone, and beside what the device could do.

    python benchmarks/ensemble.py                   a table for the graphics card, or the processor where there is none
    python benchmarks/ensemble.py --device cpu      for the processor
    python benchmarks/ensemble.py --json            the same numbers as one JSON object

How to read it. Times are milliseconds per epoch *and network*: an epoch of 16 networks that takes 32 ms counts as 2.
An epoch is one gradient step on a batch of 32 trials, forward, backward and Adam, with the trials drawn, no weights
looked at and nothing stored. *Alone* is `rankscope.train` on one core; the other columns are `train_together` with so
many networks. On a graphics card it is wall time; on a processor it is the processor time of one thread, so that it
matters less what else runs there. The *floor* counts the matrix products only, 3 * 2 * T * B * N^2 operations, at the
rate at which `torch.mm` multiplies large matrices in single precision on this device; the *share* is floor / epoch of
the largest ensemble. Our own engine multiplies faster than `torch.mm` on some processors: *alone* may beat the floor.

The last lines say how long the products of `gain --preset paper` would take at that rate, and how long it would train
at the measured times: an estimate, without measuring its networks and without looking at their weights.

On a processor expect a loss: the networks leave the cache, and one process a core is faster. Each number is the best
of some rounds in which all take turns.
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
from rankscope.training.cuda import find_device, full_precision, name_of_device
from rankscope.training.together import HEARD_EVERY
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
        "device": name_of_device(device) if device.type == "cuda" else processor_name(),
        "torch": str(torch.__version__),
        "gflops": rate / 1e9,
        "ensembles": ensembles,
        "rows": rows,
        "gain_paper": whole_experiment(rows, rate),
    }
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)


def matrix_rate(device: torch.device) -> float:
    """Return operations a second of large products in single precision: the best of several."""
    N = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(N, N, device=device) for _ in range(2))
    seconds = []
    with full_precision(device.type == "cuda"):
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
    # The first epochs prepare things, and on a graphics card are heard of in bursts.
    skipped = HEARD_EVERY[device.type] if E else 1
    total = epochs + skipped + 1
    if E:
        total = -(-total // skipped) * skipped
        rs.training.train_together(networks, task, total, list(range(E)), device=device, **options)
    else:
        rs.train(networks[0], task, total, 0, **options)
    return (times[-1] - times[skipped]) / (len(times) - 1 - skipped)


def whole_experiment(rows: list[dict[str, Any]], rate: float) -> dict[str, float]:
    """Return seconds that the products of `gain --preset paper` take at this rate, and its training at these times."""
    networks = [
        (job.task["name"], job.network["hidden_size"], job.training.epochs) for job in EXPERIMENTS["gain"].jobs("paper")
    ]
    steps = {name: rs.tasks.make(name).steps for name, *_ in networks}
    products = sum(3 * 2 * epochs * steps[name] * BATCH * N**2 for name, N, epochs in networks) / rate
    each = {(row["task"], row["N"]): list(row["ms"].values())[-1] / 1000 for row in rows}
    if not {(name, N) for name, N, _ in networks} <= set(each):
        return {"products_s": products}
    training = sum(each[name, N] * epochs for name, N, epochs in networks)
    return {"products_s": products, "training_s": training}


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    ensembles = [str(E) for E in found["ensembles"]]
    title = f"ms per epoch and network; {found['device']}, {found['gflops']:.0f} GFLOP/s, torch {found['torch']}"
    table = Table("task", "N", "floor", "alone", *(f"{E} together" for E in ensembles), "share", title=title)
    for row in found["rows"]:
        times = [f"{row['ms'][key]:.2f}" for key in ("alone", *ensembles)]
        table.add_row(row["task"], str(row["N"]), f"{row['floor_ms']:.3f}", *times, f"{100 * row['share']:.0f} %")
    console = Console(width=140)
    console.print(table)
    estimate = found["gain_paper"]
    text = f"gain --preset paper: its products take {estimate['products_s']:.0f} s at this rate"
    if "training_s" in estimate:
        text += f"; its training, {ensembles[-1]} at a time, about {estimate['training_s']:.0f} s (an estimate)"
    console.print(text)


if __name__ == "__main__":
    main()
