"""Time of 100 epochs with default threads, alone and on a busy machine, relative to OMP_NUM_THREADS=1 alone.

    python benchmarks/threads.py

Each script trains the flip-flop (N = 256, batch 32) in a process of its own and reports wall time after a warm-up. All
situations take turns; a ratio is that of the minima.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

SCRIPT = """
import sys, time
import rankscope as rs
task = rs.tasks.FlipFlop()
network = rs.RateRNN.initialize(task, hidden_size=256, gain=0.9, rng=0)
rs.train(network, task, 5, rng=0)
print("ready", flush=True)
sys.stdin.readline()
started = time.perf_counter()
rs.train(network, task, 100, rng=1)
print(time.perf_counter() - started, flush=True)
"""
BUSY = "while True: pass"
LIBRARIES = tuple(f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS"))
BASELINE = "OMP_NUM_THREADS=1"
SITUATIONS = {
    BASELINE: (1, 0, True),
    "no environment variable set": (1, 0, False),
    "beside one busy process": (1, 1, False),
    "two scripts at once": (2, 0, False),
}
"""Number of scripts, number of busy processes, and whether threads are limited by the environment."""


def main() -> None:
    """Measure, and print."""
    for situation, ratio in thread_ratios().items():
        print(f"{situation}: {ratio:.2f} times {BASELINE}")


def thread_ratios(rounds: int = 3) -> dict[str, float]:
    """Return the time of each situation but the first, relative to the first."""
    best = dict.fromkeys(SITUATIONS, float("inf"))
    for _ in range(rounds):
        for situation, (scripts, busy, limited) in SITUATIONS.items():
            best[situation] = min(best[situation], _seconds(scripts, busy, limited))
    return {situation: seconds / best[BASELINE] for situation, seconds in best.items() if situation != BASELINE}


def _seconds(scripts: int, busy: int, limited: bool) -> float:
    """Return the longest wall time of the scripts, which start together."""
    environment = {name: value for name, value in os.environ.items() if name not in LIBRARIES}
    if limited:
        environment |= dict.fromkeys(LIBRARIES, "1")
    loads = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        running = [_start(environment) for _ in range(scripts)]
        for process in running:
            _answer(process)
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        seconds = [float(_answer(process)) for process in running]
        for process in running:
            process.communicate()
        return max(seconds)
    finally:
        for load in loads:
            load.kill()
            load.wait()


def _start(environment: Mapping[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


if __name__ == "__main__":
    main()
