"""Thread counts of the linear algebra libraries, limited while small matrices are computed with.

A network of a few hundred units gains nothing from a second thread. It loses much: torch's OpenMP threads and numpy's
BLAS threads spin while they wait for each other, and wherever another process needs the core, each product waits for a
thread that is not running. Measured on two cores with one of them busy, an epoch of 256 units takes 150 to 260 ms with
default threads, and 8 ms with one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import ThreadpoolController

LARGEST_SINGLE_THREADED = 512
"""Rows of the largest matrices for which one thread is used: above, a second one pays on idle cores."""


@contextmanager
def threads_for(size: int) -> Iterator[None]:
    """Limit torch and BLAS to one thread within a `with` block, unless the largest square matrix has many rows."""
    if size > LARGEST_SINGLE_THREADED:
        yield
        return
    before = torch.get_num_threads()
    with _controller().limit(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@functools.cache
def _controller() -> ThreadpoolController:
    """Return the controller of all loaded libraries; finding them takes milliseconds, so it is done once."""
    import numpy  # noqa: F401  its BLAS
    import scipy.linalg  # noqa: F401  its own

    return ThreadpoolController()
