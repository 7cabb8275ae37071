"""The trials of many networks, each drawn from its own source in the order in which it would draw them alone.

For a device that computes while we draw, a thread draws one epoch ahead into memory that the device can copy from.
The sources that the caller gave are left alone meanwhile: we draw from copies, and say where they stand.
"""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.tasks.trials import Task, Trials, as_trials

AHEAD = 2
"""Epochs drawn before they are asked for."""
SECONDS_BETWEEN_LOOKS = 0.1


@dataclass
class Drawn:
    """The trials of one epoch.

    Attributes
    ----------
    blocks
        Inputs, targets and mask, each (E, batch, time, channels). Those of a network that has ended are any.
    positions
        (E,) where the source of each network stands after them.
    """

    blocks: list[Tensor]
    positions: list[dict[str, Any]]

    @property
    def shapes(self) -> list[torch.Size]:
        """Of the blocks."""
        return [block.shape for block in self.blocks]


class Draws:
    """Where the trials come from, epoch by epoch.

    Parameters
    ----------
    rngs
        The source of each network; only copies of them are drawn from.
    most
        Epochs that will be asked for, at most.
    ahead
        Whether a thread draws ahead.
    pinned
        Whether the blocks lie where a graphics card can fetch them by itself.
    """

    def __init__(
        self,
        task: Task,
        batch_size: int,
        rngs: Sequence[np.random.Generator],
        most: int,
        *,
        ahead: bool,
        pinned: bool,
    ) -> None:
        self._task, self._batch_size, self._most, self._pinned = task, batch_size, most, pinned
        self._rngs = [copy.deepcopy(rng) for rng in rngs]
        self._spare: list[list[Tensor]] = []
        self._ended: set[int] = set()
        self._closed = threading.Event()
        self._drawn: queue.Queue[Drawn | BaseException] = queue.Queue(AHEAD)
        self._thread: threading.Thread | None = None
        if ahead:
            self._thread = threading.Thread(target=self._draw_ahead, name="draw trials", daemon=True)
            self._thread.start()

    def next(self) -> Drawn:
        """Return the trials of the next epoch.

        Raises
        ------
        Exception
            What the task raised when it was to draw them; InputError if trials are not of one shape.
        """
        if self._thread is None:
            return self._draw()
        drawn = self._drawn.get()
        if isinstance(drawn, BaseException):
            raise drawn
        return drawn

    def give_back(self, drawn: Drawn) -> None:
        """Let the memory of trials be used again."""
        self._spare.append(drawn.blocks)

    def end(self, e: int) -> None:
        """Draw no more for a network."""
        self._ended.add(e)

    def close(self) -> None:
        """Stop drawing."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _draw_ahead(self) -> None:
        for _ in range(self._most):
            drawn: Drawn | BaseException
            try:
                drawn = self._draw()
            except BaseException as error:
                drawn = error
            while not self._closed.is_set():
                try:
                    self._drawn.put(drawn, timeout=SECONDS_BETWEEN_LOOKS)
                    break
                except queue.Full:
                    pass
            if isinstance(drawn, BaseException) or self._closed.is_set():
                return

    def _draw(self) -> Drawn:
        blocks: list[Tensor] = []
        for e, rng in enumerate(self._rngs):
            if e in self._ended:
                continue
            trials = as_trials(self._task.sample(self._batch_size, rng))
            parts = (trials.inputs, trials.targets, trials.mask)
            blocks = blocks or self._blocks(trials)
            for block, part in zip(blocks, parts, strict=True):
                if block.shape[1:] != part.shape:
                    raise InputError(
                        f"task must hand out trials of one shape to networks that are trained together, got "
                        f"{tuple(part.shape)} beside {tuple(block.shape[1:])}"
                    )
                block[e].copy_(part)
        return Drawn(blocks, [dict(rng.bit_generator.state) for rng in self._rngs])

    def _blocks(self, like: Trials) -> list[Tensor]:
        """Return memory for trials of all networks."""
        shapes = [(len(self._rngs), *part.shape) for part in (like.inputs, like.targets, like.mask)]
        while self._spare:
            blocks = self._spare.pop()
            if [tuple(block.shape) for block in blocks] == shapes and blocks[0].dtype == like.inputs.dtype:
                return blocks
        return [
            torch.zeros(shape, dtype=like.inputs.dtype, pin_memory=self._pinned) for shape in shapes
        ]  # pinned: card only
