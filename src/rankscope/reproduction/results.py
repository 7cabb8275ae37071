"""The outcome of one experiment, from the folder of its run: claims with verdicts, and the facts of the run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from rankscope.errors import InputError
from rankscope.experiments import EXPERIMENTS, Experiment
from rankscope.experiments.claims import NOT_IN_THIS_RUN, VERDICTS, Claim
from rankscope.sweep import RunFolder, open_run
from rankscope.sweep.calls import read_calls, wall_seconds

Row = Mapping[str, Any]
SOFTWARE = ("rankscope", "torch", "numpy", "python")
HOLDS, FAILS, NOT_HERE = (VERDICTS[holds] for holds in (True, False, None))


@dataclass(frozen=True)
class Outcome:
    """What an experiment showed.

    Attributes
    ----------
    experiment
        Its name.
    rows
        The rows of `rankscope check`.
    facts
        Of its run, as JSON values: `preset`, `command`, `networks` (number of finished ones), `listed`, `failed`,
        `wall_seconds` (None if not recorded), `training_seconds` (sum over the networks), `workers`, `processors`,
        `cores`, `versions`, `finished` (date of the last network). Empty if it was not run.
    missing
        Why it was not run; empty if it was.
    """

    experiment: str
    rows: list[dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)
    missing: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """Number of claims by verdict."""
        found = Counter(str(row["verdict"]) for row in self.rows)
        return {verdict: found[verdict] for verdict in (HOLDS, FAILS, NOT_HERE)}


def outcome_of(
    name: str, folder: str | os.PathLike[str], dataset: xr.Dataset | None = None, further: Sequence[Claim] = ()
) -> Outcome:
    """Return the outcome of an experiment.

    Parameters
    ----------
    name
        A key of `EXPERIMENTS`.
    folder
        Folder of its run.
    dataset
        The measurements of the run, if they are open already.
    further
        Claims besides those of the experiment.

    Raises
    ------
    InputError
        If the folder is not that of a run, or holds no finished network.
    """
    experiment = EXPERIMENTS[name]
    measured = open_run(folder) if dataset is None else dataset
    return Outcome(name, experiment.verdicts(measured, *further), _facts(experiment, folder, measured))


def not_run(name: str, reason: str) -> Outcome:
    """Return the outcome of an experiment that was not run: all its claims without a verdict."""
    rows = [
        {
            "claim": claim.name,
            "statement": claim.statement,
            "paper": claim.paper,
            "measured": "not run",
            "verdict": VERDICTS[NOT_IN_THIS_RUN.holds],
        }
        for claim in EXPERIMENTS[name].claims
    ]
    return Outcome(name, rows, missing=reason)


def _facts(experiment: Experiment, folder: str | os.PathLike[str], measured: xr.Dataset) -> dict[str, Any]:
    store = RunFolder(folder)
    description, counts, calls = store.manifest().description, store.counts(), read_calls(folder)
    results = [store.result(digest).attrs for digest in store.done()]
    seconds = [one["training_seconds"] for one in results if isinstance(one.get("training_seconds"), float)]
    versions = {
        name: sorted({str(one[f"{name}_version"]) for one in results if f"{name}_version" in one}) for name in SOFTWARE
    }
    name, preset = str(description.get("experiment", experiment.name)), str(description.get("preset", ""))
    return {
        "preset": preset,
        "command": f"rankscope run {name} --preset {preset} --out runs/{Path(folder).name}",
        "networks": int(np.sum(np.isin(measured["status"].values, ("finished", "diverged")))),
        "listed": counts.total,
        "failed": counts.failed,
        "wall_seconds": round(wall_seconds(calls), 1) if calls else None,
        "training_seconds": round(float(np.sum(seconds)), 1),
        "workers": sorted({call.workers for call in calls}),
        "cores": sorted({call.cores for call in calls}),
        "processors": sorted({call.processor for call in calls}),
        "versions": {name: ", ".join(found) for name, found in versions.items() if found},
        "finished": max((str(one["finished"]) for one in results if "finished" in one), default=""),
    }


def duration(seconds: float) -> str:
    """Return a time as text: "41 s", "12 min", "1 h 5 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def described(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the facts of a run as titles and texts."""
    if not facts:
        return []
    networks = f"{facts['networks']}"
    if facts.get("listed", facts["networks"]) != facts["networks"]:
        networks += f" of {facts['listed']}"
    networks += f", {facts['failed']} failed" if facts.get("failed") else ""
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    rows = [
        ("Preset", facts["preset"]),
        ("Networks", networks),
        ("Wall time", _wall_time(facts)),
        ("Processor", ", ".join(facts.get("processors", []))),
        ("Versions", versions),
        ("Last network finished", facts.get("finished", "")),
    ]
    return [(title, text) for title, text in rows if text]


def _wall_time(facts: Mapping[str, Any]) -> str:
    training = facts.get("training_seconds")
    together = f"training of all networks together {duration(training)}" if training else ""
    if facts.get("wall_seconds") is None:
        return "not recorded" + (f"; {together}" if together else "")
    workers, cores = (" or ".join(map(str, facts.get(name, []))) for name in ("workers", "cores"))
    within = f"{workers} process{'' if workers == '1' else 'es'}, {cores} core{'' if cores == '1' else 's'}"
    details = "; ".join(filter(None, (within if workers else "", together)))
    return duration(facts["wall_seconds"]) + (f" ({details})" if details else "")


def titled(text: str) -> str:
    """Return a statement with the bars of norms, which separate the cells of tables, doubled to ‖."""
    return text.replace("|dW|", "‖dW‖").replace("|W|", "‖W‖")


def opened(folder: str | os.PathLike[str]) -> str | None:
    """Return the name of the experiment of a run folder; None if it is of another kind, or no run."""
    try:
        name = RunFolder(folder).manifest().description.get("experiment")
    except InputError:
        return None
    return name if name in EXPERIMENTS else None
