"""The command `reproduce`: the whole paper in one call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankscope.cli.app import JsonFlag, WorkersOption, app, comma_separated
from rankscope.cli.output import note, print_json, print_lines, print_table, sweep_bar

if TYPE_CHECKING:
    from rankscope.reproduction import Part
    from rankscope.reproduction.work import Reproduction
    from rankscope.sweep.processes import OnProgress

PAGE = "reproduction.html"


@app.command()
def reproduce(
    quick: Annotated[bool, typer.Option("--quick", help="Networks of reduced size: minutes instead of hours.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the runs and the page. [default: runs/paper, or runs/quick with --quick]",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME,...", help="Only these experiments (`rankscope experiments`).")
    ] = None,
    workers: WorkersOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its duration, and do nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run all experiments of the paper and write one HTML page with every statement and its verdict.

    The same command continues an interrupted reproduction, and only writes the page of a finished one. The exit status
    is 1 if a network failed, not if a statement fails.
    """
    from rankscope.reproduction import make_plan
    from rankscope.reproduction import reproduce as run_all
    from rankscope.sweep.processes import available_cores
    from rankscope.validation import integer

    preset = "quick" if quick else "paper"
    folder = Path("runs") / preset if out is None else out
    processes = available_cores() if workers is None else integer("workers", workers, minimum=1)
    parts = make_plan(folder, preset, processes, comma_separated(only or []))
    if dry_run:
        _print_plan(parts, processes, as_json)
        return
    if not as_json:
        _print_plan(parts, processes, as_json)
    progress = _Progress(parts)
    done = run_all(parts, preset, folder / PAGE, processes, bar=_bar, on_part=progress.tell)
    _print_outcome(done, parts, as_json)
    if done.failed:
        raise typer.Exit(1)


@contextmanager
def _bar(part: Part) -> Iterator[OnProgress | None]:
    with sweep_bar(part.name, len(part.jobs)) as on_progress:
        yield on_progress


class _Progress:
    """Lines on stderr about the beginning and the end of each run."""

    def __init__(self, parts: list[Part]) -> None:
        self._left = {part.name: part.seconds for part in parts}
        self._estimated = self._taken = self._began = 0.0

    def tell(self, part: Part, happening: str) -> None:
        """Print one line."""
        from rankscope.reproduction.results import duration

        if happening == "begins":
            self._began = time.monotonic()
            if part.left:
                note(f"{part.name}: {part.left} of {len(part.jobs)} networks to train, about {duration(part.seconds)}")
            return
        took, expected = time.monotonic() - self._began, self._left.pop(part.name)
        if expected:
            self._estimated, self._taken = self._estimated + expected, self._taken + took
        # Runs so far show how far off the estimates are here.
        factor = self._taken / self._estimated if self._estimated else 1.0
        left = factor * sum(self._left.values())
        note(f"{part.name} took {duration(took)}" + (f"; about {duration(left)} left" if left else ""))


def _print_plan(parts: list[Part], processes: int, as_json: bool) -> None:
    from rich.filesize import decimal

    from rankscope.reproduction.results import duration

    total = sum(part.seconds for part in parts)
    if as_json:
        print_json({"runs": [part.row() for part in parts], "seconds": float(f"{total:.2g}"), "workers": processes})
        return
    headings = ("run", "experiments", "networks", "done", "to train", "estimate here")
    rows: list[tuple[object, ...]] = [
        (part.name, ", ".join(part.experiments), len(part.jobs), part.done, part.left, _estimate(part))
        for part in parts
    ]
    counts = [(len(part.jobs), part.done, part.left) for part in parts]
    rows.append(("all", "", *map(sum, zip(*counts, strict=True)), duration(total) if total else ""))
    print_table(headings, rows, right=headings[2:])
    if total:
        size, count = decimal(sum(part.bytes for part in parts)), f"{processes} process{'' if processes == 1 else 'es'}"
        print_lines(f"about {duration(total)} in {count}, {size} on disk")
    print_lines(*(f"left out: {part.name}: {part.missing}" for part in parts if part.missing))


def _estimate(part: Part) -> str:
    from rankscope.reproduction.results import duration

    if part.missing:
        return "left out"
    if part.left:
        return duration(part.seconds)
    return "done" if part.done == len(part.jobs) else "with those above"


def _print_outcome(done: Reproduction, parts: list[Part], as_json: bool) -> None:
    counts: dict[str, int] = {}
    for outcome in done.outcomes:
        for verdict, number in outcome.counts.items():
            counts[verdict] = counts.get(verdict, 0) + number
    if as_json:
        statements: list[dict[str, Any]] = [
            {"experiment": outcome.experiment} | row for outcome in done.outcomes for row in outcome.rows
        ]
        runs = [{"run": part.name, "missing": part.missing} for part in parts]
        facts = {outcome.experiment: outcome.facts for outcome in done.outcomes}
        print_json(
            {
                "page": str(done.page),
                "verdicts": counts,
                "failed_networks": done.failed,
                "runs": runs,
                "facts": facts,
                "statements": statements,
            }
        )
        return
    rows = [(outcome.experiment, *outcome.counts.values()) for outcome in done.outcomes]
    print_table(("experiment", *counts), [*rows, ("all", *counts.values())], right=tuple(counts))
    print_lines(
        *(f"fails: {o.experiment}: {row['statement']}: {row['measured']} (paper: {row['paper']})"
          for o in done.outcomes for row in o.rows if row["verdict"] == "fails"),
        *(f"{number} networks of {name} failed: rankscope status" for name, number in done.failed.items()),
        done.page,
    )  # fmt: skip
