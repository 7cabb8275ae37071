"""Train networks for comparison with the theory, in a separate process.

For each network the prediction of `SingleNetwork` from its initial weights comes first, then the training itself. A
request that was cancelled, because a slider moved, stops at the next epoch.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from ctypes import c_uint64
from multiprocessing.sharedctypes import SynchronizedArray
from typing import Any, cast

import numpy as np

from rankscope.errors import InputError
from rankscope.experiments.prediction import jobs_to_compare, simulate_one
from rankscope.explore.curves import POINTS, listed, quantities, rounded
from rankscope.networks.rate import RateRNN
from rankscope.sweep import Job
from rankscope.sweep.cost import multiplications
from rankscope.sweep.processes import become_worker
from rankscope.theory import InfiniteWidth, SingleNetwork

Values = dict[str, Any]

NETWORKS = 4
SEED = 0
MAX_WORK = 1.5e11  # multiplications, some seconds of training; longer ones need `rankscope theory --compare`
ACCURACY = 1e-3
CACHED = 400
SLOTS = 256  # concurrent requests with separate cancellation flags


class CancelledRequestError(Exception):
    """The request was cancelled."""


class Networks:
    """Trains networks one after the other, and caches the results.

    The process starts with `start` or the first request.
    """

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._cancelled = self._context.Array(c_uint64, SLOTS)
        self._executor: ProcessPoolExecutor | None = None
        self._requests = 0
        self._cache: OrderedDict[tuple[Any, ...], Values] = OrderedDict()

    def start(self) -> None:
        """Start the process if necessary; its imports take a few seconds."""
        if self._executor is None:
            self._pool().submit(os.getpid)

    def close(self) -> None:
        """Kill the process."""
        executor, self._executor = self._executor, None
        if executor is not None:
            processes = list((executor._processes or {}).values())
            executor.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()

    async def trained(self, gain: float, target: float, units: int) -> AsyncGenerator[Values]:
        """Yield predictions and trainings of `NETWORKS` networks as they finish; closing the iterator stops the work.

        Yields
        ------
        dict
            `kind` is "predicted" or "trained", with `sample`, `x` and the quantities of `curves`; "skipped", with
            `sample` (None for all) and `reason`; or "done", the last.
        """
        self._requests += 1
        request = self._requests
        futures: list[Future[Values]] = []
        try:
            for work in (predicted, trained):
                for sample in range(NETWORKS):
                    key = (work.__name__, gain, target, units, sample)
                    if key not in self._cache:
                        future = self._pool().submit(_unless_cancelled, work, request, gain, target, units, sample)
                        futures.append(future)
                        self._store(key, await asyncio.wrap_future(future))
                    yield self._cache[key]
            yield {"kind": "done"}
        except BrokenExecutor:
            self.close()
            yield {
                "kind": "skipped",
                "sample": None,
                "reason": "the training process has died; move a slider to try again",
            }
        finally:
            with self._cancelled.get_lock():
                self._cancelled[request % SLOTS] = request
            for future in futures:
                future.cancel()

    def _pool(self) -> ProcessPoolExecutor:
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                1, mp_context=self._context, initializer=_begin, initargs=(self._cancelled,)
            )
        return self._executor

    def _store(self, key: tuple[Any, ...], values: Values) -> None:
        self._cache[key] = values
        while len(self._cache) > CACHED:
            self._cache.popitem(last=False)


def predicted(gain: float, target: float, units: int, sample: int, report: Callable[..., None]) -> Values:
    """Return the prediction for one network from its initial weights."""
    try:
        job, until = _job(gain, target, units, sample)
        network = SingleNetwork.of(cast(RateRNN, job.initial_network()), target, ACCURACY)
        times = np.linspace(0, until, POINTS)
        return _values("predicted", sample, gain, times, quantities(network.solve(times), target))
    except InputError as error:
        return _skipped(sample, str(error))


def trained(gain: float, target: float, units: int, sample: int, report: Callable[..., None]) -> Values:
    """Return the training of one network."""
    try:
        job, _ = _job(gain, target, units, sample)
    except InputError as error:
        return _skipped(sample, str(error))
    if multiplications(job) > MAX_WORK:
        return _skipped(sample, f"its {job.training.epochs:,} training steps would take too long")
    simulated = simulate_one(job, report)
    at_the_end = np.full(simulated.sizes["tau"], np.nan)
    at_the_end[-1] = simulated["shuffled_loss"].item()
    simulated = simulated.assign(shuffled_loss=("tau", at_the_end))
    found = quantities(simulated, target)
    convergence = rounded(simulated["convergence_time"].item() / (1 - gain**2) ** 2)
    return _values("trained", sample, gain, simulated["tau"].values, found | {"convergence": convergence})


def _job(gain: float, target: float, units: int, sample: int) -> tuple[Job, float]:
    until = 2 * InfiniteWidth(gain, target, ACCURACY).convergence_time()
    return jobs_to_compare(gain, target, until, sample + 1, units, SEED)[sample], until


def _values(kind: str, sample: int, gain: float, times: Any, found: Values) -> Values:
    return {"kind": kind, "sample": sample, "x": listed(times / (1 - gain**2) ** 2), **found}


def _skipped(sample: int, reason: str) -> Values:
    return {"kind": "skipped", "sample": sample, "reason": reason}


_cancelled: SynchronizedArray[Any] | None = None


def _begin(cancelled: SynchronizedArray[Any]) -> None:
    global _cancelled
    _cancelled = cancelled
    become_worker()
    if hasattr(os, "nice"):
        os.nice(10)  # the curves have priority


def _unless_cancelled(work: Callable[..., Values], request: int, *arguments: Any) -> Values:
    def report(done: int, total: int, loss: float) -> None:
        if _cancelled is not None and _cancelled[request % SLOTS] >= request:
            raise CancelledRequestError

    report(0, 1, 0.0)
    return work(*arguments, report)
