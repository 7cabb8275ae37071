"""Networks trained beside the theory, in a process of their own, for as long as somebody waits for them.

For each there is first what `SingleNetwork` foretells from its initial weights, which takes a moment, and then its real
training. A slider that moved on has no use for either: the process hears of it at the next epoch.
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
from typing import Any

import numpy as np

from rankscope.errors import InputError
from rankscope.experiments.cell import Cell, initial_network
from rankscope.experiments.prediction import cells_to_compare, simulate_one
from rankscope.explore.curves import POINTS, listed, quantities, rounded
from rankscope.sweep.processes import become_worker
from rankscope.theory import InfiniteWidth, SingleNetwork

Values = dict[str, Any]

NETWORKS = 4
SEED = 0
# Multiplications of a training that takes some seconds; what takes longer is left to `rankscope theory --compare`.
MOST_WORK = 1.5e11
# As precise as points on a screen.
ACCURACY = 1e-3
KEPT = 400
# Requests that may wait at the same time and still be told apart by whether they are cancelled.
SLOTS = 256


class NobodyWaitsError(Exception):
    """Whoever asked has gone."""


class Networks:
    """Trains networks for whoever asks, one after the other, and remembers them.

    The process that does it starts with `start`, or with the first network.
    """

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._cancelled = self._context.Array(c_uint64, SLOTS)
        self._executor: ProcessPoolExecutor | None = None
        self._requests = 0
        self._found: OrderedDict[tuple[Any, ...], Values] = OrderedDict()

    def start(self) -> None:
        """Start the process, if there is none: it takes a few seconds to import what it needs."""
        if self._executor is None:
            self._pool().submit(os.getpid)

    def close(self) -> None:
        """End the process at once."""
        executor, self._executor = self._executor, None
        if executor is not None:
            processes = list((executor._processes or {}).values())
            executor.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()

    async def trained(self, gain: float, target: float, units: int) -> AsyncGenerator[Values]:
        """Yield what becomes of `NETWORKS` networks, as it becomes known; closing the iterator stops the work.

        Yields
        ------
        dict
            `kind` is "foretold" or "trained", with `sample`, `x` and the quantities of `curves`; "left out", with
            `sample` (None for all) and `reason`; or "done", the last.
        """
        self._requests += 1
        request = self._requests
        futures: list[Future[Values]] = []
        try:
            for work in (foretold, trained):
                for sample in range(NETWORKS):
                    key = (work.__name__, gain, target, units, sample)
                    if key not in self._found:
                        future = self._pool().submit(_unless_cancelled, work, request, gain, target, units, sample)
                        futures.append(future)
                        self._remember(key, await asyncio.wrap_future(future))
                    yield self._found[key]
            yield {"kind": "done"}
        except BrokenExecutor:
            self.close()
            yield {
                "kind": "left out",
                "sample": None,
                "reason": "the process that trains has died; move on to try again",
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

    def _remember(self, key: tuple[Any, ...], values: Values) -> None:
        self._found[key] = values
        while len(self._found) > KEPT:
            self._found.popitem(last=False)


def foretold(gain: float, target: float, units: int, sample: int, report: Callable[..., None]) -> Values:
    """Return what is foretold of one network from its initial weights."""
    try:
        cell, until = _cell(gain, target, units, sample)
        network = SingleNetwork.of(initial_network(cell), target, ACCURACY)
        times = np.linspace(0, until, POINTS)
        return _values("foretold", sample, gain, times, quantities(network.solve(times), target))
    except InputError as error:
        return _left_out(sample, str(error))


def trained(gain: float, target: float, units: int, sample: int, report: Callable[..., None]) -> Values:
    """Return one network's real training."""
    try:
        cell, _ = _cell(gain, target, units, sample)
    except InputError as error:
        return _left_out(sample, str(error))
    if cell.work > MOST_WORK:
        return _left_out(sample, f"its {cell.epochs:,} steps of training would take too long here")
    simulated = simulate_one(cell, report)
    at_the_end = np.full(simulated.sizes["tau"], np.nan)
    at_the_end[-1] = simulated["shuffled_loss"].item()
    simulated = simulated.assign(shuffled_loss=("tau", at_the_end))
    found = quantities(simulated, target)
    convergence = rounded(simulated["convergence_time"].item() / (1 - gain**2) ** 2)
    return _values("trained", sample, gain, simulated["tau"].values, found | {"convergence": convergence})


def _cell(gain: float, target: float, units: int, sample: int) -> tuple[Cell, float]:
    until = 2 * InfiniteWidth(gain, target, ACCURACY).convergence_time()
    return cells_to_compare(gain, target, until, sample + 1, units, SEED)[sample], until


def _values(kind: str, sample: int, gain: float, times: Any, found: Values) -> Values:
    return {"kind": kind, "sample": sample, "x": listed(times / (1 - gain**2) ** 2), **found}


def _left_out(sample: int, reason: str) -> Values:
    return {"kind": "left out", "sample": sample, "reason": reason}


_cancelled: SynchronizedArray[Any] | None = None


def _begin(cancelled: SynchronizedArray[Any]) -> None:
    global _cancelled
    _cancelled = cancelled
    become_worker()
    if hasattr(os, "nice"):
        os.nice(10)  # the curves come first


def _unless_cancelled(work: Callable[..., Values], request: int, *arguments: Any) -> Values:
    def report(done: int, total: int, loss: float) -> None:
        if _cancelled is not None and _cancelled[request % SLOTS] >= request:
            raise NobodyWaitsError

    report(0, 1, 0.0)
    return work(*arguments, report)
