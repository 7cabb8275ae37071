"""Time of gated networks: forward and backward pass, beside torch's own layers and the floor of the matrix products.

    python benchmarks/gated.py             a table; about two minutes on a quiet machine
    python benchmarks/gated.py --json      the same numbers as one JSON object

A batch of sequences of one length, the loss the sum of all outputs, one core, single precision. *Floor* is the time of
the operations of all matrix products of the two passes at the best rate of one core in this run. --sentiment adds a
pass over the public training sentences as the experiment trains it, in milliseconds a batch, validation and
Adam included; it needs the data (`rankscope data sentiment`).
"""

from __future__ import annotations

import argparse
import json
import os

# Before numpy and torch are loaded.
os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")})

from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import rankscope as rs
from rankscope.experiments import EXPERIMENTS
from rankscope.networks.gates import GATES
from timing import Measurement, Subject, Timed, measure, processor_name, quotient

CASES = [(kind, N, batch) for N, batch in ((32, 32), (256, 1), (256, 32), (256, 128), (1024, 32)) for kind in GATES]
STEPS, INPUTS = 100, 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--sentiment", action="store_true", help="also a pass of the sentiment experiment")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    left, right = torch.randn(2048, 256), torch.randn(256, 1024)
    subjects: dict[str, Subject] = {"product": Timed(lambda: left @ right)}
    for case in CASES:
        for name, call in passes(*case).items():
            subjects[f"{case} {name}"] = Timed(call)
    if options.sentiment:
        subjects["sentiment"] = Timed(sentiment_epoch, parts=len(rs.tasks.make("sentiment").batches(64, 0)))
    found = measure(subjects, options.rounds, seconds=600, turn_seconds=0.2)
    rate = 2 * 2048 * 256 * 1024 / (found["product"].median * 1e6)  # GFLOP/s
    rows = [row(case, found, rate) for case in CASES]
    if "sentiment" in found:
        floor = sentiment_operations() / rate / 1e6
        rows.append({"what": "sentiment, a batch", "floor": floor, "ours": found["sentiment"].median, "torch": None})
    disturbed = any(one.disturbed for one in found.values())
    head = f"{processor_name()}, one core, {rate:.0f} GFLOP/s, torch {torch.__version__}"
    if options.json:
        print(json.dumps({"machine": head, "disturbed": disturbed, "rows": rows}, indent=2))
        return
    table = Table(title=head, title_justify="left", caption="disturbed" if disturbed else "undisturbed")
    for number, column in enumerate(("what", "floor", "ours", "torch", "floor / ours", "torch / ours")):
        table.add_column(column, justify="right" if number else "left")
    for one in rows:
        times = [f"{one[name]:.3g} ms" if one[name] is not None else "" for name in ("floor", "ours", "torch")]
        ratio = f"{one['ratio']:.2f}" if "ratio" in one else ""
        table.add_row(one["what"], *times, f"{100 * one['floor'] / one['ours']:.0f} %", ratio)
    Console(width=110).print(table)


def passes(kind: str, N: int, batch: int) -> dict[str, Callable[[], object]]:
    """Return a forward and backward pass of one layer, ours and torch's."""
    network = rs.GatedRNN(INPUTS, 2, kind, N, rng=0)
    inputs = torch.randn(batch, STEPS, INPUTS)

    def ours() -> None:
        network.zero_grad()
        network(inputs).sum().backward()

    def torchs() -> None:
        network.zero_grad()
        states, _ = network.rnn(inputs.transpose(0, 1))
        nn.functional.linear(states, network.readout.weight, network.readout.bias).sum().backward()

    return {"ours": ours, "torch": torchs}


def row(case: tuple[str, int, int], found: dict[str, Measurement], rate: float) -> dict[str, Any]:
    """Return the numbers of one case, in milliseconds."""
    kind, N, batch = case
    operations = 6 * len(GATES[kind]) * N * N * batch * STEPS
    ours, torchs = (found[f"{case} {name}"] for name in ("ours", "torch"))
    return {
        "what": f"{kind}, N = {N}, batch {batch}",
        "floor": operations / rate / 1e6,
        "ours": ours.median,
        "torch": torchs.median,
        "ratio": quotient(torchs.samples, ours.samples),
    }


def sentiment_epoch() -> None:
    """Train the network of the experiment for one pass."""
    (job,) = EXPERIMENTS["sentiment"].jobs("quick")
    task = job.make_task()
    rs.train(job.initial_network(task), task, 1, 0, config=job.training)


def sentiment_operations() -> float:
    """Return the operations of the matrix products of a pass, validation included, for each batch of it."""
    task = rs.tasks.make("sentiment")
    N, features = 256, task.embedding.shape[1]
    forward = 2 * 4 * N * (features + N) + 2 * 4 * N * 2 * N
    backward = forward + 2 * 4 * N * N + 2 * 4 * N * 2 * N  # no gradient of the word vectors
    batches = task.batches(64, 0)
    words = sum(int(trials.lengths.sum()) for trials in batches)
    held_out = sum(int(trials.lengths.sum()) for trials in task.validation())
    return (words * (forward + backward) + held_out * forward) / len(batches)


if __name__ == "__main__":
    main()
