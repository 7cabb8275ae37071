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


def print_results(folder: Path, dataset: xr.Dataset) -> None:
    """Print one line for each combination of the labels that vary, and the commands that go on from here."""
    headings, rows = results_table(dataset)
    if len(headings) > 2 or len(rows) > 1:
        print_table(headings, rows[:MOST_ROWS], right=headings)
    if len(rows) > MOST_ROWS:
        print_lines(f"and {len(rows) - MOST_ROWS} more: rankscope export {folder} --out results.csv")
    print_lines(*(f"warning: {text}" for text in dataset.attrs.get("warnings", ())))
    print_lines(f"report: rankscope report {folder} --out report.html")


def results_table(dataset: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows: labels, number of networks, and mean and standard deviation over samples.

    A mean is that of the networks that have the quantity; their number is given where it is not all of them.
    """
    from rankscope.sweep.export import scalars_of

    frame = scalars_of(dataset)
    labels = [str(name) for name in dataset["status"].dims if name != OVER]
    shown = [name for name in QUANTITIES if name in frame.columns and frame[name].notna().any()]
    spread = " (mean ± std)" if OVER in dataset["status"].dims else ""
    groups = [((), frame)] if not labels else list(frame.groupby(labels, sort=False, dropna=False))
    rows = [
        [
            *(f"{value:g}" if isinstance(value, float) else str(value) for value in _listed(key)),
            str(len(group)),
            *(_text(group[name]) for name in shown),
        ]
        for key, group in groups
    ]
    return [*labels, "networks", *(QUANTITIES[name] + spread for name in shown)], rows


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
