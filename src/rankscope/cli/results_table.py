"""Table of the results of a run over its grid: mean and spread over samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.cli.output import print_lines, print_table

if TYPE_CHECKING:
    import xarray as xr

QUANTITIES = {
    "evaluation_loss": "loss",
    "score": "score",
    "change_norm": "|dW|",
    "functional_rank": "functional rank",
    "convergence_epoch": "epochs to converge",
}
MOST_ROWS = 30
OVER = "sample"
CONVERGED = "convergence_epoch"


def print_results(folder: Path, dataset: xr.Dataset) -> None:
    """Print one line for each combination of the labels that vary, and the commands that go on from here."""
    headings, rows = results_table(dataset)
    if len(headings) > 2 or len(rows) > 1:
        print_table(headings, rows[:MOST_ROWS], right=headings)
    if OVER in dataset["status"].dims and "converged" in headings:
        none = all(row[headings.index("converged")] == "0" for row in rows)
        print_lines(f"means over {'all networks, as none converged' if none else 'the networks that converged'}")
    if len(rows) > MOST_ROWS:
        print_lines(f"and {len(rows) - MOST_ROWS} more: rankscope export {folder} --out results.csv")
    print_lines(*(f"warning: {text}" for text in dataset.attrs.get("warnings", ())))
    print_lines(f"report: rankscope report {folder} --out report.html")


def results_table(dataset: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows: labels, number of networks, and mean and standard deviation over samples.

    As in the figures (`experiments.averages.averages_of`), a mean is that of the samples that converged, if any network
    of the run did. Of these it takes those that have the quantity; their number is given where it is not all of them.
    """
    from rankscope.sweep.export import scalars_of

    frame = scalars_of(dataset)
    labels = [str(name) for name in dataset["status"].dims if name != OVER]
    shown = [name for name in QUANTITIES if name in frame.columns and frame[name].notna().any()]
    several = OVER in dataset["status"].dims
    counted = CONVERGED in frame.columns
    some = several and counted and bool(frame[CONVERGED].notna().any())
    groups = [((), frame)] if not labels else list(frame.groupby(labels, sort=False, dropna=False))
    rows = []
    for key, group in groups:
        averaged = group[group[CONVERGED].notna()] if some else group
        rows.append(
            [
                *(f"{value:g}" if isinstance(value, float) else str(value) for value in _listed(key)),
                str(len(group)),
                *([str(group[CONVERGED].notna().sum())] if counted else ()),
                *(_text(averaged[name]) for name in shown),
            ]
        )
    spread = " (mean ± std)" if several else ""
    named = [*labels, "networks", *(["converged"] if counted else ())]
    return [*named, *(QUANTITIES[name] + spread for name in shown)], rows


def _listed(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _text(values: Any) -> str:
    found = values[values.map(math.isfinite)]
    if not len(found):
        return "-"
    text = f"{found.mean():.3g}"
    if len(found) > 1:
        text += f" ± {found.std():.2g}"
    return text if len(found) == len(values) else f"{text} ({len(found)} of {len(values)})"
