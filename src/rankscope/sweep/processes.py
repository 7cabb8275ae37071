"""Independent pieces of work side by side: one process and one torch thread each.

A network of a few hundred units keeps one core busy and gains nothing from a second, so networks are trained in
parallel, not their matrix products. Progress comes back through a queue; the results come back in the order of
the work.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.queues import Queue
from typing import Any, TypeVar

import torch

from rankscope.arguments import integer

Item = TypeVar("Item")
Result = TypeVar("Result")
Report = Callable[[int, int, float], None]
"""report(done, total, loss): what a piece of work calls now and then."""

OnProgress = Callable[[int, int, int, float], None]
"""on_progress(index, done, total, loss): what the caller hears of piece number `index`."""

SECONDS_BETWEEN_REPORTS = 0.1
_reports: Queue[tuple[int, int, int, float]] | None = None


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_side_by_side(
    work: Callable[[Item, Report], Result],
    items: Sequence[Item],
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> list[Result]:
    """Return [work(item, report) for item in items], each computed in one of `workers` processes.

    Parameters
    ----------
    work
        A module-level function; it and its results have to be picklable.
    workers
        Number of processes; by default as many as there are cores, but no more than items.
    on_progress
        Called in this process.

    Raises
    ------
    InputError
        If `workers` is below 1.
    Exception
        Whatever `work` raises, for the first item that does.
    """
    most = available_cores() if workers is None else integer("workers", workers, minimum=1)
    context = multiprocessing.get_context("spawn")
    reports: Queue[tuple[int, int, int, float]] = context.Queue()
    executor = ProcessPoolExecutor(
        max_workers=max(1, min(most, len(items))),
        mp_context=context,
        initializer=_begin_worker,
        initargs=(reports,),
    )
    try:
        futures = [executor.submit(_work_on, work, index, item) for index, item in enumerate(items)]
        _listen(futures, reports, on_progress)
        results = [future.result() for future in futures]
    except BaseException:
        # Ctrl-C must not wait for work that nobody wants any more.
        for process in list((executor._processes or {}).values()):
            process.terminate()
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()
    return results


def _listen(futures: Sequence[Future[Any]], reports: Queue[Any], on_progress: OnProgress | None) -> None:
    """Pass reports on until all work is done or some of it has failed."""
    pending = set(futures)
    while pending:
        finished, pending = wait(pending, timeout=SECONDS_BETWEEN_REPORTS, return_when=FIRST_COMPLETED)
        while True:
            try:
                report = reports.get_nowait()
            except queue.Empty:
                break
            if on_progress is not None:
                on_progress(*report)
        if any(future.exception() for future in finished):
            return


def _begin_worker(reports: Queue[tuple[int, int, int, float]]) -> None:
    global _reports
    _reports = reports
    torch.set_num_threads(1)


def _work_on(work: Callable[[Item, Report], Result], index: int, item: Item) -> Result:
    last = 0.0

    def report(done: int, total: int, loss: float) -> None:
        nonlocal last
        now = time.monotonic()
        if _reports is not None and (done == total or now - last >= SECONDS_BETWEEN_REPORTS):
            last = now
            _reports.put((index, done, total, loss))

    return work(item, report)
