"""Work on several processes with one thread each.

A network of a few hundred units keeps one core busy and gains nothing from a second, so networks are trained in
parallel, not their matrix products. Progress is returned through a queue, results in the order of the items.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

from rankscope.sweep.interactive import received, to_send
from rankscope.validation import integer

Item = TypeVar("Item")
Result = TypeVar("Result")
Report = Callable[[int, int, float], None]
"""report(done, total, loss), called by the work."""

OnProgress = Callable[[int, int, int, float], None]
"""on_progress(index, done, total, loss): the progress of item number `index`."""

SECONDS_BETWEEN_REPORTS = 0.1
_reports: Queue[tuple[int, int, int, float]] | None = None


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerPool:
    """Worker processes, and the queue of their progress reports.

    Parameters
    ----------
    workers
        Number of processes; they start when work is submitted.
    """

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._reports: Queue[tuple[int, int, int, float]] = context.Queue()
        self._executor = ProcessPoolExecutor(
            workers, mp_context=context, initializer=_begin_worker, initargs=(self._reports,)
        )
        self._processes: dict[int, BaseProcess] = {}

    def submit(self, work: Callable[[Item, Report], Result], index: int, item: Item) -> Future[Result]:
        """Submit `work(item, report)`.

        Raises
        ------
        concurrent.futures.BrokenExecutor
            If a process has died.
        """
        future = self._executor.submit(_work_on, work, index, to_send(item))
        self._processes |= self._executor._processes or {}
        return future

    def reports(self) -> list[tuple[int, int, int, float]]:
        """Return what was reported since the last call: (index, done, total, loss)."""
        received = []
        while True:
            try:
                received.append(self._reports.get_nowait())
            except queue.Empty:
                return received

    def pids(self) -> set[int]:
        """Return the numbers of all processes so far."""
        return set(self._processes)

    def close(self) -> list[tuple[int, int, int, float]]:
        """Wait for the processes to end; return the reports that were still in the queue."""
        self._executor.shutdown()
        # Reports may arrive after the result; a process sends its last ones when it ends.
        received = self.reports()
        self._reports.close()
        return received

    def abandon(self) -> None:
        """Kill the processes."""
        for process in self._processes.values():
            process.kill()
        self.close_broken()

    def close_broken(self) -> set[int]:
        """Close after a process has died, which ends the others; return the numbers of those that died first."""
        self._executor.shutdown(cancel_futures=True)
        self._reports.close()
        ended = (0, -signal.SIGTERM)
        return {pid for pid, process in self._processes.items() if process.exitcode not in ended}


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
        Any error of `work`, that of the first item.
    """
    most = available_cores() if workers is None else integer("workers", workers, minimum=1)
    pool = WorkerPool(max(1, min(most, len(items))))
    try:
        futures = [pool.submit(work, index, item) for index, item in enumerate(items)]
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=SECONDS_BETWEEN_REPORTS, return_when=FIRST_COMPLETED)
            for report in pool.reports():
                if on_progress is not None:
                    on_progress(*report)
            if any(future.exception() for future in finished):
                break
        results = [future.result() for future in futures]
    except BaseException:
        # Ctrl-C must not wait for work that is not needed any more.
        pool.abandon()
        raise
    for report in pool.close():
        if on_progress is not None:
            on_progress(*report)
    return results


def _begin_worker(reports: Queue[tuple[int, int, int, float]]) -> None:
    global _reports
    _reports = reports
    become_worker()


def become_worker() -> None:
    """Limit this process to one thread, ignore Ctrl-C, and end with the parent process."""
    torch.set_num_threads(1)
    threadpool_limits(1)  # of numpy, scipy
    # A terminal sends Ctrl-C to workers too; the parent decides when they end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()


def _end_with_parent() -> None:
    """End this process with its parent: the workers of a killed parent would wait forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work_on(work: Callable[[Item, Report], Result], index: int, sent: Any) -> Result:
    item: Item = received(sent)
    last = 0.0

    def report(done: int, total: int, loss: float) -> None:
        nonlocal last
        now = time.monotonic()
        if _reports is not None and (done == total or now - last >= SECONDS_BETWEEN_REPORTS):
            last = now
            _reports.put((index, done, total, loss))

    return work(item, report)
