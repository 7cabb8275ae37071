"""How fast a rate network learns here, beside what the processor could do and what a plain PyTorch loop does.

    python benchmarks/recurrence.py            tables; below three minutes
    python benchmarks/recurrence.py --quick    fewer rounds; below a minute
    python benchmarks/recurrence.py --json     the same numbers as one JSON object

How to read it. An *epoch* is one gradient step on a batch of 32 trials: forward, backward, Adam. Almost all of its
arithmetic is matrix products, 3 * 2 * T * B * N^2 operations (T steps, B trials, N units; three for the forward
product, the backward product and the weight gradient). Divided by the rate at which one core multiplies matrices,
that is the *floor*, the time below which no epoch can get. The rate depends on the library, so there are two floors:
one for `torch.mm`, which every PyTorch program gets, and one for the fastest product there is: of PyTorch's other
library, oneDNN, or of our own kernels. The *share* is floor / epoch: 100 % would mean that nothing but products takes
time. It can exceed 100 % for the first floor, where ours multiplies faster than `torch.mm`.

*Plain* is the loop over time as one writes it in PyTorch (`loops.py`; *thrifty* is the same with fewer operations);
before anything is timed, its loss and gradients are compared with ours. Ratios above 1 mean that ours is faster.
Cells are the median over the rounds, with the quartiles in brackets; ratios are medians of the ratios within a
round (see `timing.py`). Everything runs on one thread unless it says otherwise. A last line names what did not get the
cores it asked for, because something else was running: believe those times only when it names none.
"""

from __future__ import annotations

import argparse
import json
import os

# Before numpy and torch are loaded, here and in the processes begun from here; all cores are asked of torch explicitly.
os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")})

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

import rankscope as rs
from loops import BATCH, PlainRNN, SideBySide, ThriftyRNN, disagreement, epoch_of, forward_of, fresh
from rankscope.linalg import leading_singular_values
from rankscope.networks import native
from rankscope.networks.products import affine
from report import print_tables
from timing import Measurement, Subject, Timed, available_cores, measure, processor_name, quotient

CORES = available_cores()
SETTINGS = [("flipflop", 256), ("mante", 256), ("romo", 256), ("flipflop", 64), ("flipflop", 1024)]
PLAIN_SIZES = [64, 256, 1024]
PRODUCTS = [(3200, 256, 256), (1024, 1024, 1024)]
KINDS = ("torch.mm", "oneDNN", "ours")
LIBRARIES = ("torch.mm", "fastest")
HIDDEN_SIZE = 256
EPOCHS_TRAINED = 15
RANKS, TRIALS = 26, 512


@dataclass(frozen=True)
class Effort:
    """How long to go on."""

    rounds: int
    seconds: float
    turn_seconds: float


THOROUGH = Effort(rounds=11, seconds=150, turn_seconds=0.1)
QUICK = Effort(rounds=3, seconds=36, turn_seconds=0.04)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="How fast a rate network learns on this machine.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    agreement = {N: disagreement(rs.tasks.FlipFlop(), N) for N in PLAIN_SIZES}
    effort = QUICK if arguments.quick else THOROUGH
    with SideBySide(rs.tasks.FlipFlop(), HIDDEN_SIZE) as side_by_side:
        subjects = {
            **product_subjects(),
            **epoch_subjects(),
            **plain_subjects(),
            "side by side": side_by_side,
            **training_subjects(),
            **analysis_subjects(),
        }
        measured = measure(subjects, effort.rounds, effort.seconds, effort.turn_seconds)
    results = summary(measured, agreement)
    if arguments.json:
        print(json.dumps(results, default=Measurement.as_json, indent=2))
    else:
        print_tables(results)


def product_subjects() -> dict[str, Subject]:
    """Products x W^T of the shapes that occur, by everything that can compute them."""
    subjects: dict[str, Subject] = {}
    for shape in PRODUCTS:
        rows, inner, columns = shape
        x, W, out = torch.randn(rows, inner), torch.randn(columns, inner), torch.empty(rows, columns)
        subjects[f"product {shape} torch.mm"] = Timed(partial(torch.mm, x, W.t(), out=out))
        if has_onednn():
            packed = torch.ops.mkldnn._reorder_linear_weight(W, rows)
            multiply = torch.ops.mkldnn._linear_pointwise.default
            subjects[f"product {shape} oneDNN"] = Timed(partial(multiply, x, packed, None, "none", [], ""))
        if native.supports(columns):
            addend = torch.zeros(rows, columns)
            subjects[f"product {shape} ours"] = Timed(partial(native.AffineKernel(W), x, addend, out=out))
    return subjects


def chosen_product() -> str:
    """Return by what means our engine multiplies at N = 256."""
    chosen = affine(torch.zeros(HIDDEN_SIZE, HIDDEN_SIZE), rows=BATCH)
    if isinstance(chosen, native.AffineKernel):
        return "our compiled kernel"
    return "oneDNN" if "onednn" in getattr(chosen, "__name__", "") else "torch.addmm (MKL on x86)"


def has_onednn() -> bool:
    """Whether this PyTorch lets one call oneDNN's products."""
    operators = ("_linear_pointwise", "_reorder_linear_weight")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in operators)


def epoch_subjects() -> dict[str, Subject]:
    """Our epoch and our forward pass in every setting."""
    subjects: dict[str, Subject] = {}
    for name, N in SETTINGS:
        network, trials = fresh(rs.tasks.make(name), N)
        subjects[f"forward {name} {N}"] = Timed(forward_of(network, trials))
        subjects[f"epoch {name} {N}"] = Timed(epoch_of(network, trials))
    return subjects


def plain_subjects() -> dict[str, Subject]:
    """Epochs of the plain loops, on one core and on all."""
    subjects: dict[str, Subject] = {}
    for N in PLAIN_SIZES:
        network, trials = fresh(rs.tasks.FlipFlop(), N)
        for kind, model in (("plain", PlainRNN(network)), ("thrifty", ThriftyRNN(network))):
            epoch = epoch_of(model, trials)
            subjects[f"{kind} {N} one"] = Timed(epoch)
            subjects[f"{kind} {N} all"] = Timed(epoch, threads=CORES)
    return subjects


def training_subjects() -> dict[str, Subject]:
    """Whole trainings, and the drawing of trials, task by task."""
    subjects: dict[str, Subject] = {}
    for name in rs.tasks.TASKS:
        task = rs.tasks.make(name)
        network, _ = fresh(task, HIDDEN_SIZE)
        rng = np.random.default_rng(0)
        subjects[f"sample {name}"] = Timed(partial(task.sample, BATCH, rng))
        subjects[f"train {name}"] = Timed(
            partial(rs.train, network, task, epochs=EPOCHS_TRAINED, rng=rng),
            parts=EPOCHS_TRAINED,
        )
    return subjects


def analysis_subjects() -> dict[str, Subject]:
    """Losses of a change cut down to each rank, and singular values of what a few epochs wrote."""
    task = rs.tasks.FlipFlop()
    trials = task.sample(TRIALS, rng=1)
    before, after = trained(HIDDEN_SIZE)
    curve = partial(rs.analysis.truncation_losses, before, after, trials, ranks=range(RANKS))
    subjects: dict[str, Subject] = {"truncation one": Timed(curve), "truncation all": Timed(curve, threads=CORES)}
    small, large = (written(N) for N in (HIDDEN_SIZE, 1024))
    subjects[f"svd {HIDDEN_SIZE} all values"] = Timed(partial(torch.linalg.svdvals, small))
    subjects["svd 1024 all values"] = Timed(partial(torch.linalg.svdvals, large))
    subjects["svd 1024 leading 40"] = Timed(partial(leading_singular_values, large, 40))
    return subjects


def trained(hidden_size: int) -> tuple[rs.RateRNN, rs.RateRNN]:
    """Return a network before and after a few epochs of flip-flop."""
    network, _ = fresh(rs.tasks.FlipFlop(), hidden_size)
    before = network.snapshot()
    rs.train(network, rs.tasks.FlipFlop(), epochs=8, rng=0, recorded_epochs=0)
    return before, network


def written(hidden_size: int) -> torch.Tensor:
    """Return the change of the recurrent weights in these few epochs."""
    before, after = trained(hidden_size)
    return after.recurrent_weights.detach() - before.recurrent_weights.detach()


def summary(measured: dict[str, Measurement], agreement: dict[int, float]) -> dict[str, Any]:
    """Return everything that is reported, as plain values and measurements."""
    rates = matrix_rates(measured)
    return {
        "machine": {
            "processor": processor_name(),
            "cores": CORES,
            "torch": torch.__version__,
            "chosen_product": chosen_product(),
        },
        "matrix_rates": rates,
        "epochs": epoch_rows(measured, {library: rates[library]["best"] for library in LIBRARIES}),
        "plain_loop": [plain_row(measured, N, agreement[N]) for N in PLAIN_SIZES],
        "side_by_side": side_by_side_row(measured),
        "training": [training_row(measured, name) for name in rs.tasks.TASKS],
        "truncation": {
            "ranks": RANKS,
            "trials": TRIALS,
            "one_thread": measured["truncation one"],
            "all_cores": measured["truncation all"],
        },
        "disturbed": [name for name, measurement in measured.items() if measurement.disturbed],
        "singular_values": {name.removeprefix("svd "): m for name, m in measured.items() if name.startswith("svd ")},
    }


def matrix_rates(measured: dict[str, Measurement]) -> dict[str, Any]:
    """Return GFLOP/s by library and shape; the fastest library is the one with the best rate."""

    def rates_of(library: str) -> dict[str, float]:
        medians = {shape: measured[f"product {shape} {library}"].median for shape in PRODUCTS}
        rates = {" x ".join(map(str, shape)): 2e-6 * np.prod(shape) / ms for shape, ms in medians.items()}
        return {**{shape: float(rate) for shape, rate in rates.items()}, "best": float(max(rates.values()))}

    libraries = {name: rates_of(name) for name in KINDS if f"product {PRODUCTS[0]} {name}" in measured}
    winner = max(libraries, key=lambda name: libraries[name]["best"])
    return {**libraries, "fastest": {"library": winner, **libraries[winner]}, "unit": "GFLOP/s"}


def epoch_rows(measured: dict[str, Measurement], rates: dict[str, float]) -> list[dict[str, Any]]:
    """Return our epochs beside their floors."""
    rows = []
    for name, N in SETTINGS:
        steps = rs.tasks.make(name).steps
        epoch = measured[f"epoch {name} {N}"]
        floors = {library: 1e-6 * 3 * 2 * steps * BATCH * N**2 / rate for library, rate in rates.items()}
        rows.append(
            {
                "task": name,
                "hidden_size": N,
                "steps": steps,
                "forward": measured[f"forward {name} {N}"],
                "epoch": epoch,
                "floor_ms": floors,
                "floor_share_percent": {library: 100 * floor / epoch.median for library, floor in floors.items()},
            }
        )
    return rows


def plain_row(measured: dict[str, Measurement], N: int, agreement: float) -> dict[str, Any]:
    """Return plain loops beside our epoch on one thread, flip-flop."""
    ours = measured[f"epoch flipflop {N}"]
    row: dict[str, Any] = {"hidden_size": N, "largest_relative_difference": agreement, "ours": ours}
    for kind in ("plain", "thrifty"):
        for cores in ("one", "all"):
            loop = measured[f"{kind} {N} {cores}"]
            row[f"{kind}_{cores}"] = loop
            row[f"{kind}_{cores}_over_ours"] = quotient(loop.samples, ours.samples)
    return row


def side_by_side_row(measured: dict[str, Measurement]) -> dict[str, Any]:
    """Return the time per network of two processes, beside one process that has the machine to itself."""
    both = measured["side by side"]
    row: dict[str, Any] = {"networks": 2, "hidden_size": HIDDEN_SIZE, "per_network": both}
    for kind in ("plain", "thrifty"):
        alone = measured[f"{kind} {HIDDEN_SIZE} all"]
        row[f"{kind}_all"] = alone
        row[f"per_network_speed_up_over_{kind}_all"] = quotient(alone.samples, both.samples)
    return row


def training_row(measured: dict[str, Measurement], name: str) -> dict[str, Any]:
    """Return a whole epoch of rs.train, and what of it goes into drawing trials and recording singular values."""
    epoch, sample, svd = (
        measured[f"train {name}"],
        measured[f"sample {name}"],
        measured[f"svd {HIDDEN_SIZE} all values"],
    )
    network, trials = fresh(rs.tasks.make(name), 8)
    history = rs.train(network, [trials] * 1000)
    records_per_epoch = len(history.recorded_epochs) / history.epochs
    recording = [records_per_epoch * ms for ms in svd.samples]
    return {
        "task": name,
        "steps": rs.tasks.make(name).steps,
        "epoch": epoch,
        "sampling": sample,
        "sampling_percent": 100 * quotient(sample.samples, epoch.samples),
        "records_per_epoch": records_per_epoch,
        "recording_percent": 100 * quotient(recording, epoch.samples),
    }


if __name__ == "__main__":
    main()
