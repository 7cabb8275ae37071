"""What an experiment is: cells to train at some preset, and claims that their results are to bear out.

Experiments are data. Adding one is a new file that makes an `Experiment`, and a line in the room's `__init__`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rankscope.arguments import choice
from rankscope.experiments.cell import RANKS, Cell, evaluation_trials
from rankscope.experiments.claims import Claim
from rankscope.linalg.singular_values import EXACT_UP_TO
from rankscope.tasks import make
from rankscope.training.history import record_schedule

PAPER_EPOCHS = {"flipflop": 1000, "mante": 2000, "romo": 6000}
PAPER_SIZE, QUICK_SIZE = 256, 128


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
    presets: dict[str, Callable[[], list[Cell]]]
    claims: tuple[Claim, ...]

    def cells(self, preset: str) -> list[Cell]:
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


def work(cell: Cell) -> float:
    """Return about how long a cell takes, in multiplications: its training, the looks at its weights, the analysis.

    The factors of the decompositions are their measured times in units of the multiplications of a training.
    """
    N, steps, options = cell.hidden_size, cell.task.steps, cell.training
    # With a single row, a product waits for the weights to come from memory, and costs as much as with two.
    training = 3 * cell.epochs * steps * max(options.get("batch_size", 32), 2)
    looks = len(record_schedule(cell.epochs, options.get("recorded_epochs"), N))
    look = (10 * N if N <= EXACT_UP_TO else 400) + 100 * N * bool(options.get("eigenvalues"))
    analysis = {
        "truncation": len(RANKS) * steps * evaluation_trials(cell.task, cell.network.get("noise_std", 0.0)),
        "spectra": 350 * N,
        "outlier": 100 * N,
    }
    return float(N**2 * (training + looks * look + sum(analysis.get(name, 0) for name in cell.measurements)))


def up_to(last: float) -> list[float]:
    """Return the gains 0, 0.3, ..., last, as the paper sweeps them."""
    return [round(0.3 * step, 1) for step in range(round(last / 0.3) + 1)]
