"""What an experiment is: cells to train at some preset, and claims that their results are to bear out.

Experiments are data. Adding one is a new file that makes an `Experiment`, and a line in the room's `__init__`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import xarray as xr

from rankscope.experiments.cell import Cell
from rankscope.experiments.claims import Claim
from rankscope.sweep.processes import Report
from rankscope.tasks import make
from rankscope.validation import choice

PAPER_EPOCHS = {"flipflop": 1000, "mante": 2000, "romo": 6000}
PAPER_SIZE, QUICK_SIZE = 256, 128


class AnyCell(Protocol):
    """What an experiment is made of: a network to train and measure. `Cell` is one, `TextCell` another."""

    @property
    def digest(self) -> str:
        """A name for everything that determines the result."""

    @property
    def steps(self) -> int:
        """Steps in all of the training of which each has a fixed cost."""

    @property
    def work(self) -> float:
        """About how many multiplications the cell takes."""

    def describe(self) -> dict[str, Any]:
        """Return the cell as plain values."""

    def check(self) -> None:
        """Raise InputError if the cell cannot be run here, say because its data is not."""

    def measure(self, report: Report, checkpoint: str | os.PathLike[str] | None = None) -> xr.Dataset:
        """Train and measure, going on from the checkpoint if there is one."""


@dataclass(frozen=True)
class Experiment:
    """A named experiment.

    Attributes
    ----------
    name, description
        As listed on the command line.
    presets
        Preset -> a function that returns its cells, the longest first.
    claims
        What `rankscope check` looks at.
    """

    name: str
    description: str
    presets: Mapping[str, Callable[[], Sequence[AnyCell]]]
    claims: tuple[Claim, ...]

    def cells(self, preset: str) -> Sequence[AnyCell]:
        """Return the cells of a preset.

        Raises
        ------
        InputError
            If there is no such preset.
        """
        return self.presets[choice("preset", preset, self.presets)]()


def nonlinear_cells(gains: Mapping[str, Iterable[float]], samples: int, sizes: Iterable[int]) -> list[Cell]:
    """Return one cell for each task, gain, size and sample, the longest first, every one with a seed of its own.

    Parameters
    ----------
    gains
        Task -> gains; each task is trained for as many epochs as in the paper.
    """
    cells = [
        Cell(
            make(task),
            gain=float(gain),
            hidden_size=N,
            epochs=PAPER_EPOCHS[task],
            sample=sample,
            seed=seed_of(task, float(gain), N, sample),
            training={"recorded_epochs": min(200, PAPER_EPOCHS[task])},
        )
        for task, its_gains in gains.items()
        for gain in its_gains
        for N in sizes
        for sample in range(samples)
    ]
    return sorted(cells, key=work, reverse=True)


def seed_of(*labels: Any) -> int:
    """Return a seed that follows from what the cell is, not from the order of running."""
    text = json.dumps(labels)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def work(cell: AnyCell) -> float:
    """Return about how long a cell takes, in multiplications."""
    return cell.work


def up_to(last: float) -> list[float]:
    """Return the gains 0, 0.3, ..., last, as the paper sweeps them."""
    return [round(0.3 * step, 1) for step in range(round(last / 0.3) + 1)]
