"""One training step of a job before a run: mistakes of a task, network or loss of the user show within a second.

For code of the user's own, it is also the only way to estimate how long the training takes.
"""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rankscope.errors import InputError
from rankscope.tasks import Trials
from rankscope.tasks.trials import as_trials
from rankscope.training import TrainingConfig, train
from rankscope.validation import RngLike, generator

PACKAGE = Path(__file__).parents[1]
TIMED = 4  # steps


def run_one_step(network: Any, task: Any, config: TrainingConfig, rng: RngLike) -> None:
    """Train `network` for one step on one batch of `task`, without records of its matrices.

    Raises
    ------
    InputError
        If the task draws impossible trials, or the network or the loss does not accept them.
    """
    rng = generator(rng)
    batch = _first_batch(task, config, rng)
    batch.check_content()
    _train(network, task, batch, config, rng)


def seconds_of_an_epoch(network: Any, task: Any, config: TrainingConfig, rng: RngLike) -> float:
    """Return the measured seconds of an epoch: its batches are drawn, and the network is trained. It is changed."""
    rng = generator(rng)
    started = time.perf_counter()
    batch = _first_batch(task, config, rng)
    batches = sum(1 for _ in task.batches(config.batch_size, rng)) if hasattr(task, "batches") else 1
    drawing = time.perf_counter() - started
    times: list[float] = []
    _train(network, task, batch, config, rng, steps=TIMED, progress=lambda *_: times.append(time.perf_counter()))
    # The first step also prepares, and checks how the network is used.
    return drawing + batches * min((after - before for before, after in itertools.pairwise(times)), default=0.0)


def _first_batch(task: Any, config: TrainingConfig, rng: RngLike) -> Trials:
    if hasattr(task, "batches"):
        return as_trials(next(iter(task.batches(config.batch_size, rng))))
    return as_trials(task.sample(config.batch_size, rng))


def _train(
    network: Any, task: Any, batch: Trials, config: TrainingConfig, rng: RngLike, steps: int = 1, progress: Any = None
) -> None:
    few = config.model_copy(update={"epochs": steps, "recorded_epochs": (), "kept_epochs": ()})
    train(network, _OneBatch(task, batch), steps, rng, config=few, progress=progress)


@contextmanager
def user_errors(what: str) -> Iterator[None]:
    """Turn an exception of the user's code into one line that names its file and line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
        where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        raise InputError(f"{what} must run for one step, got {type(error).__name__}: {error}{where}") from error


class _OneBatch:
    """A task with one batch, which is also its validation where the task has one."""

    def __init__(self, task: Any, batch: Trials) -> None:
        self.loss = getattr(task, "loss", None)
        self._batch = batch
        if hasattr(task, "batches"):
            self.batches = self._all
        if hasattr(task, "validation"):
            self.validation = self._all

    def sample(self, batch_size: int, rng: Any) -> Trials:
        """Return the batch."""
        return self._batch

    def _all(self, *ignored: Any) -> list[Trials]:
        return [self._batch]


def _is_users(filename: str) -> bool:
    path = Path(filename)
    return not path.is_relative_to(PACKAGE) and "site-packages" not in path.parts
