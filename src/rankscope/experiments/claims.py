"""Claims: statements of the paper that a run can confirm or contradict.

A claim is data: a name, a sentence, the paper's value, and a function from the Dataset of a run to what was measured
and whether the sentence holds. A claim about something that the run does not contain (a preset without that gain, say)
has no verdict.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.errors import InputError


@dataclass(frozen=True)
class Finding:
    """What was measured, as text, and whether the claim holds; None where the run cannot say."""

    measured: str
    holds: bool | None


@dataclass(frozen=True)
class Claim:
    """One checkable statement."""

    name: str
    statement: str
    paper: str
    check: Callable[[xr.Dataset], Finding]


NOT_IN_THIS_RUN = Finding("not in this run", None)


def check_claims(claims: tuple[Claim, ...], dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Return a row for every claim: name, statement, paper, measured, verdict ("holds", "fails", "not in this run")."""
    words = {True: "holds", False: "fails", None: "not in this run"}
    rows = []
    for claim in claims:
        finding = claim.check(dataset)
        rows.append(
            {
                "claim": claim.name,
                "statement": claim.statement,
                "paper": claim.paper,
                "measured": finding.measured,
                "verdict": words[finding.holds],
            }
        )
    return rows


def values(dataset: xr.Dataset, variable: str, **where: Any) -> NDArray[np.float64]:
    """Return the finite values of a variable over the samples at one place of the grid; none if it is not there."""
    selected = dataset[variable]
    for name, value in where.items():
        if name not in selected.dims:
            held = dataset[name].item() if name in dataset.coords else None
            if held != value:
                return np.empty(0)
            continue
        at = np.flatnonzero(
            np.isclose(selected[name], value) if isinstance(value, float) else selected[name].values == value
        )
        if not at.size:
            return np.empty(0)
        selected = selected.isel({name: at[0]})
    found = np.asarray(selected.values, dtype=np.float64).ravel()
    finite: NDArray[np.float64] = found[np.isfinite(found)]
    return finite


def mean_and_error(found: NDArray[np.float64]) -> str:
    """Return "mean ± standard error" in readable digits."""
    if found.size < 2:
        return f"{found.mean():.3g}"
    return f"{found.mean():.3g} ± {standard_error(found):.2g}"


def standard_error(found: NDArray[np.float64]) -> float:
    """Return the standard error of the mean; 0 of a single value, of which nothing is known."""
    return float(found.std(ddof=1) / np.sqrt(found.size)) if found.size > 1 else 0.0


def agreement_claim(reference: Path) -> Claim:
    """Return the claim that a run agrees with the results of an independent implementation.

    Parameters
    ----------
    reference
        A JSON file: a list of objects with task, gain, convergence_epoch, change_norm, functional_rank and
        shuffled_loss_relative, one for each network of 256 units.
    """
    return Claim(
        "agreement",
        "all means agree with an independent implementation at N = 256 (nine in ten within two standard errors)",
        "the independent implementation's",
        lambda dataset: agreement(dataset, reference),
    )


def agreement(dataset: xr.Dataset, reference: Path) -> Finding:
    """Compare with an independent implementation: every quantity, task and gain that both have, at N = 256.

    Holds if nine in ten of the differences are below two of their standard errors, and none is above four: of so many
    comparisons some are expected beyond two.
    """
    if 256 not in np.atleast_1d(dataset["hidden_size"].values):
        return NOT_IN_THIS_RUN
    try:
        theirs = json.loads(reference.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{reference} must be the reference results in JSON, got {error}") from error
    names = {
        "convergence_epoch": "convergence_epoch",
        "change_norm": "change_norm",
        "functional_rank": "functional_rank",
        "shuffled_loss": "shuffled_loss_relative",
    }
    z: dict[str, float] = {}
    for task, gain in sorted({(row["task"], row["gain"]) for row in theirs}):
        for ours_name, their_name in names.items():
            a = values(dataset, ours_name, task=task, gain=gain)
            b = np.array([row[their_name] for row in theirs if (row["task"], row["gain"]) == (task, gain)], float)
            if a.size >= 3 and b.size >= 3:
                spread = np.hypot(a.std(ddof=1) / np.sqrt(a.size), b.std(ddof=1) / np.sqrt(b.size))
                difference = a.mean() - b.mean()
                z[f"{task} g={gain:g} {ours_name}"] = (
                    float(difference / spread) if spread > 0 else (np.inf if difference else 0.0)
                )
    if not z:
        return NOT_IN_THIS_RUN
    beyond = {name: value for name, value in z.items() if abs(value) >= 2}
    listed = "; ".join(f"{name}: {value:+.1f}" for name, value in beyond.items())
    text = f"{len(z) - len(beyond)} of {len(z)} within 2 standard errors" + (f" (beyond: {listed})" if listed else "")
    return Finding(text, len(beyond) <= 0.1 * len(z) and all(abs(value) < 4 for value in z.values()))
