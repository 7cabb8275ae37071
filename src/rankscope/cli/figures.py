"""Commands that compare a run with the paper: figure, check."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankscope.cli.app import JsonFlag, app, comma_separated
from rankscope.cli.output import print_files, print_json, print_lines, print_table
from rankscope.cli.train import assignments
from rankscope.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

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
    name: Annotated[
        str,
        typer.Argument(
            help="A named experiment (`rankscope experiments`), `sweep` for a run of any other kind, or `anatomy` or "
            "`flow` for one network of a run with this measurement."
        ),
    ],
    folder: FromOption,
    out: Annotated[Path, typer.Option(help="File to write: .png, .pdf or .svg.")],
    select: SelectOption = None,
    x: Annotated[str | None, typer.Option(metavar="LABEL", help="Label along the horizontal axis (`sweep`).")] = None,
    color: Annotated[str | None, typer.Option(metavar="LABEL", help="Label shown by color (`sweep`).")] = None,
    panels: Annotated[str | None, typer.Option(metavar="LABEL", help="Label with a column a value (`sweep`).")] = None,
    show: Annotated[
        list[str] | None, typer.Option(metavar="NAME,...", help="Scalars to draw, such as functional_rank (`sweep`).")
    ] = None,
    block: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Matrix, or gate in brackets. [default: the first] (`anatomy`)"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw the figure of an experiment, of any sweep, or of one network, from a run."""
    from rankscope.experiments import EXPERIMENTS
    from rankscope.figures import FIGURES, anatomy, flow, save_figure, sweep
    from rankscope.figures.saving import figure_paths
    from rankscope.validation import choice

    figure_paths(out)
    choice("name", name, [*EXPERIMENTS, "sweep", "anatomy", "flow"])
    if block is not None and name != "anatomy":
        raise InputError(f"--block must be given with the figure 'anatomy', got it with {name!r}")
    if name == "sweep":
        shown = None if show is None else comma_separated(show)
        drawn = sweep(_selected(folder, select), x, color, panels, shown)
    else:
        options = {"--x": x, "--color": color, "--panels": panels, "--show": show}
        given = [option for option, value in options.items() if value is not None]
        if given:
            raise InputError(f"{', '.join(given)} must be given with the figure 'sweep', got it with {name!r}")
        run = _selected(folder, select)
        if name == "anatomy":
            print_files(save_figure(anatomy(run, block), out), as_json)
            return
        if name == "flow":
            print_files(save_figure(flow(run), out), as_json)
            return
        EXPERIMENTS[name].check_axes(run)
        drawn = FIGURES[EXPERIMENTS[name].figure](run)
    print_files(save_figure(drawn, out), as_json)


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
    from rankscope.experiments import EXPERIMENTS
    from rankscope.experiments.claims import UNDECIDED, agreement_claim
    from rankscope.validation import choice

    named = EXPERIMENTS[choice("experiment", experiment, EXPERIMENTS)]
    further = []
    if reference is not None:
        if not reference.is_file():
            raise InputError(f"reference must be a JSON file, got {str(reference)!r}, which does not exist")
        further = [agreement_claim(reference)]
    rows = named.verdicts(_selected(folder, select), *further)
    if as_json:
        print_json(rows)
    else:
        decided = [row for row in rows if row["verdict"] != UNDECIDED]
        if decided:
            print_table(("claim", "statement", "paper", "measured", "verdict"), [list(row.values()) for row in decided])
            counts = Counter(row["verdict"] for row in decided)
            print_lines(", ".join(f"{number} {verdict}" for verdict, number in counts.items()))
        left = [row["claim"] for row in rows if row["verdict"] == UNDECIDED]
        if left:
            print_lines(f"{len(left)} {UNDECIDED}: {'; '.join(left)}")
    if any(row["verdict"] == "fails" for row in rows):
        raise typer.Exit(1)


def _selected(folder: Path, select: list[str] | None) -> xr.Dataset:
    """Return the measurements of a run at the labels of --select."""
    import numpy as np

    from rankscope.sweep import open_run
    from rankscope.validation import choice

    measured = open_run(folder)
    for name, value in assignments("--select", select or []).items():
        if name in measured.coords and measured[name].ndim == 0:
            measured = measured.expand_dims(name)
        values = measured[choice("--select", name, [str(dim) for dim in measured["status"].dims])].values
        is_number = isinstance(value, int | float) and values.dtype.kind in "iuf"
        at = np.flatnonzero(np.isclose(values, value) if is_number else values.astype(str) == str(value))
        if not at.size:
            raise InputError(f"--select {name} must be one of {', '.join(map(str, values))}, got {value!r}")
        measured = measured.isel({name: at[0]})
    return measured
