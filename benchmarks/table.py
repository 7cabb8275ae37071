"""Time what rankscope spends its time on, beside the matrix products alone and a loop in PyTorch.

    python benchmarks/table.py             the table; about five minutes on a quiet machine
    python benchmarks/table.py --quick     fewer rounds, fewer sizes; about one minute
    python benchmarks/table.py --json      the same numbers as one JSON object

Columns:

- *Floor*: the matrix products alone, at the best rate of one core that any library reached in this run. An epoch has
  3 * 2 * T * B * N^2 operations. Singular values have no such floor.
- *Ours*: one epoch of `rankscope.train`: fresh trials, forward, backward, Adam. Recording is a row of its own.
- *Plain*: a loop over time in PyTorch (`loops.py`): forward, backward and Adam on given trials, on one thread like
  ours. Its loss and gradients are compared with ours before anything is timed.
- *Floor / ours*: the share of the time that is products. It can exceed 100 %, because steps without input are skipped.
- *Memory*: the peak of a process beyond one that has only imported everything.

A *network* is one of `gain --preset paper`: all its epochs, 200 recordings of its weights, and all its measurements.
Its time is computed from other rows (epochs * epoch + 200 * record + measurement), because measuring it would take as
long as this whole program. Its floor is the products of the epochs and of the truncation curve.

Rows are medians over rounds in which all subjects alternate (`timing.py`); ratios are medians of the ratios within a
round. The last line names the subjects that did not have a whole core: the times are valid only if it names none.
"""

from __future__ import annotations

import argparse
import json
import os

# Before numpy and torch are loaded, here and in the processes begun from here.
os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")})

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import rankscope as rs
from loops import PlainRNN, disagreement, epoch_of
from memory import peak_megabytes
from rankscope.experiments import EXPERIMENTS
from rankscope.experiments.base import MEASURED
from rankscope.linalg import leading_singular_values
from rankscope.lowrank.truncation import RANKS
from rankscope.measurements import TrainedNetwork
from rankscope.measurements import measure as measure_network
from rankscope.networks.kernels import build
from threads import BASELINE, thread_ratios
from timing import Measurement, Subject, Timed, available_cores, duration, measure, processor_name, quotient

CURVE_NETWORKS = len(RANKS) + 1
"""Networks that a truncation curve runs: one for each rank, and the trained one."""

TASKS = ("flipflop", "mante", "romo")
SIZES, QUICK_SIZES = (64, 256, 1024), (256,)
BATCHES, QUICK_BATCHES = (1, 8, 128, 512), (8, 128)
BATCH, HIDDEN_SIZE, TRIALS, RECORDS = 32, 256, 512, 200
PRODUCTS = ((3200, 256, 256), (1024, 1024, 1024))
WIDTH = 140
TURN_EPOCHS = {64: 60, 256: 15, 1024: 2}
FEWEST_EPOCHS = 5
"""Epochs of a training that is timed: its buffers are used for the first time once."""


@dataclass(frozen=True)
class Setting:
    """One network that learns."""

    task: str
    hidden_size: int
    batch: int

    def __str__(self) -> str:
        return f"{self.task} N = {self.hidden_size} batch {self.batch}"

    @property
    def multiplications(self) -> float:
        """Operations of the products of an epoch."""
        return 6.0 * rs.tasks.make(self.task).steps * self.batch * self.hidden_size**2

    def network(self) -> rs.RateRNN:
        """Return the untrained network, always the same."""
        return rs.RateRNN.initialize(rs.tasks.make(self.task), hidden_size=self.hidden_size, gain=0.9, rng=0)

    def trials(self) -> rs.Trials:
        """Return a batch, always the same."""
        return rs.tasks.make(self.task).sample(self.batch, rng=0)


@dataclass(frozen=True)
class Row:
    """A line of the table, in milliseconds and megabytes; None where there is nothing to say."""

    what: str
    task: str
    hidden_size: int
    batch: int | None
    floor_ms: float | None
    ours_ms: float
    plain_ms: float | None
    plain_over_ours: float | None
    ours_mb: float | None = None
    plain_mb: float | None = None

    @property
    def share(self) -> float | None:
        """Floor / ours."""
        return None if self.floor_ms is None else self.floor_ms / self.ours_ms


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes, batches = (QUICK_SIZES, QUICK_BATCHES) if options.quick else (SIZES, BATCHES)
    settings = [Setting(task, N, BATCH) for N in sizes for task in TASKS]
    settings += [Setting("flipflop", HIDDEN_SIZE, batch) for batch in batches]
    agreement = max(disagreement(rs.tasks.FlipFlop(), N) for N in sizes)
    subjects = {**product_subjects(), **epoch_subjects(settings), **analysis_subjects()}
    rounds, seconds, turn = (3, 45, 0.04) if options.quick else (9, 270, 0.1)
    measured = measure(subjects, rounds, seconds, turn)
    rate = best_rate(measured)
    memory = {
        kind: [
            peak_megabytes(
                partial(a_few_epochs, kind, Setting(setting.task, 32, 1)), partial(a_few_epochs, kind, setting)
            )
            for setting in settings
        ]
        for kind in ("ours", "plain")
    }
    rows = epoch_rows(settings, measured, rate, memory) + analysis_rows(measured, rate)
    rows += [network_row(task, measured, rate) for task in TASKS]
    result = {
        "processor": processor_name(),
        "cores": available_cores(),
        "torch": str(torch.__version__),
        "gflops_of_one_core": rate,
        "largest_relative_difference_to_plain": agreement,
        "rows": [asdict(row) | {"floor_over_ours": row.share} for row in rows],
        "gain_paper": whole_experiment(rows),
        "relative_to_one_thread": thread_ratios(1 if options.quick else 3),
        "disturbed": [name for name, measurement in measured.items() if measurement.disturbed],
    }
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(rows, result)


def product_subjects() -> dict[str, Subject]:
    """Products x W^T by everything that can compute them."""
    subjects: dict[str, Subject] = {}
    for shape in PRODUCTS:
        rows, inner, columns = shape
        x, W, out = torch.randn(rows, inner), torch.randn(columns, inner), torch.empty(rows, columns)
        subjects[f"product {shape} torch.mm"] = Timed(partial(torch.mm, x, W.t(), out=out))
        if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            packed = torch.ops.mkldnn._reorder_linear_weight(W, rows)
            multiply = torch.ops.mkldnn._linear_pointwise.default
            subjects[f"product {shape} oneDNN"] = Timed(partial(multiply, x, packed, None, "none", [], ""))
        if build.supports(columns):
            kernel, addend = build.AffineKernel(W), torch.zeros(rows, columns)
            subjects[f"product {shape} ours"] = Timed(partial(kernel, x, addend, out=out))
    return subjects


def best_rate(measured: dict[str, Measurement]) -> float:
    """Return the best rate of any product, in GFLOP/s."""
    return max(
        2e-6 * float(np.prod(shape)) / measurement.median
        for shape in PRODUCTS
        for name, measurement in measured.items()
        if name.startswith(f"product {shape}")
    )


def epoch_subjects(settings: Iterable[Setting]) -> dict[str, Subject]:
    """Epochs of ours and of the plain loop."""
    subjects: dict[str, Subject] = {}
    for setting in settings:
        epochs = max(FEWEST_EPOCHS, TURN_EPOCHS[setting.hidden_size] * BATCH // max(setting.batch, 16))
        subjects[f"ours {setting}"] = Timed(our_epochs(setting, epochs), parts=epochs)
        subjects[f"plain {setting}"] = Timed(epoch_of(PlainRNN(setting.network()), setting.trials()))
    return subjects


def our_epochs(setting: Setting, epochs: int) -> Callable[[], object]:
    """Return a function that trains for so many epochs."""
    task, rng = rs.tasks.make(setting.task), np.random.default_rng(0)
    return partial(
        rs.train, setting.network(), task, epochs=epochs, rng=rng, batch_size=setting.batch, recorded_epochs=0
    )


def analysis_subjects() -> dict[str, Subject]:
    """All measurements on a network, and those that take long by themselves."""
    subjects: dict[str, Subject] = {}
    for name in TASKS:
        task = rs.tasks.make(name)
        before, after, history = learned(name, HIDDEN_SIZE)
        trials = task.sample(TRIALS, rng=1)
        subjects[f"measure {name}"] = Timed(
            partial(measure_network, TrainedNetwork(before, after, task, history), MEASURED)
        )
        curve = partial(rs.truncation_curve, before, after, trials, ranks=RANKS)
        subjects[f"truncation {name}"] = Timed(curve)
        # One network of the 26: the plain loop has no other way than one after the other.
        subjects[f"plain truncation {name}"] = Timed(partial(loss_of, PlainRNN(after), trials))
    for N in (HIDDEN_SIZE, 1024):
        before, after, _ = learned("flipflop", N)
        change = (after.recurrent_weights - before.recurrent_weights).detach()
        subjects[f"singular values {N}"] = Timed(partial(leading_singular_values, change, 40))
        subjects[f"plain singular values {N}"] = Timed(partial(torch.linalg.svdvals, change))
    return subjects


def learned(task: str, hidden_size: int) -> tuple[rs.RateRNN, rs.RateRNN, rs.History]:
    """Return a network before and after a few epochs, and their record."""
    network = Setting(task, hidden_size, BATCH).network()
    before = network.snapshot()
    return before, network, rs.train(network, rs.tasks.make(task), epochs=8, rng=0, recorded_epochs=2)


@torch.no_grad()
def loss_of(model: PlainRNN, trials: rs.Trials) -> float:
    """Return the loss of the plain loop."""
    return float(rs.squared_loss(model(trials.inputs), trials.targets, trials.mask))


def a_few_epochs(kind: str, setting: Setting) -> None:
    """Train a little, for a measurement of memory."""
    torch.set_num_threads(1)
    if kind == "ours":
        our_epochs(setting, 3)()
    else:
        epoch = epoch_of(PlainRNN(setting.network()), setting.trials())
        for _ in range(3):
            epoch()


def epoch_rows(
    settings: list[Setting], measured: dict[str, Measurement], rate: float, memory: dict[str, list[float | None]]
) -> list[Row]:
    """Return a row for every network that learned."""
    rows = []
    for setting, ours_mb, plain_mb in zip(settings, memory["ours"], memory["plain"], strict=True):
        ours, plain = measured[f"ours {setting}"], measured[f"plain {setting}"]
        floor = 1e-6 * setting.multiplications / rate
        ratio = quotient(plain.samples, ours.samples)
        where = (setting.task, setting.hidden_size, setting.batch)
        rows.append(Row("epoch", *where, floor, ours.median, plain.median, ratio, ours_mb, plain_mb))
    return rows


def analysis_rows(measured: dict[str, Measurement], rate: float) -> list[Row]:
    """Return the rows of truncation, singular values, and all measurements on a network."""
    rows = []
    for task in TASKS:
        ours, one = measured[f"truncation {task}"], measured[f"plain truncation {task}"]
        plain = [CURVE_NETWORKS * ms for ms in one.samples]
        floor = 1e-6 * truncation_operations(task) / rate
        ratio = quotient(plain, ours.samples)
        rows.append(Row("truncation", task, HIDDEN_SIZE, TRIALS, floor, ours.median, float(np.median(plain)), ratio))
    for N in (HIDDEN_SIZE, 1024):
        ours, plain_svd = measured[f"singular values {N}"], measured[f"plain singular values {N}"]
        ratio = quotient(plain_svd.samples, ours.samples)
        rows.append(Row("singular values", "flipflop", N, None, None, ours.median, plain_svd.median, ratio))
    for task in TASKS:
        ours = measured[f"measure {task}"]
        rows.append(Row("measurement", task, HIDDEN_SIZE, TRIALS, None, ours.median, None, None))
    return rows


def truncation_operations(task: str) -> float:
    """Return the operations of the products of a truncation curve."""
    return 2.0 * CURVE_NETWORKS * TRIALS * rs.tasks.make(task).steps * HIDDEN_SIZE**2


def network_row(task: str, measured: dict[str, Measurement], rate: float) -> Row:
    """Return the row of a network of `gain --preset paper`."""
    setting = Setting(task, HIDDEN_SIZE, BATCH)
    epochs = next(job.training.epochs for job in EXPERIMENTS["gain"].jobs("paper") if job.task["name"] == task)
    epoch, plain = measured[f"ours {setting}"], measured[f"plain {setting}"]
    record, plain_record = measured[f"singular values {HIDDEN_SIZE}"], measured[f"plain singular values {HIDDEN_SIZE}"]
    rest = measured[f"measure {task}"].median - measured[f"truncation {task}"].median
    ours_ms = epochs * epoch.median + RECORDS * record.median + measured[f"measure {task}"].median
    plain_curve = CURVE_NETWORKS * measured[f"plain truncation {task}"].median
    plain_ms = epochs * plain.median + RECORDS * plain_record.median + plain_curve + rest
    floor = 1e-6 * (epochs * setting.multiplications + truncation_operations(task)) / rate
    return Row("network", task, HIDDEN_SIZE, BATCH, floor, ours_ms, plain_ms, plain_ms / ours_ms)


def whole_experiment(rows: list[Row]) -> dict[str, float]:
    """Return what all networks of `gain --preset paper` cost on one core, in minutes, and the share of products."""
    of_task = {row.task: row for row in rows if row.what == "network"}
    networks = [job.task["name"] for job in EXPERIMENTS["gain"].jobs("paper")]
    ours, floor, plain = (
        sum(getattr(of_task[task], f"{kind}_ms") for task in networks) / 60000 for kind in ("ours", "floor", "plain")
    )
    return {
        "networks": len(networks),
        "floor_minutes": floor,
        "ours_minutes": ours,
        "plain_minutes": plain,
        "floor_over_ours": floor / ours,
        "plain_over_ours": plain / ours,
    }


def show(rows: list[Row], result: dict[str, object]) -> None:
    """Print the table."""
    console = Console()
    if console.width < WIDTH:
        console = Console(width=WIDTH)
    table = Table(
        title=f"{result['processor']}, one core of {result['cores']}: {result['gflops_of_one_core']:.0f} GFLOP/s in "
        f"products; torch {result['torch']}; float32",
        title_justify="left",
    )
    for number, name in enumerate(
        ("what", "task", "N", "batch", "floor", "ours", "plain", "floor / ours", "plain / ours", "MB ours", "MB plain")
    ):
        table.add_column(name, justify="left" if number < 2 else "right", no_wrap=True)
    previous = rows[0].what
    for row in rows:
        if row.what != previous:
            table.add_section()
        previous = row.what
        table.add_row(
            row.what,
            row.task,
            str(row.hidden_size),
            "" if row.batch is None else str(row.batch),
            *("" if ms is None else duration(ms) for ms in (row.floor_ms, row.ours_ms, row.plain_ms)),
            "" if row.share is None else f"{100 * row.share:.0f} %",
            "" if row.plain_over_ours is None else f"{row.plain_over_ours:.1f}",
            *("" if mb is None else f"{mb:.0f}" for mb in (row.ours_mb, row.plain_mb)),
        )
    console.print(table)
    whole = result["gain_paper"]
    assert isinstance(whole, dict)
    console.print(
        f"gain --preset paper, {whole['networks']} networks on one core: {whole['ours_minutes']:.1f} min, of which "
        f"products {100 * whole['floor_over_ours']:.0f} %; the plain loop {whole['plain_minutes']:.0f} min.",
        highlight=False,
    )
    difference = result["largest_relative_difference_to_plain"]
    console.print(f"Losses and gradients of the plain loop agree with ours to {difference:.0e}.", highlight=False)
    ratios = result["relative_to_one_thread"]
    assert isinstance(ratios, dict)
    for situation, ratio in ratios.items():
        console.print(f"100 epochs, {situation}: {ratio:.2f} times {BASELINE}.", highlight=False)
    disturbed = result["disturbed"]
    assert isinstance(disturbed, list)
    console.print(
        f"Disturbed: something else took a tenth or more of the core from: {', '.join(disturbed)}."
        if disturbed
        else "Undisturbed: every subject had a whole core.",
        highlight=False,
    )


if __name__ == "__main__":
    main()
