"""Provenance of a run: its origin, progress and failures, from the run folder."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from rankscope.experiments import EXPERIMENTS
from rankscope.io.dataset_file import StoredDataset
from rankscope.report.networks import network_name
from rankscope.sweep import RunFolder
from rankscope.sweep.axes import labels_of_jobs
from rankscope.sweep.results import assemble, read_results

VERSIONS = ("rankscope_version", "python_version", "torch_version", "numpy_version", "platform")
NOT_SHOWN = ("recurrent_weights_history",)


@dataclass(frozen=True)
class Provenance:
    """Information on a run besides its measurements.

    Attributes
    ----------
    experiment
        Name of the experiment; None for a user's own sweep or a bare Dataset.
    folder, command
        The run folder and the command that reproduces it; None without a folder.
    sweep
        Text of the user's sweep file, or None.
    counts
        Numbers of networks: total, done, failed, running, waiting; None without a folder.
    failures
        Of networks that failed: `name`, `error`, `message`, `host`, `time`.
    jobs
        By digest, of each finished network: `digest`, `finished`, `seconds`, `job` (its description).
    versions
        Of the software that trained the networks, where all agree.
    """

    experiment: str | None = None
    folder: str | None = None
    command: str | None = None
    sweep: str | None = None
    counts: dict[str, int] | None = None
    failures: list[dict[str, str]] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def of_dataset(dataset: xr.Dataset, experiment: str | None = None) -> Provenance:
    """Return the provenance that a Dataset contains."""
    return Provenance(experiment=experiment, versions=_versions(dataset))


def open_folder(folder: str | os.PathLike[str]) -> tuple[xr.Dataset, Provenance]:
    """Return the measurements of a run so far, and its provenance. Damaged results are listed as failures.

    Raises
    ------
    InputError
        If it is not the folder of a run, or no job is finished.
    """
    run = RunFolder(folder)
    manifest = run.manifest()
    labels = labels_of_jobs(manifest.jobs)
    failures = [
        {"name": _name_of(labels.get(digest, {}), digest)}
        | {name: value for name, value in asdict(failure).items() if name != "traceback"}
        for digest, failure in run.failures().items()
    ]
    results, unreadable = read_results(folder, verify=True)
    for digest, reason in unreadable.items():
        name = _name_of(labels.get(digest, {}), digest)
        failures.append({"name": name, "error": "unreadable", "message": reason, "host": "", "time": ""})
    if not results:
        raise run.without_results()
    dataset = assemble(results, in_memory=True, without=NOT_SHOWN)
    experiment, command, sweep = _origin(manifest.description, Path(folder))
    return dataset, Provenance(
        experiment=experiment,
        folder=str(folder),
        command=command,
        sweep=sweep,
        counts=asdict(run.counts()),
        failures=failures,
        jobs={result.metadata["digest"]: _stamp(result) for result in results},
        versions=_versions(dataset),
    )


def _origin(description: Mapping[str, Any], folder: Path) -> tuple[str | None, str | None, str | None]:
    """Return the experiment, the command that runs it, and the text of a user's sweep; None if not known."""
    name, sweep = description.get("experiment"), description.get("sweep")
    # The user chose the folder's name; it may contain any characters.
    out = shlex.quote(folder.resolve().name)
    if isinstance(name, str) and name in EXPERIMENTS:
        preset = shlex.quote(str(description.get("preset", "quick")))
        return name, f"rankscope run {name} --preset {preset} --out {out}", None
    if isinstance(sweep, str):
        return None, f"rankscope run sweep.yaml --out {out}", sweep
    return None, None, None


def _versions(dataset: xr.Dataset) -> dict[str, str]:
    return {name: str(dataset.attrs[name]) for name in VERSIONS if name in dataset.attrs}


def _name_of(labels: Mapping[str, Any], digest: str) -> str:
    """Return the name of the network of a job with these labels, or else its digest."""
    named = {name: value for name, value in labels.items() if name != "kind"}
    return network_name(named) if named else digest


def _stamp(result: StoredDataset) -> dict[str, Any]:
    found = {name: result.attrs[name] for name in ("digest", "finished") if isinstance(result.attrs.get(name), str)}
    if isinstance(result.attrs.get("training_seconds"), float):
        found["seconds"] = result.attrs["training_seconds"]
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        found["job"] = json.loads(result.attrs["job"])
    return found
