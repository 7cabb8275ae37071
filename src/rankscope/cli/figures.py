"""Commands that compare a run with the paper: figure, check."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankscope.cli.app import JsonFlag, app
from rankscope.cli.output import print_files, print_json, print_lines, print_table
from rankscope.cli.train import assignments
from rankscope.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from rankscope.experiments import Experiment

FromOption = Annotated[Path, typer.Option("--from", help="Folder of a run.")]
SelectOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Use only the networks with this label, such as learning_rate=0.004; may be repeated.",
    ),
]


@app.command()
def figure(
    experiment: Annotated[
        str, typer.Argument(help="A named experiment; for a sweep of your own, one that varies the same options.")
    ],
    folder: FromOption,
    out: Annotated[Path, typer.Option(help="File to write: .png, .pdf or .svg.")],
    select: SelectOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw the figure of an experiment from a run."""
    from rankscope.figures import FIGURES, save_figure
    from rankscope.figures.saving import figure_paths

    named = _experiment(experiment)
    figure_paths(out)
    print_files(save_figure(FIGURES[named.figure](_selected(folder, named, select)), out), as_json)


@app.command()
def check(
    experiment: Annotated[str, typer.Argument(help="A named experiment (`rankscope experiments`).")],
    folder: FromOption,
    select: SelectOption = None,
    reference: Annotated[
        Path | None, typer.Option(help="Results of an independent implementation (JSON) to compare with.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare a run with the paper's claims; exit status 1 if one fails."""
    from rankscope.experiments.claims import agreement_claim, check_claims

    named = _experiment(experiment)
    claims = named.claims
    if reference is not None:
        if not reference.is_file():
            raise InputError(f"reference must be a JSON file, got {str(reference)!r}, which does not exist")
        claims = (*claims, agreement_claim(reference))
    rows = check_claims(claims, _selected(folder, named, select))
    if as_json:
        print_json(rows)
    else:
        print_table(("claim", "statement", "paper", "measured", "verdict"), [list(row.values()) for row in rows])
        print_lines(", ".join(f"{n} {verdict}" for verdict, n in Counter(row["verdict"] for row in rows).items()))
    if any(row["verdict"] == "fails" for row in rows):
        raise typer.Exit(1)


def _experiment(name: str) -> Experiment:
    from rankscope.experiments import EXPERIMENTS
    from rankscope.validation import choice

    return EXPERIMENTS[choice("experiment", name, EXPERIMENTS)]


def _selected(folder: Path, experiment: Experiment, select: list[str] | None) -> xr.Dataset:
    """Return the measurements of a run at the labels of --select, over no other labels than the experiment varies."""
    import numpy as np

    from rankscope.sweep import open_run
    from rankscope.validation import choice

    measured = open_run(folder)
    labels = [str(name) for name in measured["status"].dims]
    for name, value in assignments("--select", select or []).items():
        values = measured[choice("--select", name, labels)].values
        is_number = isinstance(value, int | float) and values.dtype.kind in "iuf"
        at = np.flatnonzero(np.isclose(values, value) if is_number else values.astype(str) == str(value))
        if not at.size:
            raise InputError(f"--select {name} must be one of {', '.join(map(str, values))}, got {value!r}")
        measured = measured.isel({name: at[0]})
    varied = {"task", "gain", "hidden_size", "kind"}.union(*(job.labels for job in experiment.jobs("quick")))
    for label in map(str, measured["status"].dims):
        if label not in varied:
            raise InputError(
                f"{experiment.name} compares networks with one {label}, got a run with "
                f"{', '.join(map(str, measured[label].values))}; choose one with --select {label}=VALUE"
            )
    return measured
