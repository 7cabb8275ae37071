"""HTML displays of jobs and runs in notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rankscope.errors import InputError
from rankscope.plot import loss as plot_loss
from rankscope.plot import trial as plot_trial
from rankscope.plot.html import card
from rankscope.sweep.result_file import WARNINGS
from rankscope.sweep.results import read_results
from rankscope.tasks import BuiltInTask

if TYPE_CHECKING:
    from rankscope.sweep.job import Done, Job
    from rankscope.sweep.runner import RunResult

SHOWN_FAILURES = 3
SHOWN_LOSSES = 60


def job_html(job: Job) -> str:
    """Return the description of a job as a table, beside a trial of its task."""
    return card(f"Job {job.digest}", _rows(job), _trial(job))


def done_html(done: Done) -> str:
    """Return the description and the scalars of a finished job, beside its loss."""
    scalars = {
        str(name).replace("_", " "): f"{values.item():.4g}"
        for name, values in done.measurements.data_vars.items()
        if not values.ndim and values.dtype.kind in "fiu"
    }
    draw = [lambda ax: plot_loss(done.history, ax)] if done.history.epochs else []
    return card(f"Finished job {done.job.digest}", _rows(done.job) | scalars, draw)


def result_html(result: RunResult) -> str:
    """Return how many jobs of a run finished, the first failures and all warnings, beside losses over epochs."""
    done = len(result.finished) + len(result.elsewhere)
    rows: dict[str, object] = {"folder": result.folder, "finished now": done, "already done": len(result.already_done)}
    rows["failed"] = len(result.failed)
    rows |= dict(list(result.failed.items())[:SHOWN_FAILURES])
    try:
        results = read_results(result.folder)[0]
    except InputError:  # moved or removed since
        results = []
    warned = dict.fromkeys(text for one in results for text in one.attrs.get(WARNINGS, ()))
    rows |= {"warning": " ".join(warned)} if warned else {}
    losses = [one.array("loss") for one in results[:: -(-len(results) // SHOWN_LOSSES) or 1] if "loss" in one.variables]

    def draw(ax: Any) -> None:
        for values in losses:
            plot_loss(values, ax, relative=True, linewidth=0.6, alpha=0.7)

    return card("Run", rows, [draw] if losses else [])


def _rows(job: Job) -> dict[str, object]:
    described = job.description
    sections = {name: _words(described[name]) for name in ("task", "network", "training", "labels")}
    measured = "by default" if job.measurements is None else ", ".join(job.measurements)
    rows: dict[str, object] = {name: text for name, text in sections.items() if text}
    return rows | {"measurements": measured, "seed": job.seed}


def _words(options: Mapping[str, Any]) -> str:
    first = [str(options[name]) for name in ("name", "kind") if name in options]
    return ", ".join(first + [f"{key} = {value}" for key, value in options.items() if key not in ("name", "kind")])


def _trial(job: Job) -> Sequence[Any]:
    """Return the drawing of a trial; none if the task cannot be made here, or its inputs are words."""
    try:
        task = job.make_task()
        example = task.example() if isinstance(task, BuiltInTask) else None
    except InputError:
        return []
    if example is None or not example.inputs.is_floating_point():
        return []
    return [lambda ax: plot_trial(example, ax=ax, dt=getattr(task, "dt", None))]
