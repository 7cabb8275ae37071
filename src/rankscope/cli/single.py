"""The commands about single networks: train, demo, tasks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankscope.cli.app import JsonFlag, OutFolder, app
from rankscope.cli.output import print_json, print_lines, print_summaries, print_table, progress_bars, sweep_bar
from rankscope.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

SCALARS = (
    "initial_loss",
    "evaluation_loss",
    "convergence_epoch",
    "functional_rank",
    "change_norm",
    "trained_norm",
    "shuffled_loss",
    "average_gradient",
    "outlier",
    "learning_rate",
)


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
    optimizer: Annotated[str, typer.Option(help="adam or sgd.")] = "adam",
    learning_rate: Annotated[float | None, typer.Option(help="[default: 0.05 / N]", show_default=False)] = None,
    batch_size: Annotated[int, typer.Option(help="Trials in an epoch.")] = 32,
    clip_norm: Annotated[float | None, typer.Option(help="Clip gradients to this norm.")] = None,
    stop_below: Annotated[float | None, typer.Option(help="Stop at this fraction of the first loss.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that are already there.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train one network, measure what learning wrote into it, and store both."""
    from rankscope.sweep import Job, run_into
    from rankscope.tasks import make

    job = Job(
        task=make(task, **_assignments("--set", set_ or [])),
        seed=seed,
        network={
            "gain": gain,
            "hidden_size": hidden_size,
            "nonlinearity": nonlinearity,
            "convention": convention,
            "noise_std": noise_std,
            "trained": [part.strip() for part in trained.split(",")],
        },
        training={
            "epochs": epochs,
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "clip_norm": clip_norm,
            "stop_below": stop_below,
        },
    )
    with progress_bars([f"{task}, g = {gain:g}, N = {hidden_size}"]) as report:
        done, files = run_into(job, out, lambda *progress: report(0, *progress), overwrite)
    print_summaries([_summary(done.measurements)], files, as_json)


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
    from rankscope.experiments.demo import demo_jobs
    from rankscope.figures import save_figure
    from rankscope.figures import tasks as draw
    from rankscope.sweep import open_run
    from rankscope.sweep import run as run_jobs

    jobs = demo_jobs(hidden_size, epochs, seed)
    with sweep_bar("demo", len(jobs)) as on_progress:
        run_jobs(jobs, out, description={"experiment": "demo"}, workers=workers, on_progress=on_progress)
    measured = open_run(out, in_memory=True)
    figures = save_figure(draw(measured), out / "flipflop.png", ("png", "pdf"))
    rows = [_summary(measured.sel(gain=job.network["gain"])) for job in jobs]
    print_summaries(rows, figures, as_json)


@app.command()
def tasks(as_json: JsonFlag = False) -> None:
    """List the tasks and their parameters."""
    from rankscope.tasks import TASKS
    from rankscope.tasks.neurogym import installed

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
        print_json(listed)
        return
    rows = []
    for name, entry in listed.items():
        parameters = ", ".join(f"{key}={_short(value)}" for key, value in entry["parameters"].items())
        rows.append([name, *(entry[key] for key in ("description", "input_size", "output_size", "steps")), parameters])
    print_table(("task", "description", "in", "out", "steps", "parameters (durations in time constants)"), rows)
    extra = "" if installed() else ", after pip install 'rankscope[neurogym]'"
    print_lines(f"NeuroGym's tasks: --task neurogym --set environment=GoNogo-v0{extra}")


def _summary(measured: xr.Dataset) -> dict[str, Any]:
    """Return the scalars of one network as plain values; None for those that do not exist."""
    row: dict[str, Any] = {"task": str(measured["task"].item())}
    for name in ("gain", "hidden_size", "seed", *SCALARS):
        value = measured[name].item() if name in measured else None
        missing = value is None or (isinstance(value, float) and not math.isfinite(value))
        whole = name in ("convergence_epoch", "functional_rank", "hidden_size")
        row[name] = None if missing else int(value or 0) if whole else value
    return row | {"status": str(measured["status"].item())}


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
