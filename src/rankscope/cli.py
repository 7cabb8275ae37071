"""The command line: it parses, calls one function and prints. There is no science here.

Whatever the user got wrong becomes one line on stderr and exit status 2; results go to stdout, as a table or as
one JSON object; progress goes to stderr, and only to a terminal. Heavy imports wait until a command needs them,
so that `--help` is quick.
"""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rankscope.errors import InputError
from rankscope.version import __version__

app = typer.Typer(
    help="What does learning write into a recurrent network, and how many directions does that need?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
OutFolder = Annotated[Path, typer.Option(help="Folder for the results.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 for success, 2 for bad input, 130 and 143 for interruptions."""
    signal.signal(signal.SIGTERM, _on_terminate)
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = app(args=given, standalone_mode=False)
    except InputError as error:
        _fail(str(error), 2)
    except typer.TyperException as error:
        _fail(error.format_message() + _value_in_question(error, given), 2)
    except OSError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; the same command goes on from the last checkpoint where it keeps one", 130)
    sys.exit(status if isinstance(status, int) else 0)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"rankscope {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    out: OutFolder,
    task: Annotated[str, typer.Option(help="A task; `rankscope tasks` lists them.")] = "flipflop",
    gain: Annotated[float, typer.Option(help="Strength g of the random initial connectivity.")] = 0.9,
    hidden_size: Annotated[int, typer.Option(help="Number of units N.")] = 256,
    epochs: Annotated[int, typer.Option(help="Number of gradient steps.")] = 1000,
    seed: Annotated[int, typer.Option(help="Everything random is derived from it.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the task; may be repeated.")
    ] = None,
    nonlinearity: Annotated[str, typer.Option(help="tanh, relu, softplus or identity.")] = "tanh",
    convention: Annotated[str, typer.Option(help="current or rate.")] = "current",
    noise_std: Annotated[float, typer.Option(help="Noise of the units.")] = 0.0,
    trained: Annotated[str, typer.Option(help="Which weights learn, separated by commas.")] = "input,recurrent,output",
    optimiser: Annotated[str, typer.Option(help="adam or sgd.")] = "adam",
    learning_rate: Annotated[float | None, typer.Option(help="[default: 0.05 / N]", show_default=False)] = None,
    batch_size: Annotated[int, typer.Option(help="Trials in an epoch.")] = 32,
    clip_norm: Annotated[float | None, typer.Option(help="Clip gradients to this norm.")] = None,
    stop_below: Annotated[float | None, typer.Option(help="Stop at this fraction of the first loss.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that are already there.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train one network, measure what learning wrote into it, and store both."""
    from rankscope.experiments.cell import Cell, run_stored, summary
    from rankscope.tasks import make

    cell = Cell(
        make(task, **_assignments("--set", set_ or [])),
        gain=gain,
        hidden_size=hidden_size,
        epochs=epochs,
        seed=seed,
        network={
            "nonlinearity": nonlinearity,
            "convention": convention,
            "noise_std": noise_std,
            "trained": [part.strip() for part in trained.split(",")],
        },
        training={
            "optimiser": optimiser,
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "clip_norm": clip_norm,
            "stop_below": stop_below,
        },
    )
    with _one_thread(), _progress_bars([f"{task}, g = {gain:g}, N = {hidden_size}"]) as report:
        measured, files = run_stored(cell, out, lambda *progress: report(0, *progress), overwrite)
    _print_summaries([summary(measured)], files, as_json)


@app.command()
def demo(
    out: OutFolder = Path("runs/demo"),
    hidden_size: Annotated[int, typer.Option(help="Number of units N.")] = 256,
    epochs: Annotated[int, typer.Option(help="Number of gradient steps.")] = 1000,
    seed: Annotated[int, typer.Option(help="Everything random is derived from it.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes. [default: one a core]", show_default=False)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train the flip-flop at g = 0 and 0.9 side by side; print a table and draw the paper's figure."""
    from rankscope.experiments.cell import summary
    from rankscope.experiments.demo import demo_cells, run_demo
    from rankscope.figures import learning, save_figure

    cells = demo_cells(hidden_size, epochs, seed)
    with _progress_bars([f"{cell.task.name}, g = {cell.gain:g}" for cell in cells]) as report:
        measured = run_demo(cells, out, workers, report)
    figures = save_figure(learning(measured, f"Flip-flop, N = {hidden_size}"), out / "flipflop.png", ("png", "pdf"))
    rows = [summary(measured.isel(gain=index)) for index in range(len(cells))]
    _print_summaries(rows, [*figures, out / "demo.nc"], as_json)


@app.command()
def tasks(as_json: JsonFlag = False) -> None:
    """List the tasks and their parameters."""
    from rankscope.tasks import TASKS

    listed: dict[str, dict[str, Any]] = {
        name: {
            "description": (kind.__doc__ or "").strip().splitlines()[0],
            "input_size": kind().input_size,
            "output_size": kind().output_size,
            "steps": kind().steps,
            "parameters": kind().parameters(),
        }
        for name, kind in sorted(TASKS.items())
    }
    if as_json:
        _print_json(listed)
        return
    table = Table("task", "what it is", "in", "out", "steps", "parameters (durations in time constants)")
    for name, entry in listed.items():
        parameters = ", ".join(f"{key}={_short(value)}" for key, value in entry["parameters"].items())
        sizes = (str(entry[key]) for key in ("input_size", "output_size", "steps"))
        table.add_row(name, entry["description"], *sizes, parameters)
    _console().print(table)


def _print_summaries(rows: list[dict[str, Any]], files: list[Path], as_json: bool) -> None:
    if as_json:
        _print_json({"networks": rows, "files": [str(path) for path in files]})
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
    console = _console()
    console.print(table)
    for path in files:
        console.print(str(path), soft_wrap=True, highlight=False)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def _console() -> Console:
    # In a pipe rich would wrap at 80 columns, which breaks a table that the next program reads.
    return Console(width=None if sys.stdout.isatty() else 160)


@contextmanager
def _progress_bars(descriptions: list[str]) -> Iterator[Callable[[int, int, int, float], None]]:
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
def _one_thread() -> Iterator[None]:
    """Give torch one thread: a second one gains nothing at these sizes, and one gives the same bits everywhere."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _assignments(option: str, texts: list[str]) -> dict[str, Any]:
    """Turn ["dt=0.25"] into {"dt": 0.25}."""
    parsed = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"{option} must be NAME=VALUE such as dt=0.25, got {text!r}")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed


def _short(value: Any) -> str:
    return "(" + " ".join(f"{v:g}" for v in value) + ")" if isinstance(value, tuple) else f"{value:g}"


def _value_in_question(error: typer.TyperException, given: list[str]) -> str:
    """Return ", got VALUE" for an option whose text could not be read, which typer does not say by itself."""
    for option in getattr(getattr(error, "param", None), "opts", ()):
        for index, text in enumerate(given):
            name, equals, value = text.partition("=")
            if name == option and (equals or index + 1 < len(given)):
                unreadable = value if equals else given[index + 1]
                return f", got {unreadable!r}"
    return ""


def _fail(message: str, status: int) -> None:
    sys.stderr.write(f"rankscope: {' '.join(message.split())}\n")
    sys.exit(status)


def _on_terminate(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)
