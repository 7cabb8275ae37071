"""Trials drawn a few epochs before they are needed.

An epoch sweeps several megabytes through the processor's caches, and what draws trials is slow after that: three times
as slow as when it is called again at once. So a few batches are drawn at a time, from a copy of the source of
randomness; the source itself is put where it would stand had each batch been drawn when it was wanted.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np

from rankscope.tasks.trials import Task, Trials

BATCHES_AT_A_TIME = 8


def drawn_ahead(task: Task, batch_size: int, rng: np.random.Generator) -> Iterator[Trials]:
    """Yield fresh batches for ever; between two of them, `rng` must be left alone.

    Parameters
    ----------
    task
        One whose trials depend on nothing but `rng`.
    """
    source = copy.deepcopy(rng)
    while True:
        drawn = [(task.sample(batch_size, source), source.bit_generator.state) for _ in range(BATCHES_AT_A_TIME)]
        for trials, position in drawn:
            rng.bit_generator.state = position
            yield trials
