"""How much memory something needs at its peak, measured in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path


def peak_megabytes(warm_up: Callable[[], object], call: Callable[[], object]) -> float | None:
    """Return how much `call` needs beyond what the process has after `warm_up`, in MB; None where nobody can say.

    Parameters
    ----------
    warm_up
        Something like `call`, but small: what is loaded or compiled when it is first used does not count.
    call
        Both are called in a fresh process, so both have to be picklable.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell_peak, args=(sender, warm_up, call))
    process.start()
    sender.close()
    peak: float | None = receiver.recv()
    process.join()
    return peak


def _tell_peak(sender: Connection, warm_up: Callable[[], object], call: Callable[[], object]) -> None:
    warm_up()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
        before = _peak_kilobytes()
    except OSError:
        sender.send(None)
        return
    call()
    sender.send((_peak_kilobytes() - before) / 1024)


def _peak_kilobytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
