"""The command `extract`: the change between two checkpoints as a LoRA adapter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankscope.cli.app import JsonFlag, app, comma_separated
from rankscope.cli.checkpoints import WEIGHTS, KeyOption, PrefixOption, RenameOption, renaming, tensor_bar
from rankscope.cli.comparison_table import printable
from rankscope.cli.output import console, print_json

if TYPE_CHECKING:
    from rankscope.checkpoints import LowRankFactors


@app.command()
def extract(
    before: Annotated[Path, typer.Argument(help=f"The weights before learning. {WEIGHTS}.")],
    after: Annotated[Path, typer.Argument(help="After learning.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    rank: Annotated[
        str,
        typer.Option(
            help="Directions of each matrix: a number, energy:0.99 for that share of |dW|^2, or auto for those that "
            "stand out of the noise (for 99 % where there is no flat noise)."
        ),
    ] = "auto",
    layers: Annotated[
        str | None,
        typer.Option(help="Weights or patterns, separated by commas, such as '*.q_proj.weight'.", show_default="all"),
    ] = None,
    transposed: Annotated[
        str | None,
        typer.Option(
            help="Weights of transformers' Conv1D, (in, out), as for --layers; not needed for a model of transformers "
            "with its config.json.",
            show_default=False,
        ),
    ] = None,
    key: KeyOption = None,
    prefix: PrefixOption = None,
    rename: RenameOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the adapter in the folder.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the change between two checkpoints as a LoRA adapter that PEFT loads."""
    from rankscope.checkpoints import low_rank_factors
    from rankscope.checkpoints.adapter_folder import check_free

    check_free(out, overwrite)
    with tensor_bar() as on_progress:
        factors = low_rank_factors(
            before,
            after,
            int(rank) if rank.isascii() and rank.isdigit() else rank,
            layers=None if layers is None else comma_separated([layers]),
            transposed=() if transposed is None else comma_separated([transposed]),
            key=key,
            prefix=prefix,
            rename=renaming(rename or []),
            on_progress=on_progress,
        )
    folder = factors.save(out, overwrite)
    if as_json:
        print_json(
            {
                "matrices": [asdict(one) for one in factors.matrices()],
                "left_out": [one._asdict() for one in factors.left_out],
                "folder": str(folder),
            }
        )
        return
    _print_tables(factors)
    console().print(printable(str(folder)), soft_wrap=True, highlight=False)


def _print_tables(factors: LowRankFactors) -> None:
    from rich.table import Table

    screen = console()
    table = Table()
    table.add_column("matrix", overflow="fold")
    for heading in ("rank", "of |dW|^2", "MB"):
        table.add_column(heading, justify="right")
    matrices = factors.matrices()
    for one in matrices:
        mark = "" if one.format == "PEFT" else " *"
        table.add_row(printable(one.name) + mark, str(one.rank), percent(one.share), f"{one.megabytes:.3g}")
    table.add_section()
    table.add_row(f"{len(matrices)} matrices", "", "", f"{sum(one.megabytes for one in matrices):.3g}")
    screen.print(table)
    own: dict[str, list[str]] = {}
    for one in matrices:
        if one.reason:
            own.setdefault(one.reason, []).append(one.name)
    for reason, names in own.items():
        screen.print(
            f"* {_some(names)}: not in PEFT's format but in a file of rankscope beside it: {printable(reason)}",
            highlight=False,
        )
    left: dict[str, list[str]] = {}
    for skipped in factors.left_out:
        left.setdefault(skipped.reason, []).append(skipped.name)
    if left:
        screen.print(f"{len(factors.left_out)} tensors changed and are not in the adapter:", highlight=False)
        rest = Table("changed", "", "reason")
        for reason, names in left.items():
            rest.add_row(str(len(names)), _some(names), printable(reason))
        screen.print(rest)


def percent(share: float) -> str:
    """Return a share in percent; one below 1 is never rounded to 100."""
    text = f"{100 * share:.1f} %"
    return "> 99.9 %" if text == "100.0 %" and share < 1 - 1e-6 else text


def _some(names: list[str]) -> str:
    return ", ".join(map(printable, names[:3])) + (", ..." if len(names) > 3 else "")
