"""Everything a page shows of a run, as plain values that JSON can hold.

Nothing here knows of HTML: the tests look at what this returns, and the scripts of the page draw it.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray as xr

from rankscope.errors import InputError
from rankscope.experiments import EXPERIMENTS
from rankscope.experiments.claims import check_claims
from rankscope.report import overview
from rankscope.report.labels import dimension_title, scalar_title, value_text
from rankscope.report.networks import label_dims, networks_of, scalar_names
from rankscope.report.packing import unpack
from rankscope.report.provenance import Provenance, of_dataset


def collect(dataset: xr.Dataset, provenance: Provenance | None = None) -> dict[str, Any]:
    """Return what a page shows of a run.

    Parameters
    ----------
    dataset
        Everything measured, as `rankscope.open_run` returns it.
    provenance
        What else is known of the run.

    Returns
    -------
    dict
        `title`, `lead`; `common` (labels that all networks share); `dimensions`, `main`, `panels`, `groups` (as in
        `report.overview`); `scalars` (name, title); `networks` (as in `report.networks`, with `digest`, `finished`,
        `seconds` and `cell` where known); `diverged` (name and reason of networks that did);
        `statuses` (how many networks ended how); `claims` (rows of
        `rankscope check`); `provenance`.

    Raises
    ------
    InputError
        If the dataset is not that of a run, or holds no network that was trained.
    """
    known = of_dataset(dataset) if provenance is None else provenance
    networks = networks_of(dataset)
    for network in networks:
        network |= known.cells.get(network["seed"] or "", {})
    described = overview.dimensions(dataset)
    title, lead = _title(known, networks)
    return {
        "title": title,
        "lead": lead,
        "common": _common(dataset),
        "dimensions": described,
        "main": overview.main_dimension(described),
        "panels": overview.panels(dataset),
        "groups": overview.groups(dataset),
        "scalars": [{"name": name, "title": scalar_title(name, dataset)} for name in scalar_names(dataset)],
        "networks": networks,
        "diverged": _diverged(networks),
        "statuses": dict(Counter(network["status"] for network in networks)),
        "claims": _claims(known.experiment, dataset),
        "provenance": {
            "folder": known.folder,
            "command": known.command,
            "sweep": known.sweep,
            "experiment": known.experiment,
            "counts": known.counts,
            "failures": known.failures,
            "versions": known.versions,
            "finished": _dates(networks),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def _title(known: Provenance, networks: list[dict[str, Any]]) -> tuple[str, str]:
    count = f"{len(networks)} network{'' if len(networks) == 1 else 's'}"
    if known.experiment is not None:
        return f"Experiment {known.experiment}", f"{EXPERIMENTS[known.experiment].description}. {count} in this page."
    return "Run of a sweep" if known.sweep else "Run", f"{count} in this page."


def _common(dataset: xr.Dataset) -> list[dict[str, str]]:
    """Return the labels that all networks share, as texts."""
    names = [str(name) for name, values in dataset.coords.items() if values.ndim == 0 and name != "seed"]
    if "seed" in dataset.variables and not label_dims(dataset):
        names.append("seed")
    return [{"title": dimension_title(name), "text": value_text(name, dataset[name].values.item())} for name in names]


def _claims(experiment: str | None, dataset: xr.Dataset) -> list[dict[str, str]]:
    """Return the rows of `rankscope check`; a claim that a partial run has nothing for is not in this run."""
    if experiment is None:
        return []
    rows = []
    for claim in EXPERIMENTS[experiment].claims:
        try:
            rows += check_claims((claim,), dataset)
        except (InputError, KeyError) as error:
            reason = f"cannot be checked: {error}"
            values = (claim.name, claim.statement, claim.paper, reason, "not in this run")
            rows.append(dict(zip(("claim", "statement", "paper", "measured", "verdict"), values, strict=True)))
    return rows


def _diverged(networks: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the networks whose training left the finite numbers, and when it did."""
    rows = []
    for network in networks:
        if network["status"] == "diverged":
            finite = unpack(network["loss"])[0] if "loss" in network else np.empty(0)
            when = f" at epoch {int(finite[-1]) + 1} or just before" if finite.size else ""
            reason = f"the loss or the gradient was no longer a finite number{when}"
            rows.append({"name": network["name"], "reason": reason})
    return rows


def _dates(networks: list[dict[str, Any]]) -> list[str]:
    """Return when the first and the last network was finished, or nothing."""
    dates = sorted(network["finished"] for network in networks if "finished" in network)
    return [dates[0], dates[-1]] if dates else []
