"""Check training on a GPU in at most 8 minutes: the GPU tests, one long training, and a table of speeds.

    python benchmarks/device_check.py                          on a GPU
    python benchmarks/device_check.py --device cpu --quick     the same code in half a minute on a processor
    python benchmarks/device_check.py --json                   the numbers as one JSON object

The table has milliseconds per epoch and network for 1 to 150 networks at N = 256, and their share of the rate at which
the device multiplies large matrices. The last line extrapolates the wall time of training `gain --preset paper`; the
measurements of its networks are not included. Exit status 1: a test failed, or the networks did not learn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")})

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import rankscope as rs
from ensemble import BATCH, gain_seconds, matrix_rate, name_of_device
from rankscope.training.cuda import find_device

TESTS = "tests/training/test_train_together.py"
SIZES = (1, 2, 5, 10, 20, 50, 100, 150)
TASKS = ("flipflop", "mante", "romo")


def main() -> None:
    """Test, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small networks and few epochs, to try the script")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device = find_device(options.device)
    started = time.perf_counter()
    N, sizes, seconds = (32, (1, 4), 0.5) if options.quick else (256, SIZES, 8.0)
    tests = run_tests(device.type, options.quick)
    learned = long_training(device, N, *((4, 20) if options.quick else (40, 1000)))
    rate = matrix_rate(device)
    flipflop = {str(E): speed("flipflop", N, E, device, seconds) for E in sizes}
    largest = {task: speed(task, N, sizes[-1], device, seconds) for task in TASKS}
    steps = rs.tasks.FlipFlop().steps
    floor = 1000 * 3 * 2 * steps * BATCH * N**2 / rate
    found = {
        "device": name_of_device(device),
        "torch": str(torch.__version__),
        "tests": tests,
        "loss_ratio": learned,
        "gflops": rate / 1e9,
        "N": N,
        "ms": flipflop,
        "share": {E: floor / ms for E, ms in flipflop.items()},
        "gain_s": gain_seconds(largest),
        "seconds": time.perf_counter() - started,
    }
    print(json.dumps(found, indent=1)) if options.json else show(found)
    sys.exit(tests["status"] != 0 or (not options.quick and not learned < 0.05))


def run_tests(device: str, quick: bool) -> dict[str, Any]:
    """Run the tests of training together on `device`; return exit status and pytest's summary."""
    root = Path(__file__).parents[1]
    chosen = f"{device} and bit" if quick else device
    call = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", TESTS, "-k", chosen]
    done = subprocess.run(call, cwd=root, capture_output=True, text=True, timeout=240, check=False)
    lines = done.stdout.strip().splitlines() or [done.stderr[-500:]]
    return {"status": done.returncode, "summary": lines[-1]}


def long_training(device: torch.device, N: int, count: int, epochs: int) -> float:
    """Train flip-flop networks at gains from 0 to 2.1; return the median ratio of the last loss to the first."""
    task = rs.tasks.FlipFlop()
    networks = [rs.RateRNN.initialize(task, N, gain=0.3 * (seed % 8), rng=seed) for seed in range(count)]
    histories = rs.train_together(networks, task, epochs, list(range(count)), device=device)
    return float(np.median([history.losses[-1] / history.losses[0] for history in histories]))


def speed(name: str, N: int, count: int, device: torch.device, seconds: float) -> float:
    """Return the median milliseconds per epoch and network, over `seconds` of training."""
    task = rs.tasks.make(name)
    networks = [rs.RateRNN.initialize(task, N, gain=0.9, rng=seed) for seed in range(count)]
    times = [time.perf_counter()]

    def progress(*_: object) -> None:
        times.append(time.perf_counter())

    def stop(state: Any) -> bool:
        return state.epoch >= 4 and time.perf_counter() - times[0] > seconds

    options: dict[str, Any] = {"recorded_epochs": 0, "progress": progress, "callbacks": [stop]}
    rs.train_together(networks, task, 10_000, list(range(count)), device=device, **options)
    return 1000 * float(np.median(np.diff(times)[2:])) / count


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    console = Console(width=110)
    title = f"{found['device']}, {found['gflops']:.0f} GFLOP/s, torch {found['torch']}; N = {found['N']}"
    table = Table("networks", "ms per epoch and network", "share of the rate", title=title)
    for E, ms in found["ms"].items():
        table.add_row(E, f"{ms:.3f}", f"{100 * found['share'][E]:.0f} %")
    console.print(table)
    console.print(f"tests: {found['tests']['summary']}")
    console.print(f"last loss / first loss, median of the long training: {found['loss_ratio']:.3g}")
    console.print(f"training of gain --preset paper: about {found['gain_s'] / 60:.0f} min, extrapolated")


if __name__ == "__main__":
    main()
