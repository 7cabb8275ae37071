"""Estimates of the time and the disk space that jobs take.

The time follows from the multiplications of a job and a short measurement on this machine; of a network or task of the
user's own, from some steps of its training.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Collection, Sequence
from typing import Any

from rankscope.linalg.singular_values import EXACT_UP_TO
from rankscope.linalg.threads import threads_for
from rankscope.lowrank.truncation import RANKS
from rankscope.measurements.base import EVALUATION_TRIALS
from rankscope.networks.gates import GATES
from rankscope.networks.protocol import hidden_size_of
from rankscope.networks.rate import RateRNN
from rankscope.networks.use import collected_warnings
from rankscope.sweep.job import Job
from rankscope.sweep.trial_step import seconds_of_an_epoch, user_errors
from rankscope.tasks import FlipFlop, steps_per_epoch
from rankscope.tasks.trials import as_trials
from rankscope.training import evaluate, find_loss, train
from rankscope.training.recorder import record_schedule
from rankscope.user_code import is_reference

USUAL_SIZE = 256
HEADERS = 16_000
"""Bytes of labels, scalars and short arrays."""
TIMING = 10.0  # seconds
EPOCHS, REPEATS = 5, 3  # of the measurement; the fastest counts, as other processes only slow one down
WORD_VECTOR = 50
VALIDATION = 0.1  # of finite data
DEFAULT_MEASURED = ("truncation", "spectra")
RESAMPLING = {"trial_accuracy": len(RANKS) * EVALUATION_TRIALS, "populations": 60 * EVALUATION_TRIALS // 2}
"""Measurement -> trials that it runs."""
ONE_BATCH = 10**9
"""Batch size at which an epoch over finite data is one trial long."""


def seconds_for(jobs: Sequence[Job], workers: int) -> float:
    """Estimate how many seconds jobs take on this machine.

    Parameters
    ----------
    workers
        Number of networks trained at the same time.
    """
    per_step, per_product = _measured_costs()
    seconds = _seconds_of_own([job for job in jobs if _is_own(job)], per_product)
    for job in jobs:
        if _is_own(job):
            continue
        sequential = _layers(job) * _epochs(job) * steps_per_epoch(job.task, job.training.batch_size)
        seconds.append(per_step * sequential + per_product * multiplications(job))
    return max([sum(seconds) / workers, *seconds])


def _is_own(job: Job) -> bool:
    return is_reference(job.network["kind"]) or is_reference(job.description["task"]["name"])


def _seconds_of_own(jobs: Sequence[Job], per_product: float) -> list[float]:
    """Return the seconds of jobs with a network or task of the user's own.

    One job of each kind is timed for a few steps, as long as that takes less than `TIMING` seconds together; others
    count as the mean of these.
    """
    kinds: dict[str, list[Job]] = {}
    for job in jobs:
        described = {name: value for name, value in job.description.items() if name not in ("seed", "labels")}
        kinds.setdefault(json.dumps(described, sort_keys=True), []).append(job)
    known: list[float] = []
    started, unknown = time.perf_counter(), 0
    for alike in kinds.values():
        if known and time.perf_counter() - started > TIMING:
            unknown += len(alike)
        else:
            known += [_seconds_of_one(alike[0], per_product)] * len(alike)
    return known + [sum(known) / len(known)] * unknown if known else []


def _seconds_of_one(job: Job, per_product: float) -> float:
    with user_errors(f"task {job.task_name} with network {job.network['kind']}"), collected_warnings():
        task = job.make_task()
        network = job.initial_network(task)
        names = job.wanted_measurements(network, task)
        N, rng = hidden_size_of(network), job.random_streams()[1]
        with threads_for(N):
            epoch = seconds_of_an_epoch(network, task, job.training, rng)
            evaluations = len(RANKS) * len({*names} & {"truncation", "score"}) + 2
            started = time.perf_counter()
            evaluate(network, as_trials(task.sample(EVALUATION_TRIALS, rng)), rng, find_loss(job.training.loss, task))
            evaluation = time.perf_counter() - started
    decompositions = per_product * N**2 * _decompositions(job, N, {*names})
    return epoch * _epochs(job) + evaluation * evaluations + decompositions


def multiplications(job: Job) -> float:
    """Estimate the multiplications of a job: training, records of the weights, measurements.

    Decompositions count with their measured times, in units of multiplications of a training.
    """
    N, training, epochs = _size(job), job.training, _epochs(job)
    measured = set(DEFAULT_MEASURED if job.measurements is None else job.measurements)
    steps = steps_per_epoch(job.task, training.batch_size)
    # With a single row, a product waits for the weights to come from memory, and costs as much as with two.
    rows: float = 3 * epochs * steps * max(training.batch_size, 2)
    one_trial = training.batch_size == 1 and not job.network.get("noise_std")
    trials = 1 if one_trial else EVALUATION_TRIALS
    rows += steps * trials * len(RANKS) * len(measured & {"truncation", "score"})
    if measured & RESAMPLING.keys():
        one_trial_each = steps_per_epoch(job.task, ONE_BATCH)
        rows += one_trial_each * sum(trials for name, trials in RESAMPLING.items() if name in measured)
    if "accuracy_truncation" in measured:
        rows += 2 * (32 + N / 4) * VALIDATION * steps * training.batch_size
    return float(_weights(job) * rows + N**2 * _decompositions(job, N, measured))


def _decompositions(job: Job, N: int, measured: Collection[str]) -> float:
    """Return the multiplications of all decompositions, over N^2."""
    training = job.training
    records = len(record_schedule(_epochs(job), training.recorded_epochs, N))
    record = (10 * N if N <= EXACT_UP_TO else 400) + 100 * N * bool(training.eigenvalues)
    return float(records * record + 350 * N * ("spectra" in measured) + 100 * N * ("outlier" in measured))


def bytes_on_disk(jobs: Sequence[Job], keep_weights: bool = True) -> int:
    """Estimate how many bytes the results of jobs take.

    Parameters
    ----------
    keep_weights
        As in `run`.
    """
    return sum(_bytes(job, keep_weights) for job in jobs)


def _bytes(job: Job, keep_weights: bool) -> int:
    N, training, epochs = _size(job), job.training, _epochs(job)
    records = len(record_schedule(epochs, training.recorded_epochs, N))
    record = 8 * min(training.singular_values, N) + 16 * training.eigenvalues + 4 * N**2 * training.record_weights
    spectra = 3 * N * (8 + 16)
    # Before and after, and what Adam keeps of each weight.
    networks = (2 if training.optimizer == "sgd" else 4) * 4 * int(_weights(job)) * keep_weights
    return HEADERS + 24 * epochs + records * record + spectra + networks


def _weights(job: Job) -> float:
    """Return the number of weights that multiply the activity in a step."""
    N, layers = _size(job), _layers(job)
    if job.network["kind"] not in GATES:
        return N**2
    inputs = WORD_VECTOR if isinstance(job.task, dict) and job.task["name"] == "sentiment" else 0
    return len(GATES[job.network["kind"]]) * N * (inputs + N + (layers - 1) * 2 * N)


def _layers(job: Job) -> int:
    return int(job.network.get("num_layers", 1))


def _size(job: Job) -> int:
    described: dict[str, Any] = job.description["network"]
    return int(described.get("hidden_size", USUAL_SIZE))


def _epochs(job: Job) -> int:
    return job.training.epochs or 1


def _seconds_of_epochs(network: RateRNN) -> float:
    started = time.perf_counter()
    train(network, FlipFlop(), epochs=EPOCHS, rng=0, recorded_epochs=0)
    return time.perf_counter() - started


@functools.cache
def _measured_costs() -> tuple[float, float]:
    """Return seconds for a time step, and for a multiplication, from epochs of a small and of a larger network."""
    seconds = {}
    for N in (32, 256):
        network = RateRNN.initialize(FlipFlop(), hidden_size=N, rng=0)
        with threads_for(N):
            train(network, FlipFlop(), epochs=2, rng=0, recorded_epochs=0)
            seconds[N] = min(_seconds_of_epochs(network) for _ in range(REPEATS)) / EPOCHS
    steps = FlipFlop().steps
    products = {N: 3.0 * steps * 32 * N**2 for N in seconds}
    each = (seconds[256] - seconds[32]) / (products[256] - products[32])
    fixed = max(seconds[32] - each * products[32], 0.0) / steps
    return fixed, max(each, 1e-13)
