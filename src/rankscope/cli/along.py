"""`rankscope inspect` of more than two checkpoints: their changes against the first, and the growth of directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankscope.cli.checkpoints import tensor_bar
from rankscope.cli.comparison_table import print_skipped, printable
from rankscope.cli.output import console, print_json, print_lines

if TYPE_CHECKING:
    from rankscope.checkpoints import Growth, Stage

DRAWN = 4


def inspect_along(
    paths: Sequence[Path],
    layers: Sequence[str] | None,
    key: str | None,
    prefix: str | None,
    rename: Mapping[str, str],
    exact: bool,
    csv: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare checkpoints with the first one, print a table for each matrix or JSON, and write a table and a figure."""
    from rankscope.checkpoints import compare_along

    with tensor_bar() as on_progress:
        growth = compare_along(
            paths, layers=layers, key=key, prefix=prefix, rename=rename, exact=exact, on_progress=on_progress
        )
    files = [] if csv is None else [growth.write_csv(csv)]
    if out is not None:
        from rankscope.figures.along import along
        from rankscope.figures.saving import save_figure

        files += save_figure(along(growth.to_dataframe(), growth.checkpoints[0]), out)
    if as_json:
        print_json(
            {
                "checkpoints": list(growth.checkpoints),
                "stages": [stage.row() for stage in growth.stages],
                "skipped": [one._asdict() for one in growth.skipped],
                "note": growth.note,
                "files": [str(path) for path in files],
            }
        )
        return
    _print_table(growth)
    print_lines(*files)


def _print_table(growth: Growth) -> None:
    from rich import box
    from rich.table import Table

    screen = console()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("matrix", overflow="fold")
    table.add_column("checkpoint", overflow="fold")
    for heading in ("|dW|", "|dW|\n/|W0|", "s1", "stable\nrank", "90\n%", "over-\nlap", "strength / last"):
        table.add_column(heading, justify="left" if "strength" in heading else "right", no_wrap=True)
    last = {stage.name: stage for stage in growth.stages}
    shown = None
    for stage in growth.stages:
        if shown not in (None, stage.name):
            table.add_section()
        table.add_row("" if shown == stage.name else printable(stage.name), *_cells(stage, last[stage.name]))
        shown = stage.name
    if growth.stages:
        screen.print(table)
        screen.print(
            f"changes from {printable(growth.checkpoints[0])}; overlap: fraction of the last change's directions among "
            f"the leading ones; strength / last: of each of these directions, the first {DRAWN} of them",
            highlight=False,
        )
    else:
        screen.print("No matrix with a change that can be followed.")
    if growth.note:
        screen.print(printable(growth.note), highlight=False)
    print_skipped(growth.skipped)


def _cells(stage: Stage, last: Stage) -> list[str]:
    measures = stage.measures
    strengths = [a / b for a, b in zip(stage.strengths, last.strengths, strict=True)]
    cells = [
        printable(stage.checkpoint),
        f"{stage.norm:.3g}",
        "-" if stage.relative_norm is None else f"{stage.relative_norm:.2g}",
    ]
    if measures is None:
        return [*cells, *"---", "-", "-"]
    least, most = measures.rank_90_bounds
    return [
        *cells,
        f"{measures.singular_values[0]:.3g}",
        f"{measures.stable_rank:.1f}",
        str(least) if least == most else f"{least}..{most}",
        f"{(stage.left_overlap + stage.right_overlap) / 2:.2f}",
        " ".join(f"{strength:.2f}" for strength in strengths[:DRAWN]),
    ]
