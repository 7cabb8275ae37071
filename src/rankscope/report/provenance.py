"""Where a run comes from, and how far it is: what its folder says beside the measurements."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from rankscope.errors import InputError
from rankscope.experiments import EXPERIMENTS
from rankscope.sweep import RunFolder
from rankscope.sweep.parts import Part
from rankscope.sweep.results import assemble, read_cells

VERSIONS = ("rankscope_version", "python_version", "torch_version", "numpy_version", "platform")
NOT_SHOWN = ("recurrent_weights_history",)
"""Large, and in no chart."""


@dataclass(frozen=True)
class Provenance:
    """What is known of a run besides its numbers.

    Attributes
    ----------
    experiment
        The name of the experiment, or None for a sweep of a user's own or a bare Dataset.
    folder, command
        Where it is, and what makes it again; None without a folder.
    sweep
        The text of the user's sweep file, or None.
    counts
        Networks in all, done, failed, running, waiting; None without a folder.
    failures
        Of networks that ended with an error: `name`, `error`, `message`, `host`, `time`.
    cells
        By seed, of each finished network: `digest`, `finished`, `seconds`, `cell` (its description).
    versions
        Of what computed it, where all networks agree.
    """

    experiment: str | None = None
    folder: str | None = None
    command: str | None = None
    sweep: str | None = None
    counts: dict[str, int] | None = None
    failures: list[dict[str, str]] = field(default_factory=list)
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def of_dataset(dataset: xr.Dataset, experiment: str | None = None) -> Provenance:
    """Return what a Dataset says of where it comes from."""
    return Provenance(experiment=experiment, versions=_versions(dataset))


def open_folder(folder: str | os.PathLike[str]) -> tuple[xr.Dataset, Provenance]:
    """Return everything measured in a run so far, in memory, and what else its folder says.

    Each result is read once and whole, which for many cells is several times faster than `open_run` and reading what
    it has opened. Results that are damaged are listed among the failures. In a run that has cells at few of the
    combinations of its labels, arrays are lazy.

    Raises
    ------
    InputError
        If it is not the folder of a run, or holds no finished cell.
    """
    run = RunFolder(folder)
    manifest = run.manifest()
    failures = [
        {"name": _failed_name(manifest.cells.get(digest, {}), digest)}
        | {name: value for name, value in asdict(failure).items() if name != "traceback"}
        for digest, failure in run.failures().items()
    ]
    cells, unreadable = read_cells(run, NOT_SHOWN)
    for digest, reason in unreadable.items():
        name = _failed_name(manifest.cells.get(digest, {}), digest)
        failures.append({"name": name, "error": "unreadable", "message": reason, "host": "", "time": ""})
    if not cells:
        raise InputError(f"folder must hold finished cells, got {str(folder)!r}, which has none yet")
    dataset = assemble(cells)
    experiment, command, sweep = _origin(manifest.description, Path(folder))
    return dataset, Provenance(
        experiment=experiment,
        folder=str(folder),
        command=command,
        sweep=sweep,
        counts=asdict(run.counts()),
        failures=failures,
        cells=_stamps(cells),
        versions=_versions(dataset),
    )


def _origin(description: Mapping[str, Any], folder: Path) -> tuple[str | None, str | None, str | None]:
    """Return the experiment, the command that runs it, and the text of a user's sweep; None for what is not known."""
    name, sweep = description.get("experiment"), description.get("sweep")
    # The folder is named by its user, and a name may be anything.
    out = shlex.quote(folder.resolve().name)
    if isinstance(name, str) and name in EXPERIMENTS:
        preset = shlex.quote(str(description.get("preset", "quick")))
        return name, f"rankscope run {name} --preset {preset} --out {out}", None
    if isinstance(sweep, str):
        return None, f"rankscope run sweep.yaml --out {out}", sweep
    return None, None, None


def _versions(dataset: xr.Dataset) -> dict[str, str]:
    return {name: str(dataset.attrs[name]) for name in VERSIONS if name in dataset.attrs}


def _failed_name(cell: Any, digest: str) -> str:
    labels = {name: cell[name] for name in ("task", "gain", "hidden_size", "sample") if name in cell}
    labels |= cell.get("labels", {})
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in labels.items()) or digest


def _stamps(cells: Sequence[Part]) -> dict[str, dict[str, Any]]:
    """Return what the files say of their cells, by the seed; nothing of cells that share one."""
    seeds = Counter(map(_seed_of, cells))
    return {_seed_of(cell): _stamp(cell) for cell in cells if seeds[_seed_of(cell)] == 1}


def _seed_of(cell: Part) -> str:
    return str(int(cell.scalar("seed"))) if "seed" in cell.variables else ""


def _stamp(cell: Part) -> dict[str, Any]:
    said = {name: cell.said(name) for name in ("digest", "finished", "training_seconds", "cell")}
    known = {name: value for name, value in said.items() if value is not None}
    for name, read in (("digest", str), ("finished", str), ("training_seconds", float), ("cell", json.loads)):
        if name in known:
            known[name] = read(known[name])
    return {("seconds" if name == "training_seconds" else name): value for name, value in known.items()}
