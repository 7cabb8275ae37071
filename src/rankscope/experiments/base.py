"""The contract of an experiment: jobs for each preset, claims about their results, and a figure.

Experiments are data. A new one is a file that makes an `Experiment`, and a line in `__init__.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from rankscope.errors import InputError
from rankscope.experiments.claims import Claim, check_claims
from rankscope.sweep import Job
from rankscope.sweep.axes import own_labels
from rankscope.validation import choice

PAPER_EPOCHS = {"flipflop": 1000, "mante": 2000, "romo": 6000}
PAPER_SIZE, QUICK_SIZE = 256, 128
MEASURED = ("learning", "norms", "evaluation", "truncation", "shuffle", "spectra", "trial")


@dataclass(frozen=True)
class Experiment:
    """A named experiment.

    Parameters
    ----------
    name, description
        As listed on the command line.
    presets
        Preset -> function that returns its jobs.
    claims
        Checked by `rankscope check`.
    figure
        Name of its figure in `rankscope.figures`; by default that of the experiment.
    table
        Function of the Dataset of a run that returns the rows of its file in docs/results; None is one row for each
        network, with all scalars.
    """

    name: str
    description: str
    presets: Mapping[str, Callable[[], list[Job]]]
    claims: tuple[Claim, ...] = ()
    figure: str = ""
    table: Callable[[xr.Dataset], pd.DataFrame] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "figure", self.figure or self.name)  # the dataclass is frozen

    @cached_property
    def axes(self) -> frozenset[str]:
        """Labels by which the networks of a run may differ, so that figure and claims compare them as they are meant.

        These are the labels that its jobs vary, and `sample`.
        """
        names = {"sample"}
        for preset in self.presets:
            described = [own_labels(job.description) for job in self.jobs(preset)]
            known = {name for labels in described for name in labels}
            names |= {name for name in known if len({labels.get(name) for labels in described}) > 1}
        return frozenset(names)

    def check_axes(self, dataset: xr.Dataset) -> None:
        """Check that networks of a run differ only by `axes`: figure and claims would mix them along other labels.

        Raises
        ------
        InputError
            If they differ by other labels.
        """
        further = [name for name in map(str, dataset["status"].dims) if name not in self.axes]
        if further:
            values = {name: ", ".join(map(str, np.unique(dataset[name].values))) for name in further}
            listed = "; ".join(f"{name} = {text:.200}" for name, text in values.items())
            raise InputError(
                f"{self.name} compares networks that differ in {', '.join(sorted(self.axes))}, got a run with "
                f"{listed}; choose with {' '.join(f'--select {name}=VALUE' for name in further)} (dataset.sel in "
                "Python), or draw the figure 'sweep', which takes any labels"
            )

    def verdicts(self, dataset: xr.Dataset, *further: Claim) -> list[dict[str, Any]]:
        """Return the rows of `check_claims` for the claims of the experiment, and for further ones.

        Raises
        ------
        InputError
            As `check_axes`.
        """
        self.check_axes(dataset)
        return check_claims((*self.claims, *further), dataset)

    def jobs(self, preset: str) -> list[Job]:
        """Return the jobs of a preset.

        Raises
        ------
        InputError
            If there is no such preset.
        """
        return self.presets[choice("preset", preset, self.presets)]()


def nonlinear_jobs(
    gains: Mapping[str, Iterable[float]], samples: int, sizes: Iterable[int], recorded_epochs: int = 200
) -> list[Job]:
    """Return a job for each task, gain, size and sample.

    Parameters
    ----------
    gains
        Task -> gains; each task is trained for as many epochs as in the paper.
    """
    return [
        Job(
            task=task,
            network={"kind": "rate", "gain": float(gain), "hidden_size": N},
            training={"epochs": PAPER_EPOCHS[task], "recorded_epochs": recorded_epochs},
            measurements=MEASURED,
            seed=seed_of(task, float(gain), N, sample),
            labels={"sample": sample},
        )
        for task, its_gains in gains.items()
        for gain in its_gains
        for N in sizes
        for sample in range(samples)
    ]


def seed_of(*labels: Any) -> int:
    """Return a seed that depends on the labels alone, not on the order of jobs."""
    return int.from_bytes(hashlib.sha256(json.dumps(labels).encode()).digest()[:6], "big")


def up_to(last: float) -> list[float]:
    """Return the gains 0, 0.3, ..., last of the paper."""
    return [round(0.3 * step, 1) for step in range(round(last / 0.3) + 1)]
