"""Commands for single networks: train, demo, tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rankscope.cli.app import JsonFlag, OutFolder, WorkersOption, app, comma_separated
from rankscope.cli.output import (
    print_json,
    print_lines,
    print_summaries,
    print_table,
    progress_bars,
    summary,
    sweep_bar,
)
from rankscope.errors import InputError

DURATIONS = "parameters (durations in time constants)"


@app.command()
def train(
    out: OutFolder,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of a job: task, network, training, or their options by name. Options given here "
            "replace those in the file."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="A task (`rankscope tasks`), or file.py:Class. [default: flipflop]", show_default=False),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Network: rate, rnn, gru, lstm, or file.py:function. [default: rate]", show_default=False),
    ] = None,
    hidden_size: Annotated[
        int | None, typer.Option(help="Number of units N. [default: 256, gated 128]", show_default=False)
    ] = None,
    gain: Annotated[
        float | None,
        typer.Option(help="Strength g of the random initial connectivity. [default: 0.9]", show_default=False),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Gradient steps, or passes over finite data. [default: 1000]", show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Trials in a gradient step. [default: 32]", show_default=False)
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help="Optimizer, such as adam or sgd, or file.py:function. [default: adam]", show_default=False),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="[default: 0.05 / N]", show_default=False)] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random. [default: 0]", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other option of the task, the network or the training, such as delay=4, nonlinearity=relu or "
            "training.clip_norm=1; may be repeated.",
        ),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="Measurements, separated by commas. [default: all that apply]", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train one network, measure its change, and store both; an interrupted training resumes."""
    from rankscope.sweep import job_from_options, run_into

    network = {"kind": kind, "hidden_size": hidden_size, "gain": gain}
    training = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer, "learning_rate": learning_rate}
    options = {"task": "flipflop", **(_job_file(config) if config is not None else {})}
    if measure:
        options["measurements"] = comma_separated(measure)
    options |= {name: value for name, value in (("task", task), ("seed", seed)) if value is not None}
    for section, given in (("network", network), ("training", training)):
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            options.pop(name, None)
            options.pop(f"{section}.{name}", None)
        if given:
            options[section] = {**_mapping(config, section, options.get(section, {})), **given}
    job = job_from_options(options | assignments("--set", set_ or []))
    with progress_bars([f"{job.task_name}, {job.network['kind']}"]) as report:
        done, files = run_into(job, out, lambda *progress: report(0, *progress), overwrite)
    print_summaries([summary(done.measurements)], files, as_json)


@app.command()
def demo(
    out: OutFolder = Path("runs/demo"),
    hidden_size: Annotated[int, typer.Option(help="Number of units N.")] = 256,
    epochs: Annotated[int, typer.Option(help="Number of gradient steps.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    workers: WorkersOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Train the flip-flop task at g = 0 and 0.9; print a table and draw the figure of the README."""
    from rankscope.experiments import demo_jobs
    from rankscope.figures import FIGURES, save_figure
    from rankscope.sweep import open_run, run

    jobs = demo_jobs(hidden_size, epochs, seed)
    with sweep_bar("demo", len(jobs)) as on_progress:
        run(jobs, out, description={"experiment": "demo"}, workers=workers, on_progress=on_progress)
    measured = open_run(out, in_memory=True)
    figures = save_figure(FIGURES["tasks"](measured), out / "flipflop.png", ("png", "pdf"))
    print_summaries([summary(measured.sel(gain=job.network["gain"])) for job in jobs], figures, as_json)


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
    print_table(("task", "description", "in", "out", "steps", DURATIONS), rows)
    extra = "" if installed() else ", after pip install 'rankscope[neurogym]'"
    print_lines(
        f"Tasks of NeuroGym: --task neurogym --set environment=GoNogo-v0{extra}",
        "Sentiment of film reviews: --task sentiment, after rankscope data sentiment",
        "Your own: --task file.py:Class",
    )


def _job_file(path: Path) -> dict[str, Any]:
    """Return the options in the YAML file of a job."""
    from rankscope.sweep.yaml_text import read_sweep

    content = read_sweep(path)
    for name in ("grid", "samples", "paired"):
        if name in content:
            raise InputError(f"{path} must be of one network, got {name}: run a sweep with rankscope run {path}")
    return content


def _mapping(path: Path | None, section: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: {section} must be a mapping of options, got {value!r:.100}")
    return value


def assignments(option: str, texts: list[str]) -> dict[str, Any]:
    """Return ["dt=0.25", "trained=[input]"] as {"dt": 0.25, "trained": ["input"]}."""
    parsed = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"{option} must be NAME=VALUE such as dt=0.25, got {text!r}")
        parsed[name] = _value(option, value)
    return parsed


def _value(option: str, text: str) -> Any:
    """Return a value: JSON; or YAML in brackets, where [a, b] needs no quotes; or text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    if not text.startswith(("[", "{")):
        return text
    import yaml

    try:
        return yaml.safe_load(text)
    except Exception as error:
        # Besides errors of its own, the library raises what its constructors raise.
        raise InputError(f"{option} must have a readable value, got {text!r}: {error!s:.200}") from error


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + " ".join(map(_short, value)) + ")"
    return str(value) if isinstance(value, str) else f"{value:g}"
