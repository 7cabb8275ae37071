"""Commands for runs of many networks: experiments, run, status, measure, export."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankscope.cli.app import JsonFlag, OutFolder, WorkersOption, app, comma_separated
from rankscope.cli.cluster import SchedulerOption, executor_of
from rankscope.cli.output import note, print_files, print_json, print_lines, print_table, sweep_bar
from rankscope.errors import InputError

if TYPE_CHECKING:
    from rankscope.sweep import Job, RunResult

RunFolderArgument = Annotated[Path, typer.Argument(help="Folder of a run.")]


@app.command()
def experiments(as_json: JsonFlag = False) -> None:
    """List the named experiments and estimate the time of each preset on this machine."""
    from rankscope.experiments import EXPERIMENTS
    from rankscope.sweep.cost import bytes_on_disk, seconds_for
    from rankscope.sweep.processes import available_cores

    cores = available_cores()
    listed: list[dict[str, Any]] = [
        {
            "experiment": experiment.name,
            "preset": preset,
            "networks": len(jobs),
            "minutes": float(f"{seconds_for(jobs, cores) / 60:.2g}"),
            "bytes": bytes_on_disk(jobs),
            "description": experiment.description,
        }
        for experiment in EXPERIMENTS.values()
        for preset in experiment.presets
        for jobs in [experiment.jobs(preset)]
    ]
    if as_json:
        print_json(listed)
        return
    headings = ("experiment", "preset", "networks", f"minutes on {cores} cores (estimate)", "on disk", "description")
    keys = ("experiment", "preset", "networks", "minutes", "bytes", "description")
    print_table(headings, [[row[key] for key in keys] for row in [_readable(row) for row in listed]])


@app.command()
def run(
    what: Annotated[str, typer.Argument(help="A named experiment (`rankscope experiments`), or a sweep file (.yaml).")],
    out: OutFolder,
    preset: Annotated[str, typer.Option(help="Size of a named experiment: quick, or paper.")] = "quick",
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed networks again.")] = False,
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights/--no-weights", help="Store each network before and after training.")
    ] = True,
    add: Annotated[
        bool, typer.Option("--add", help="Add the networks to a folder that holds those of another sweep.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="Train similar networks together on cuda or cpu; auto: cuda if there is a GPU. Experimental, not yet "
            "run on a GPU. [default: one process for each network]",
            show_default=False,
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train and measure all networks of an experiment or a sweep; the same command resumes it."""
    from rankscope.sweep import run as run_jobs

    jobs, description = _jobs(what, preset)
    _estimate(jobs, out, workers if scheduler is None else None, keep_weights)
    with sweep_bar(what, len(jobs)) as on_progress, executor_of(scheduler) as executor:
        result = run_jobs(
            jobs,
            out,
            description=description,
            executor=executor,
            workers=workers,
            retry_failed=retry_failed,
            keep_weights=keep_weights,
            add=add,
            device=device,
            on_progress=on_progress,
        )
    _print_result(result, len(jobs), out, device, as_json, table=True)


@app.command()
def measure(
    folder: Annotated[Path | None, typer.Argument(help="Folder of a run.")] = None,
    add: Annotated[
        list[str] | None, typer.Option(metavar="NAME,...", help="Measurements, separated by commas.")
    ] = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Add measurements to a finished run without training; without arguments, list the measurements."""
    from rankscope.measurements import MEASUREMENTS

    if folder is None or not add:
        if folder is not None or add:
            raise InputError(f"measure must have a run and --add NAME, got folder {folder} and --add {add}")
        rows = [{"measurement": one.name, "description": one.description} for one in MEASUREMENTS.values()]
        if as_json:
            print_json(rows)
        else:
            print_table(("measurement", "description"), [list(row.values()) for row in rows])
        return
    from rankscope.sweep import RunFolder, measure_run

    networks = len(RunFolder(folder).done())
    with sweep_bar("measure", networks) as on_progress, executor_of(scheduler) as executor:
        result = measure_run(folder, comma_separated(add), workers=workers, executor=executor, on_progress=on_progress)
    _print_result(result, networks, folder, None, as_json)


@app.command()
def status(folder: RunFolderArgument, as_json: JsonFlag = False) -> None:
    """Show the progress and failures of a run."""
    from rankscope.sweep import RunFolder

    store = RunFolder(folder)
    counts = asdict(store.counts())
    failures = [
        {"digest": digest, "error": failure.error, "message": failure.message}
        for digest, failure in store.failures().items()
    ]
    if as_json:
        print_json(counts | {"failures": failures})
        return
    print_table(list(counts), [list(counts.values())])
    print_lines(*(f"{failure['digest']}: {failure['error']}: {failure['message']}" for failure in failures))


@app.command()
def export(
    folder: RunFolderArgument,
    out: Annotated[Path, typer.Option(help="File to write, or folder for zarr.")],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="nc or zarr: everything; csv or parquet: the scalars, one row a network. [default: the suffix of OUT]",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        bool,
        typer.Option("--weights", help="Write the weights of every network before and after training, one .npz each."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the measurements of a run as netCDF, Zarr, CSV or Parquet, or its weights."""
    from rankscope.sweep import export_run, export_weights

    if weights:
        if format_ is not None:
            raise InputError(f"format must be left out beside --weights, got {format_!r}")
        files = export_weights(folder, out)
        print_files(files if as_json else files[:1], as_json)
        return
    export_run(folder, out, out.suffix.removeprefix(".") if format_ is None else format_)
    print_files([out], as_json)


def network_of_run(path: Path, select: list[str] | None) -> Path:
    """Return the file of the network with these labels if `path` is the folder of a run, else `path`."""
    if not (path / "run.json").is_file():
        if select:
            raise InputError(f"--select is for the folder of a run, got {str(path)!r}")
        return path
    from rankscope.cli.train import assignments
    from rankscope.sweep import RunFolder
    from rankscope.sweep.selection import digest_of

    return RunFolder(path).network_path(digest_of(path, assignments("--select", select or [])))


def _jobs(what: str, preset: str) -> tuple[Sequence[Job], dict[str, Any]]:
    from rankscope.experiments import EXPERIMENTS
    from rankscope.sweep import Sweep
    from rankscope.validation import choice

    if what.endswith((".yaml", ".yml")):
        return Sweep.from_yaml(what).jobs(), {"sweep": Path(what).read_text(encoding="utf-8")}
    experiment = EXPERIMENTS[choice("experiment", what, EXPERIMENTS)]
    return experiment.jobs(preset), {"experiment": what, "preset": preset}


def _estimate(jobs: Sequence[Job], out: Path, workers: int | None, keep_weights: bool) -> None:
    """Print what the jobs that are not finished will take, before any of them begins."""
    from rich.filesize import decimal

    from rankscope.sweep import RunFolder
    from rankscope.sweep.cost import bytes_on_disk, seconds_for
    from rankscope.sweep.processes import available_cores
    from rankscope.validation import integer

    processes = available_cores() if workers is None else integer("workers", workers, minimum=1)
    left = [job for job in jobs if not (out.is_dir() and RunFolder(out).is_done(job.digest))]
    if left:
        seconds = seconds_for(left, processes)
        duration = f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.2g} s"
        size = decimal(bytes_on_disk(left, keep_weights))
        note(f"{_count(len(left), 'network')}: about {duration} in {_count(processes, 'process')}, {size} in {out}")


def _count(number: int, noun: str) -> str:
    """Return "1 process" or "2 processes"."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number} {noun if number == 1 else plural}"


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    from rich.filesize import decimal

    return row | {"bytes": decimal(row["bytes"]), "minutes": f"{row['minutes']:g}"}


def _print_result(
    result: RunResult, networks: int, folder: Path, device: str | None, as_json: bool, table: bool = False
) -> None:
    """Print what a run has done; exit with status 1 if a network failed."""
    from rankscope.sweep import open_run

    counts = {
        "networks": networks,
        "finished": len(result.finished),
        "already_done": len(result.already_done),
        "failed": len(result.failed),
    }
    alone = dict(Counter(result.alone.values()))
    measured = open_run(folder) if table and (result.finished or result.already_done) else None
    if as_json:
        warnings = [] if measured is None else measured.attrs.get("warnings", [])
        rest = {"set_aside": [*map(str, result.set_aside)], "others_there": result.others, "folder": str(folder)}
        together = {} if device is None else {"device": device, "trained_one_by_one": alone}
        print_json(counts | rest | together | {"warnings": warnings})
    else:
        print_table(("networks", "finished now", "already done", "failed"), [list(counts.values())])
        print_lines(*(f"damaged, set aside and computed again: {one}" for one in result.set_aside))
        if result.others:
            print_lines(
                f"{folder} also holds {_count(result.others, 'network')} of another experiment or sweep; figures, "
                "claims and open_run include them"
            )
        for reason, number in alone.items():
            print_lines(f"{number} trained in processes, not together on {device}: {reason}")
        if result.continued:
            print_lines(f"{_count(len(result.continued), 'network')} continued from fewer epochs")
        for reason, number in Counter(result.anew.values()).items():
            print_lines(f"{_count(number, 'network')} trained from the beginning: {reason}")
        print_lines(folder)
        if measured is not None:
            from rankscope.cli.results_table import print_results

            print_results(folder, measured)
    if result.failed:
        raise typer.Exit(1)
