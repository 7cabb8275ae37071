"""The commands about runs of many networks: experiments, run, status, export, figure, check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankscope.cli.app import JsonFlag, OutFolder, app
from rankscope.cli.output import print_json, print_lines, print_table, sweep_bar
from rankscope.errors import InputError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from rankscope.sweep import Job

RunFolderOption = Annotated[Path, typer.Option("--from", help="Folder of a run.")]
NAMED = "A named experiment (`rankscope experiments`)"


@app.command()
def experiments(as_json: JsonFlag = False) -> None:
    """List the named experiments, and how long each preset takes on this machine."""
    from rankscope.experiments import EXPERIMENTS
    from rankscope.sweep.cost import seconds_for
    from rankscope.sweep.processes import available_cores

    cores = available_cores()
    listed: list[dict[str, Any]] = [
        {
            "experiment": experiment.name,
            "preset": preset,
            "networks": len(jobs),
            "minutes": round(seconds_for(jobs, cores) / 60, 1),
            "description": experiment.description,
        }
        for experiment in EXPERIMENTS.values()
        for preset in experiment.presets
        for jobs in [experiment.jobs(preset)]
    ]
    if as_json:
        print_json(listed)
        return
    headings = ("experiment", "preset", "networks", f"minutes on {cores} cores (estimate)", "description")
    keys = ("experiment", "preset", "networks", "minutes", "description")
    print_table(headings, [[row[key] for key in keys] for row in listed])


@app.command()
def run(
    what: Annotated[str, typer.Argument(help=f"{NAMED}, or a sweep file (.yaml).")],
    out: OutFolder,
    preset: Annotated[
        str, typer.Option(help="quick, or paper for the paper's numbers; for named experiments.")
    ] = "quick",
    workers: Annotated[int | None, typer.Option(help="Processes. [default: one a core]", show_default=False)] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="A Dask scheduler, tcp://HOST:PORT, to run the networks.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try networks again that failed.")] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="cuda or cpu: train networks that are alike together there; auto: cuda if there is a graphics card. "
            "[default: each on a process]",
            show_default=False,
        ),
    ] = None,
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights/--no-weights", help="Store each network before and after training.")
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Train and measure all networks of an experiment or a sweep; run again, it does what is left."""
    from rankscope.sweep import run as run_jobs
    from rankscope.sweep.cost import bytes_on_disk

    jobs, description = _jobs(what, preset)
    size = f"{bytes_on_disk(jobs, keep_weights) / 1e6:.3g} MB"
    with sweep_bar(f"{what}, {size} on disk", len(jobs)) as on_progress, _executor(scheduler) as executor:
        report = run_jobs(
            jobs,
            out,
            description=description,
            executor=executor,
            workers=workers,
            retry_failed=retry_failed,
            on_progress=on_progress,
            device=device,
            keep_weights=keep_weights,
        )
    counts: dict[str, Any] = {
        "networks": len(jobs),
        "finished": len(report.finished),
        "already_done": len(report.already_done),
        "failed": len(report.failed),
        "others_there": report.others,
        "set_aside": [f"{one.name}: {one.reason}" for one in report.set_aside],
        "folder": str(out),
    }
    if device is not None:
        counts |= {"device": device, "trained_one_by_one": dict(Counter(report.alone.values()))}
    if as_json:
        print_json(counts)
    else:
        _print_counts(counts)
    if report.failed:
        raise typer.Exit(1)


@app.command()
def status(folder: Annotated[Path, typer.Argument(help="Folder of a run.")], as_json: JsonFlag = False) -> None:
    """Say how far a run is, and what failed."""
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
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[Path, typer.Option(help="File (nc, csv) or folder (zarr) to write.")],
    format_: Annotated[
        str, typer.Option("--format", help="nc or zarr; csv or parquet for the scalars, a row a network.")
    ] = "nc",
) -> None:
    """Write everything measured in a run to one file."""
    from rankscope.sweep import export_run

    export_run(folder, out, format_)
    print_lines(out)


@app.command()
def figure(
    experiment: Annotated[str, typer.Argument(help=f"{NAMED}; for a sweep of your own, one that varies the same.")],
    folder: RunFolderOption,
    out: Annotated[Path, typer.Option(help="File to write: .png, .pdf or .svg.")],
) -> None:
    """Draw the figure of an experiment from the folder of a run."""
    from rankscope.figures import FIGURES, save_figure
    from rankscope.sweep import open_run
    from rankscope.validation import choice

    draw = FIGURES[choice("experiment", experiment, FIGURES)]
    print_lines(*save_figure(draw(open_run(folder)), out))


@app.command()
def check(
    experiment: Annotated[str, typer.Argument(help=f"{NAMED}.")],
    folder: RunFolderOption,
    reference: Annotated[
        Path | None, typer.Option(help="Results of an independent implementation (JSON) to compare with.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare a run with the paper, claim by claim; exit status 1 if one fails."""
    from rankscope.experiments import EXPERIMENTS
    from rankscope.experiments.claims import agreement_claim, check_claims
    from rankscope.sweep import open_run
    from rankscope.validation import choice

    claims = EXPERIMENTS[choice("experiment", experiment, EXPERIMENTS)].claims
    if reference is not None:
        if not reference.is_file():
            raise InputError(f"reference must be a JSON file, got {str(reference)!r}, which is not there")
        claims = (*claims, agreement_claim(reference))
    rows = check_claims(claims, open_run(folder))
    if as_json:
        print_json(rows)
    else:
        print_table(("claim", "statement", "paper", "measured", "verdict"), [list(row.values()) for row in rows])
        print_lines(", ".join(f"{n} {verdict}" for verdict, n in Counter(row["verdict"] for row in rows).items()))
    if any(row["verdict"] == "fails" for row in rows):
        raise typer.Exit(1)


def _jobs(what: str, preset: str) -> tuple[Sequence[Job], dict[str, Any]]:
    from rankscope.experiments import EXPERIMENTS
    from rankscope.sweep import Sweep
    from rankscope.validation import choice

    if what.endswith((".yaml", ".yml")):
        return Sweep.from_yaml(what).jobs(), {"sweep": Path(what).read_text(encoding="utf-8")}
    experiment = EXPERIMENTS[choice("experiment", what, EXPERIMENTS)]
    return experiment.jobs(preset), {"experiment": what, "preset": preset}


class _executor:  # noqa: N801
    """A Dask cluster's executor for the time of a `with` block, or None for processes of our own."""

    def __init__(self, scheduler: str | None) -> None:
        self._scheduler = scheduler
        self._client: Any = None

    def __enter__(self) -> Executor | None:
        if self._scheduler is None:
            return None
        try:
            from distributed import Client
        except ImportError as error:
            raise InputError(
                "scheduler needs the extra rankscope[cluster]: pip install 'rankscope[cluster]'"
            ) from error
        try:
            self._client = Client(self._scheduler, timeout=10)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise InputError(
                f"scheduler must be the address of a running one, got {self._scheduler!r}: {error}"
            ) from error
        executor: Executor = self._client.get_executor(retries=2)
        return executor

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()


def _print_counts(counts: dict[str, Any]) -> None:
    keys = ("networks", "finished", "already_done", "failed")
    print_table(("networks", "finished now", "already done", "failed"), [[counts[key] for key in keys]])
    print_lines(*(f"damaged, set aside and computed again: {path}" for path in counts["set_aside"]))
    if counts["others_there"]:
        print_lines(
            f"{counts['folder']} also holds {counts['others_there']} networks of another experiment or sweep; figures "
            "and claims take all of them"
        )
    for reason, number in counts.get("trained_one_by_one", {}).items():
        print_lines(f"{number} trained in processes, not together on {counts['device']}: {reason}")
    print_lines(counts["folder"])
