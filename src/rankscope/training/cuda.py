"""All that is special about a graphics card: finding one, its memory, its arithmetic, and a step captured as a graph.

Everything else about training networks together is the same on a processor, where it is tested. What runs only where
there is a card is marked "card only": it is here, but for the call of `captured` in stack.py and pinned memory in
draws.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from rankscope.errors import InputError

REHEARSALS = 3
"""How often a step is run before it is captured: libraries prepare themselves at first, which cannot be captured."""


def find_device(name: str | torch.device, argument: str = "device") -> torch.device:
    """Return the device of this name.

    Raises
    ------
    InputError
        If there is no such device here.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{argument} must be 'cpu', or 'cuda' with a number or without, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"{argument} must be 'cpu', or 'cuda' with a number or without, got {str(name)!r}")
    there = torch.cuda.device_count() if device.type == "cuda" and torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= there:
        raise InputError(
            f"{argument} must be there, got {str(name)!r}, but torch {torch.__version__} finds {there} cards"
        )
    return device


def name_of_device(device: torch.device) -> str:
    """Return what to write down of a device."""
    if device.type != "cuda":
        return device.type
    return f"cuda ({torch.cuda.get_device_name(device)})"  # card only


def free_bytes(device: torch.device) -> int:
    """Return how much memory is free on a device; of a processor, in the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])  # card only
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not every system counts these
        return 2**31


@contextmanager
def full_precision(wanted: bool = True) -> Iterator[None]:
    """Multiply in single precision on a card within this context, not with the ten bits of TF32; if it is `wanted`.

    What was allowed before is allowed again afterwards.
    """
    if not wanted:
        yield
        return
    products = torch.backends.cuda.matmul
    # The name since torch 2.9, which is not to be mixed with the older one.
    name, value = ("fp32_precision", "ieee") if hasattr(products, "fp32_precision") else ("allow_tf32", False)
    before = getattr(products, name)
    setattr(products, name, value)
    try:
        yield
    finally:
        setattr(products, name, before)


def mark(device: torch.device) -> Callable[[], object]:
    """Return wait(), which returns once all that was asked of the device before this call is done."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # card only
    event.record(torch.cuda.current_stream(device))  # card only
    return event.synchronize  # card only


def captured(
    run: Callable[[], object],
    rehearse: Callable[[], object],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> Callable[[], object]:
    """Return what does the same as `run`, as one graph of kernels that the card runs by itself. Card only.

    Parameters
    ----------
    run
        Works on tensors that stay where they are, and waits for nothing.
    rehearse
        Does what `run` does, and undoes it.
    optimizer
        What `run` lets make a step.
    """
    with torch.cuda.device(device):
        aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(REHEARSALS):
                rehearse()
        torch.cuda.current_stream(device).wait_stream(aside)
        for group in optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True
        graph = torch.cuda.CUDAGraph()
        # Other threads, which draw trials and look at weights, may go on meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            run()
    return graph.replay
