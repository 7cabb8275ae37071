"""Contents of a report as plain values that JSON can represent, without HTML."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray as xr

from rankscope.errors import InputError
from rankscope.experiments import EXPERIMENTS
from rankscope.experiments.claims import check_claims
from rankscope.figures.labels import label_title, value_text
from rankscope.report.comparison import comparison
from rankscope.report.networks import label_dims, networks_of
from rankscope.report.packing import unpack
from rankscope.report.provenance import Provenance, of_dataset


def collect(dataset: xr.Dataset, provenance: Provenance | None = None) -> dict[str, Any]:
    """Return the contents of the report of a run.

    Parameters
    ----------
    dataset
        All measurements, as `rankscope.open_run` returns them.
    provenance
        Further information on the run.

    Returns
    -------
    dict
        `title`, `lead`; `common` (labels that all networks share); the entries of `comparison`; `networks` (as in
        `report.networks`, with `digest`, `finished`, `seconds` and `job` if known); `diverged` (name and reason);
        `statuses` (number of networks by status); `warnings` (sentences that restrict what the numbers mean); `claims`
        (rows of `rankscope check`); `provenance`.

    Raises
    ------
    InputError
        If the dataset is not that of a run, or holds no trained network.
    """
    known = of_dataset(dataset) if provenance is None else provenance
    networks = networks_of(dataset)
    for network in networks:
        network |= known.jobs.get(network["digest"] or "", {})
    finished = sorted(network["finished"] for network in networks if "finished" in network)
    count = f"{len(networks)} network{'' if len(networks) == 1 else 's'}."
    if known.experiment is not None:
        title, lead = f"Experiment {known.experiment}", f"{EXPERIMENTS[known.experiment].description}. {count}"
    else:
        title, lead = "Sweep" if known.sweep else "Run", count
    return {
        "title": title,
        "lead": lead,
        "common": _common(dataset),
        **comparison(dataset),
        "networks": networks,
        "diverged": [_divergence(network) for network in networks if network["status"] == "diverged"],
        "statuses": dict(Counter(network["status"] for network in networks)),
        "warnings": list(dataset.attrs.get("warnings", ())),
        "claims": _claims(known.experiment, dataset),
        "provenance": {
            "folder": known.folder,
            "command": known.command,
            "sweep": known.sweep,
            "experiment": known.experiment,
            "counts": known.counts,
            "failures": known.failures,
            "versions": known.versions,
            "finished": [finished[0], finished[-1]] if finished else [],
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def _common(dataset: xr.Dataset) -> list[dict[str, str]]:
    """Return titles and values of the labels that all networks share."""
    names = [str(name) for name, values in dataset.coords.items() if values.ndim == 0 and name != "seed"]
    if "seed" in dataset.variables and not label_dims(dataset):
        names.append("seed")
    return [{"title": label_title(name), "text": value_text(name, dataset[name].values.item())} for name in names]


def _claims(name: str | None, dataset: xr.Dataset) -> list[dict[str, str]]:
    """Return the rows of `rankscope check`; a claim that a run cannot decide is "not in this run"."""
    if name is None:
        return []
    rows, experiment = [], EXPERIMENTS[name]
    for claim in experiment.claims:
        try:
            experiment.check_axes(dataset)
            rows += check_claims((claim,), dataset)
        except (InputError, KeyError) as error:
            reason = f"cannot be checked: {error}"
            values = (claim.name, claim.statement, claim.paper, reason, "not in this run")
            rows.append(dict(zip(("claim", "statement", "paper", "measured", "verdict"), values, strict=True)))
    return rows


def _divergence(network: dict[str, Any]) -> dict[str, str]:
    """Return name and reason of a network that diverged, with the epoch if it is known."""
    epochs = unpack(network["loss"])[0] if "loss" in network else np.empty(0)
    when = f" at epoch {int(epochs[-1]) + 1} or just before" if epochs.size else ""
    return {"name": network["name"], "reason": f"the loss or the gradient was not finite{when}"}
