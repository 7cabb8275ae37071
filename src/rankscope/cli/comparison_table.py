"""The tables of `inspect` on a terminal: matrices that were compared, and tensors that were skipped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rankscope.cli.output import console

if TYPE_CHECKING:
    from rankscope.checkpoints import ComparedMatrix, Comparison
    from rankscope.checkpoints.pairs import Skipped

HEADINGS = ("|dW|\n/|W0|", "cos\nW0", "stable\nrank", "90\n%", "95\n%", "99\n%", "above\nround.", "stand\nout")
INTRUDERS = ("in-\ntruders", "of\n|W|^2")
NO_BULK, UNKNOWN = "-", "?"


def print_comparison(compared: Comparison) -> None:
    """Print a row for each matrix, what the columns mean, and the skipped tensors by reason."""
    if compared.matrices:
        _print_matrices(compared.matrices)
    else:
        console().print("No matrix with a change that can be measured.")
    if compared.note:
        console().print(printable(compared.note), highlight=False)
    print_skipped(compared.skipped)


def _print_matrices(matrices: tuple[ComparedMatrix, ...]) -> None:
    from rich import box
    from rich.table import Table

    screen = console()
    known = any(matrix.initial_norm is not None for matrix in matrices)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    start, end = _common(matrices)
    table.add_column("matrix", overflow="fold")
    table.add_column("shape", justify="right", no_wrap=True)
    headings = HEADINGS if known else ("|dW|", *HEADINGS[2:])
    counted = any(matrix.measures.intruders is not None for matrix in matrices)
    for heading in (*headings, *INTRUDERS) if counted else headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for matrix in matrices:
        name = matrix.name.removeprefix(start).replace(end, "") if end else matrix.name.removeprefix(start)
        measures = matrix.measures
        number, share = ("-" if one is None else f"{one:.2g}" for one in (measures.intruders, measures.intruder_share))
        table.add_row(printable(name), *_cells(matrix, known), *((number, share) if counted else ()))
    screen.print(table)
    meanings = [
        "90, 95, 99 %: directions with that share of |dW|^2",
        "above round.: directions above the rounding of the weights",
        "stand out: out of the flat bulk that the others form",
    ]
    if counted:
        meanings.append("intruders: of the ten leading left singular vectors of W, those that none of W0 resembles")
    cells = {matrix.measures.flat_bulk for matrix in matrices}
    if False in cells:
        meanings.append(f"{NO_BULK}: no flat bulk, see 90, 95, 99 %")
    if None in cells:
        meanings.append(f"{UNKNOWN}: more than are listed (--exact computes all)")
    if start or end:
        meanings.append("names without " + " and ".join(repr(text) for text in (start, end) if text))
    screen.print("; ".join(map(printable, meanings)), highlight=False)
    errors = [m.measures for m in matrices if m.measures.method == "randomized"]
    if errors:
        worst = max(m.singular_value_error / m.singular_values[0] for m in errors)
        screen.print(
            f"{len(errors)} large matrices by randomized SVD: listed values within {worst:.1e} of the largest "
            "(--exact computes all)",
            highlight=False,
        )


def _common(matrices: tuple[ComparedMatrix, ...]) -> tuple[str, str]:
    """Return what all names begin with, up to a point, and the ending of weights, if there are several names."""
    from rankscope.checkpoints.names import common_start

    names = {matrix.tensor for matrix in matrices}
    if len(names) < 2:
        return "", ""
    return common_start(names), ".weight" if all(name.endswith(".weight") for name in names) else ""


def _cells(matrix: ComparedMatrix, known: bool) -> list[str]:
    measures: Any = matrix.measures
    ranks = []
    for name in ("rank_90", "rank_95", "rank_99", "numerical_rank"):
        least, most = getattr(measures, f"{name}_bounds")
        ranks.append(str(least) if least == most else f"{least}..{most}")
    relative, cosine = matrix.relative_norm, measures.initial_cosine
    if measures.flat_bulk:
        standing_out = str(measures.standing_out)
    else:
        standing_out = UNKNOWN if measures.flat_bulk is None else NO_BULK
    sizes = (
        ["-" if relative is None else f"{relative:.2g}", "-" if cosine is None else f"{round(cosine, 2) + 0.0:.2f}"]
        if known
        else [f"{measures.norm:.3g}"]
    )
    return ["x".join(map(str, matrix.shape)), *sizes, f"{measures.stable_rank:.1f}", *ranks, standing_out]


def print_skipped(skipped: Iterable[Skipped]) -> None:
    """Print the skipped tensors by reason."""
    from rich import box
    from rich.table import Table

    by_reason: dict[str, list[str]] = {}
    for one in skipped:
        by_reason.setdefault(one.reason, []).append(one.name)
    if by_reason:
        table = Table("skipped", "", "reason", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for reason, names in by_reason.items():
            shown = ", ".join(map(printable, names[:3])) + (", ..." if len(names) > 3 else "")
            table.add_row(str(len(names)), shown, printable(reason))
        console().print(table)


def printable(text: str) -> str:
    """Return text of an untrusted file without markup and control characters."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))
