"""What each idea for a faster epoch is worth, kept or not: with it and without it, taking turns in one run.

    python benchmarks/ideas.py             a table; about two minutes on a quiet machine
    python benchmarks/ideas.py --json      the same numbers as one JSON object

How to read it. *With* and *without* are milliseconds of the same work, N = 256 and batch 32; the *gain* is the part of
the time that the idea saves (negative: it costs), the median of the rounds. For what is kept, "without" switches it
off; what is not kept is tried out here and nowhere else. What an idea does to the numbers is in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os

# Before numpy and torch are loaded, here and in the processes begun from here.
os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")})

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import rankscope as rs
from rankscope.linalg import leading_singular_values
from rankscope.networks import forward_backward
from rankscope.training import setup
from rankscope.training.manual_gradient import ManualGradient
from timing import Measurement, Subject, Timed, Turn, measure, processor_name, quotient

EPOCHS, N, BATCH = 40, 256, 32
ROUNDS, SECONDS, TURN = 9, 200, 0.15


@dataclass(frozen=True)
class Idea:
    """Two ways to do the same, and what became of the idea."""

    name: str
    kept: bool
    with_it: Subject
    without: Subject


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with OneCore(1) as one, OneCore(2) as two:
        ideas = [*kept_ideas(), *tried_ideas(), Idea("two networks a core, per network", False, two, one)]
        subjects = {f"{idea.name}, {way}": getattr(idea, way) for idea in ideas for way in ("with_it", "without")}
        measured = measure(subjects, ROUNDS, SECONDS, TURN)
    rows = [row(idea, measured) for idea in ideas]
    if options.json:
        print(json.dumps({"processor": processor_name(), "torch": str(torch.__version__), "ideas": rows}, indent=2))
        return
    table = Table(title=f"{processor_name()}, torch {torch.__version__}", title_justify="left")
    for number, column in enumerate(("idea", "without", "with", "gain", "kept")):
        table.add_column(column, justify="right" if number else "left")
    for found in rows:
        cells = (f"{found['without_ms']:.3g} ms", f"{found['with_ms']:.3g} ms", f"{found['gain_percent']:+.1f} %")
        table.add_row(str(found["idea"]), *cells, "yes" if found["kept"] else "no")
    Console(width=110).print(table)


def row(idea: Idea, measured: dict[str, Measurement]) -> dict[str, float | str | bool]:
    """Return what is reported of an idea."""
    with_it, without = (measured[f"{idea.name}, {way}"] for way in ("with_it", "without"))
    return {
        "idea": idea.name,
        "without_ms": without.median,
        "with_ms": with_it.median,
        "gain_percent": 100 * (1 - quotient(with_it.samples, without.samples)),
        "kept": idea.kept,
    }


def kept_ideas() -> Iterator[Idea]:
    """Yield ideas that the engine has, each beside the engine without it."""
    for task in ("flipflop", "romo"):
        yield Idea(
            f"gradient without autograd, {task}",
            True,
            training(task),
            training(task, partial(mock.patch.object, ManualGradient, "fits", lambda *_: False)),
        )
        yield Idea(
            f"trials drawn eight batches at a time, {task}",
            True,
            training(task),
            training(task, partial(mock.patch.object, setup, "drawn_ahead", one_at_a_time)),
        )
        yield Idea(
            f"steps before anything is heard left out, {task}",
            True,
            training(task),
            training(task, partial(mock.patch.object, forward_backward, "silent_steps", lambda *_: 0)),
        )
        yield Idea(
            f"input and readout inside the products of the loop, {task}",
            True,
            training(task),
            training(task, partial(mock.patch.object, forward_backward, "driven", lambda *_: None)),
        )
    change = learned_change()
    yield Idea(
        "singular values as roots of the eigenvalues of dW dW^T",
        True,
        Timed(partial(leading_singular_values, change, 40)),
        Timed(partial(torch.linalg.svdvals, change)),
    )


def tried_ideas() -> Iterator[Idea]:
    """Yield ideas that were not kept."""
    shapes = [(N, N), (N, 2), (2, N)]
    yield Idea("Adam over one flat buffer", False, adam([(N * (N + 4),)]), adam(shapes))
    rows, deltas = torch.randn(100 * BATCH, N), torch.randn(100 * BATCH, N)
    yield Idea(
        "products in bfloat16 (3200 x 256 x 256)",
        False,
        onednn(rows, torch.randn(N, N), torch.bfloat16),
        onednn(rows, torch.randn(N, N), torch.float32),
    )
    exact = Timed(partial(forward_backward.grams, deltas, rows, deltas[:, :2].contiguous(), rows[:, :2].contiguous()))
    half = [x.bfloat16() for x in (deltas, rows)]
    yield Idea("weight gradient in bfloat16", False, Timed(partial(torch.mm, half[0].t(), half[1])), exact)
    sketch = partial(torch.svd_lowrank, learned_change(), q=52, niter=2)
    exactly = partial(leading_singular_values, learned_change(), 40)
    yield Idea("singular values by a random sketch", False, Timed(sketch), Timed(exactly))


def training(task: str, change: Callable[[], object] | None = None) -> Timed:
    """Return epochs of a training, under a change of the engine."""
    made, rng = rs.tasks.make(task), np.random.default_rng(0)
    network = rs.RateRNN.initialize(made, hidden_size=N, gain=0.9, rng=0)

    def epochs() -> None:
        with change() if change is not None else unchanged():  # type: ignore[attr-defined]
            rs.train(network, made, epochs=EPOCHS, rng=rng, recorded_epochs=0)

    return Timed(epochs, parts=EPOCHS)


@contextmanager
def unchanged() -> Iterator[None]:
    """Change nothing."""
    yield


def one_at_a_time(task: rs.tasks.BuiltInTask, batch_size: int, rng: np.random.Generator) -> Iterator[rs.Trials]:
    """Draw each batch when it is wanted."""
    while True:
        yield task.sample(batch_size, rng)


def adam(shapes: list[tuple[int, ...]]) -> Subject:
    """Return steps of Adam over tensors of these shapes, with the caches as cold as an epoch leaves them."""
    weights = [torch.zeros(shape, requires_grad=True) for shape in shapes]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    return Cold(torch.optim.Adam(weights, lr=1e-4, fused=True).step)


def onednn(rows: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> Subject:
    """Return a product by oneDNN."""
    x, W = rows.to(dtype), weight.to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(W, len(x))
    return Timed(partial(torch.ops.mkldnn._linear_pointwise.default, x, packed, None, "none", [], ""))


def learned_change() -> torch.Tensor:
    """Return what a hundred epochs write into the weights."""
    task = rs.tasks.FlipFlop()
    network = rs.RateRNN.initialize(task, hidden_size=N, gain=0.9, rng=0)
    before = network.recurrent_weights.detach().clone()
    rs.train(network, task, epochs=100, rng=0, recorded_epochs=0)
    return network.recurrent_weights.detach() - before


class Cold:
    """A short call, timed after something else has swept through the caches."""

    def __init__(self, call: Callable[[], object], calls: int = 50) -> None:
        self._call, self._calls, self._sweep = call, calls, torch.zeros(2_000_000)

    def prepare(self, turn_seconds: float) -> None:
        """Call once."""
        self._call()

    def turn(self) -> Turn:
        """Return the mean seconds of a call."""
        spent = 0.0
        for _ in range(self._calls):
            self._sweep.add_(1.0)
            began = time.perf_counter()
            self._call()
            spent += time.perf_counter() - began
        return Turn(spent / self._calls, 1.0)


class OneCore:
    """So many processes that train at the same time on one core; a turn is the time of an epoch per network."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> OneCore:
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        core = min(os.sched_getaffinity(0))
        for _ in range(self._count):
            ours, theirs = context.Pipe()
            self._pipes.append(ours)
            self._processes.append(context.Process(target=_train_when_told, args=(theirs, core), daemon=True))
            self._processes[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(False)
            process.join(timeout=10)

    def prepare(self, turn_seconds: float) -> None:
        """Wait until the processes have begun, and warm them up."""
        self.turn()

    def turn(self) -> Turn:
        """Return the seconds of an epoch, per network."""
        began = time.perf_counter()
        for pipe in self._pipes:
            pipe.send(True)
        for pipe in self._pipes:
            pipe.recv()
        return Turn((time.perf_counter() - began) / EPOCHS / self._count, 1.0)


def _train_when_told(pipe: Connection, core: int) -> None:
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    subject = training("flipflop")
    while pipe.recv():
        subject.call()
        pipe.send(True)


if __name__ == "__main__":
    main()
