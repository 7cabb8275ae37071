"""Output of the commands: tables or JSON on stdout, progress bars on stderr if it is a terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console

WHOLE = ("hidden_size", "seed", "convergence_epoch", "functional_rank")
SCALARS = (
    "gain",
    *WHOLE,
    "initial_loss",
    "evaluation_loss",
    "change_norm",
    "trained_norm",
    "shuffled_loss",
    "average_gradient",
    "outlier",
    "learning_rate",
)


def summary(measured: xr.Dataset) -> dict[str, Any]:
    """Return the scalars of one network as plain values; None for those that do not exist."""
    row: dict[str, Any] = {"task": str(measured["task"].item()), "kind": str(measured["kind"].item())}
    for name in SCALARS:
        value = measured[name].item() if name in measured else None
        missing = value is None or (isinstance(value, float) and not math.isfinite(value))
        row[name] = None if missing else int(value or 0) if name in WHOLE else value
    return row | {"status": str(measured["status"].item())}


def print_summaries(rows: list[dict[str, Any]], files: list[Path], as_json: bool) -> None:
    """Print the scalars of networks and the paths of the files written."""
    if as_json:
        print_json({"networks": rows, "files": [str(path) for path in files]})
        return
    headings = ("task", "g", "N", "epochs to converge", "|dW|", "functional rank", "shuffled / initial loss", "status")
    print_table(headings, [_summary_cells(row) for row in rows], right=headings[1:-1])
    print_lines(*files)


def _summary_cells(row: dict[str, Any]) -> list[str]:
    def text(name: str, form: str, missing: str = "-") -> str:
        return missing if row[name] is None else format(row[name], form)

    return [
        row["task"],
        text("gain", "g"),
        text("hidden_size", "d"),
        text("convergence_epoch", "d", "never"),
        text("change_norm", ".3f"),
        text("functional_rank", "d", "none"),
        text("shuffled_loss", ".3f"),
        row["status"],
    ]


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> None:
    """Print a table; `right` names the headings of right-aligned columns."""
    from rich.table import Table

    table = Table()
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left")
    for row in rows:
        table.add_row(*map(str, row))
    console().print(table, markup=False)


def print_lines(*lines: object) -> None:
    """Print lines without wrapping or markup; control characters, which could steer the terminal, are escaped."""
    for line in lines:
        sys.stdout.write("".join(c if c.isprintable() else repr(c)[1:-1] for c in str(line)) + "\n")


def print_files(files: Sequence[Path], as_json: bool) -> None:
    """Print the paths of the files written."""
    if as_json:
        print_json({"files": [str(path) for path in files]})
    else:
        print_lines(*files)


def note(text: str) -> None:
    """Print one line about the work to come to stderr."""
    sys.stderr.write(f"{text}\n")


def print_json(value: Any) -> None:
    """Print one JSON value."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def console() -> Console:
    """Return a console on stdout."""
    from rich.console import Console

    # In a pipe rich would wrap at 80 columns and break a table that another program reads.
    return Console(width=None if sys.stdout.isatty() else 160)


@contextmanager
def progress_bars(descriptions: list[str]) -> Iterator[Callable[[int, int, int, float], None]]:
    """Yield report(index, done, total, loss), which updates one bar each on a terminal, else does nothing."""
    if not sys.stderr.isatty():
        yield lambda index, done, total, loss: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.2e}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        numbers = [bars.add_task(text, total=None, loss=math.nan) for text in descriptions]

        def report(index: int, done: int, total: int, loss: float) -> None:
            bars.update(numbers[index], completed=done, total=total, loss=loss)

        yield report


@contextmanager
def sweep_bar(title: str, networks: int) -> Iterator[Callable[[int, int, int, float], None] | None]:
    """Yield on_progress(index, done, total, loss) that updates one bar over all networks; None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[finished]} of {task.fields[networks]} networks"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task(title, total=networks, finished=0, networks=networks)
        shares: dict[int, float] = {}

        def on_progress(index: int, done: int, total: int, loss: float) -> None:
            shares[index] = done / total
            finished = sum(share == 1 for share in shares.values())
            bars.update(bar, completed=sum(shares.values()), finished=finished)

        yield on_progress
