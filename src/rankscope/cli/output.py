"""What the commands print: tables or JSON on stdout, progress bars on a terminal's stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def print_summaries(rows: list[dict[str, Any]], files: list[Path], as_json: bool) -> None:
    """Print the scalars of networks and the paths of what was written."""
    if as_json:
        print_json({"networks": rows, "files": [str(path) for path in files]})
        return
    table = Table()
    for heading in (
        "task",
        "g",
        "N",
        "epochs to converge",
        "|dW|",
        "functional rank",
        "shuffled / initial loss",
        "status",
    ):
        table.add_column(heading, justify="left" if heading in ("task", "status") else "right")
    for row in rows:
        converged, rank = row["convergence_epoch"], row["functional_rank"]
        table.add_row(
            row["task"],
            f"{row['gain']:g}",
            str(row["hidden_size"]),
            "never" if converged is None else str(converged),
            f"{row['change_norm']:.3f}",
            "none" if rank is None else str(rank),
            f"{row['shuffled_loss']:.3f}",
            row["status"],
        )
    screen = console()
    screen.print(table)
    for path in files:
        screen.print(str(path), soft_wrap=True, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON value."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def console() -> Console:
    """Return a console on stdout."""
    # In a pipe rich would wrap at 80 columns, which breaks a table that the next program reads.
    return Console(width=None if sys.stdout.isatty() else 160)


@contextmanager
def progress_bars(descriptions: list[str]) -> Iterator[Callable[[int, int, int, float], None]]:
    """Yield report(index, done, total, loss), which moves one bar each on a terminal and is silent elsewhere."""
    if not sys.stderr.isatty():
        yield lambda index, done, total, loss: None
        return
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
def one_thread() -> Iterator[None]:
    """Give torch one thread: a second one gains nothing at these sizes, and one gives the same bits everywhere."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def sweep_bar(title: str, networks: int) -> Iterator[Callable[[int, int, int, float], None] | None]:
    """Yield on_progress(index, done, total, loss) that moves one bar over all networks; None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
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
