"""Claims: statements of the paper that the results of a run confirm or contradict.

A claim is data: a name, a sentence, the paper's value, and a function from the Dataset of a run to a `Finding`. A claim
about networks that the run does not contain (a preset without that gain, for example) has no verdict.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rankscope.errors import InputError

Array = NDArray[np.float64]
NAMES = {"flipflop": "flip-flop", "mante": "Mante", "romo": "Romo"}
UNDECIDED = "not in this run"
VERDICTS = {True: "holds", False: "fails", None: UNDECIDED}


@dataclass(frozen=True)
class Finding:
    """The measured numbers, as text, and whether the claim holds; None if the run cannot tell."""

    measured: str
    holds: bool | None


NOT_IN_THIS_RUN = Finding(UNDECIDED, None)


@dataclass(frozen=True)
class Claim:
    """A checkable statement.

    Parameters
    ----------
    name, statement
        As in the table of `rankscope check`; placeholders in braces are filled in by `at`.
    paper
        The paper's value, or task -> value.
    check
        (dataset, **where) -> Finding.
    """

    name: str
    statement: str
    paper: str | Mapping[str, str]
    check: Callable[..., Finding]

    def at(self, **where: Any) -> Claim:
        """Return the claim at one place of the grid; `{task}` in the statement becomes the title of the task."""
        task = where.get("task")
        titles = where | {"task": NAMES.get(str(task), task)}
        paper = self.paper if isinstance(self.paper, str) else self.paper[str(task)]
        return Claim(self.name.format(**where), self.statement.format(**titles), paper, partial(self.check, **where))


def claim(name: str, statement: str, paper: str | Mapping[str, str]) -> Callable[[Callable[..., Finding]], Claim]:
    """Return a decorator that turns a check into a `Claim`."""
    return partial(Claim, name, statement, paper)


def all_of(found: Mapping[float, Any], text: Callable[[Any], str], holds: Callable[[Any], bool]) -> Finding:
    """Return the finding that something holds of the value at every gain, given gain -> value."""
    if not found:
        return NOT_IN_THIS_RUN
    texts = (f"{text(value)} at g = {gain:g}" for gain, value in found.items())
    return Finding(", ".join(texts), all(holds(value) for value in found.values()))


def check_claims(claims: tuple[Claim, ...], dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Return a row for every claim: name, statement, paper, measured, verdict ("holds", "fails", "not in this run")."""
    rows = []
    for one in claims:
        finding = one.check(dataset)
        row = {"claim": one.name, "statement": one.statement, "paper": one.paper}
        rows.append(row | {"measured": finding.measured, "verdict": VERDICTS[finding.holds]})
    return rows


def values(dataset: xr.Dataset, variable: str, **where: Any) -> Array:
    """Return the finite values of a variable at one place of the grid, over everything else; none if it is missing."""
    selected = _select(dataset, variable, where)
    found = np.empty(0) if selected is None else np.asarray(selected.values, dtype=np.float64).ravel()
    finite: Array = found[np.isfinite(found)]
    return finite


def rows(dataset: xr.Dataset, variable: str, along: str, **where: Any) -> list[Array]:
    """Return, for each network at one place of the grid, the finite values of a variable along a dimension."""
    selected = _select(dataset, variable, where)
    if selected is None:
        return []
    table = np.moveaxis(np.asarray(selected.values, dtype=np.float64), selected.get_axis_num(along), -1)
    finite = [row[np.isfinite(row)] for row in table.reshape(-1, table.shape[-1])]
    return [row for row in finite if row.size]


def by_gain(dataset: xr.Dataset, variable: str, **where: Any) -> dict[float, Array]:
    """Return gain -> `values`, for the gains of the run that have any."""
    found = {gain: values(dataset, variable, gain=gain, **where) for gain in gains_of(dataset)}
    return {gain: x for gain, x in found.items() if x.size}


def gains_of(dataset: xr.Dataset) -> list[float]:
    """Return the gains of a run; none if its networks have none, as gated networks."""
    return [float(gain) for gain in np.atleast_1d(dataset["gain"].values)] if "gain" in dataset.coords else []


def _select(dataset: xr.Dataset, variable: str, where: dict[str, Any]) -> xr.DataArray | None:
    """Return a variable at one place of the grid, or None if the run has no such variable or place."""
    if variable not in dataset:
        return None
    selected = dataset[variable]
    for name, value in where.items():
        if name not in selected.dims:
            if name not in dataset.coords or dataset[name].item() != value:
                return None
            continue
        labels = selected[name].values
        at = np.flatnonzero(np.isclose(labels, value) if isinstance(value, float) else labels == value)
        if not at.size:
            return None
        selected = selected.isel({name: at[0]})
    return selected


def mean_and_error(found: Array) -> str:
    """Return "mean ± standard error"."""
    return digits(float(found.mean()), 3) + (f" ± {digits(standard_error(found), 2)}" if found.size > 1 else "")


def digits(number: float, count: int) -> str:
    """Return a number with `count` significant digits, large ones without an exponent: 2700 rather than 2.7e+03."""
    return f"{float(f'{number:.{count}g}'):.0f}" if abs(number) >= 10**count else f"{number:.{count}g}"


def standard_error(found: Array) -> float:
    """Return the standard error of the mean; 0 for a single value."""
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
    """Compare a run with an independent implementation: every quantity, task and gain that both have, at N = 256.

    Holds if nine in ten of the differences are below two of their standard errors, and none is above four.
    """
    if 256 not in np.atleast_1d(dataset["hidden_size"].values):
        return NOT_IN_THIS_RUN
    try:
        theirs = json.loads(reference.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{reference} must be the reference results in JSON, got {error}") from error
    z: dict[str, float] = {}
    for task, gain in sorted({(row["task"], row["gain"]) for row in theirs}):
        for name in ("convergence_epoch", "change_norm", "functional_rank", "shuffled_loss"):
            key = "shuffled_loss_relative" if name == "shuffled_loss" else name
            a = values(dataset, name, task=task, gain=gain, hidden_size=256)
            b = np.array([row[key] for row in theirs if (row["task"], row["gain"]) == (task, gain)], float)
            b = b[np.isfinite(b)]
            if a.size >= 3 and b.size >= 3:
                z[f"{task} g={gain:g} {name}"] = _difference(a, b)
    if not z:
        return NOT_IN_THIS_RUN
    beyond = {name: value for name, value in z.items() if abs(value) >= 2}
    listed = "; ".join(f"{name}: {value:+.1f}" for name, value in beyond.items())
    text = f"{len(z) - len(beyond)} of {len(z)} within 2 standard errors" + (f" (beyond: {listed})" if listed else "")
    return Finding(text, len(beyond) <= 0.1 * len(z) and all(abs(value) < 4 for value in z.values()))


def _difference(a: Array, b: Array) -> float:
    """Return the difference of two means in units of its standard error."""
    difference, error = float(a.mean() - b.mean()), float(np.hypot(standard_error(a), standard_error(b)))
    if error == 0:
        return np.inf if difference else 0.0
    return difference / error
