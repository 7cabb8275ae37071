"""The command `inspect`: compare two checkpoints of any PyTorch model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankscope.cli.app import JsonFlag, app, comma_separated
from rankscope.cli.output import console, print_json
from rankscope.errors import InputError

if TYPE_CHECKING:
    from rankscope.checkpoints import ComparedMatrix, Comparison

HEADINGS = (
    "shape",
    "|dW|",
    "/ |W0|",
    "s1",
    "stable\nrank",
    "90 %",
    "95 %",
    "99 %",
    "numerical\nrank",
    "random\nedge",
    "above\nit",
    "stand\nout",
)
WEIGHTS = "A .safetensors, torch.save, .npz or .npy file, an index of shards, or a folder with one of these"


@app.command()
def inspect(
    before: Annotated[Path, typer.Argument(help=f"The weights before learning. {WEIGHTS}.")],
    after: Annotated[
        Path | None,
        typer.Argument(
            help="After learning, or a LoRA adapter. Omit it if the first file holds both, or is an adapter."
        ),
    ] = None,
    heads: Annotated[
        int | None, typer.Option(help="Number of attention heads, to measure each of them too.", show_default=False)
    ] = None,
    gates: Annotated[bool, typer.Option(help="Also measure each gate of an RNN, GRU or LSTM.")] = True,
    layers: Annotated[
        str | None,
        typer.Option(help="Weights or patterns, separated by commas, such as '*.q_proj.weight'.", show_default="all"),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="State dict to take of a file that holds several: 'model_ema'.", show_default=False),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Beginning of names to ignore, such as 'model.', in both.", show_default=False)
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(help="OLD=NEW: replace a text in the names of both; may be given again.", show_default=False),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compute all singular values of large matrices too (slow).")
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Table to write, one row for each matrix.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figure to write: .png, .pdf or .svg.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Report how each weight matrix changed between two checkpoints, and in how many directions."""
    from rankscope.checkpoints import inspect as compare_files
    from rankscope.figures.saving import figure_paths, save_figure

    if out is not None:
        figure_paths(out)
    with tensor_bar() as on_progress:
        compared = compare_files(
            before,
            after,
            gates=gates,
            heads=heads,
            layers=None if layers is None else comma_separated([layers]),
            key=key,
            prefix=prefix,
            rename=_renaming(rename or []),
            exact=exact,
            on_progress=on_progress,
        )
    files = [] if csv is None else [compared.write_csv(csv)]
    if out is not None:
        from rankscope.figures.checkpoints import checkpoints

        files += save_figure(checkpoints(compared.to_dataframe()), out)
    if as_json:
        rows = [matrix.row() for matrix in compared.matrices]
        skipped = [one._asdict() for one in compared.skipped]
        print_json(
            {
                "matrices": rows,
                "skipped": skipped,
                "note": compared.note,
                "files": [str(path) for path in files],
            }
        )
        return
    _print_tables(compared)
    for path in files:
        console().print(str(path), soft_wrap=True, highlight=False)


def _renaming(given: list[str]) -> dict[str, str]:
    """Return texts and their replacements from OLD=NEW."""
    for text in given:
        if "=" not in text[1:]:
            raise InputError(f"--rename must be OLD=NEW, got {text!r}")
    return {old: new for old, _, new in (text.partition("=") for text in given)}


def _print_tables(compared: Comparison) -> None:
    from rich.table import Table

    screen = console()
    table = Table()
    table.add_column("matrix", overflow="fold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for matrix in compared.matrices:
        table.add_row(*_cells(matrix))
    if compared.matrices:
        screen.print(table)
        screen.print(
            "90, 95, 99 %: directions with that share of |dW|^2; numerical rank: above rounding; random edge: largest "
            "singular value of a random change of that size and norm; stand out: above the noise without them",
            highlight=False,
        )
        errors = [m for m in compared.matrices if m.measures.method == "randomized"]
        if errors:
            worst = max(m.measures.singular_value_error / m.measures.singular_values[0] for m in errors)
            screen.print(
                f"{len(errors)} large matrices by randomized SVD: listed values within {worst:.1e} of the largest "
                "(--exact computes all)",
                highlight=False,
            )
    else:
        screen.print("No matrix with a change that can be measured.")
    if compared.note:
        screen.print(printable(compared.note), highlight=False)
    by_reason: dict[str, list[str]] = {}
    for one in compared.skipped:
        by_reason.setdefault(one.reason, []).append(one.name)
    if by_reason:
        skipped = Table("skipped", "", "reason")
        for reason, names in by_reason.items():
            shown = ", ".join(map(printable, names[:3])) + (", ..." if len(names) > 3 else "")
            skipped.add_row(str(len(names)), shown, printable(reason))
        screen.print(skipped)


def _cells(matrix: ComparedMatrix) -> list[str]:
    measures: Any = matrix.measures
    ranks = []
    for name in ("rank_90", "rank_95", "rank_99", "numerical_rank"):
        least, most = getattr(measures, f"{name}_bounds")
        ranks.append(str(least) if least == most else f"{least}..{most}")
    relative = matrix.relative_norm
    counts = (measures.above_random_edge, measures.standing_out)
    listed = len(measures.singular_values)
    return [
        printable(matrix.name),
        "x".join(map(str, matrix.shape)),
        f"{measures.norm:.3g}",
        "-" if relative is None else f"{relative:.2g}",
        f"{measures.singular_values[0]:.3g}",
        f"{measures.stable_rank:.1f}",
        *ranks,
        f"{measures.random_edge:.3g}",
        *(f"≥{listed}" if count is None else str(count) for count in counts),
    ]


def printable(text: str) -> str:
    """Return text of an untrusted file without markup and control characters."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


@contextmanager
def tensor_bar() -> Iterator[Callable[[int, int, str], None] | None]:
    """Yield on_progress(done, total, name) of a progress bar; None unless stderr is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("", total=None)

        def on_progress(done: int, total: int, name: str) -> None:
            bars.update(bar, completed=done, total=total, description=printable(name))

        yield on_progress
