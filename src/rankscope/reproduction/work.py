"""`reproduce`: the runs of a plan one after the other, the figures and claims of each, and the page of all of them."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from rankscope.errors import InputError
from rankscope.experiments import EXPERIMENTS
from rankscope.figures import FIGURES
from rankscope.io.atomic import make_folder
from rankscope.plot.style import styled
from rankscope.reproduction.page import write_page
from rankscope.reproduction.plan import Part
from rankscope.reproduction.results import Outcome, not_run, outcome_of
from rankscope.sweep import open_run, run
from rankscope.sweep.processes import OnProgress
from rankscope.sweep.sharing import share_results

Bar = Callable[[Part], AbstractContextManager[OnProgress | None]]
DPI = 130

logger = logging.getLogger(__name__)


@dataclass
class Reproduction:
    """What `reproduce` has done.

    Attributes
    ----------
    outcomes
        Of each experiment, in the order of the plan.
    figures
        Experiment -> figure as PNG.
    failed
        Number of networks that failed, by run.
    page
        The HTML page.
    """

    page: Path
    outcomes: list[Outcome] = field(default_factory=list)
    figures: dict[str, bytes] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)


def reproduce(
    parts: Sequence[Part],
    preset: str,
    page: Path,
    workers: int,
    *,
    bar: Bar = lambda part: nullcontext(None),
    on_part: Callable[[Part, str], None] = lambda part, happening: None,
) -> Reproduction:
    """Run the parts of a plan that are not finished, and write the page after each.

    The same call continues after an interruption: finished networks are kept, and others continue where they were.

    Parameters
    ----------
    parts
        As `make_plan` returns them.
    preset
        "quick" or "paper".
    page
        The HTML file to write.
    workers
        Number of processes.
    bar
        Returns the context in which a part is run, whose value is called with its progress.
    on_part
        on_part(part, "begins" or "is finished").

    Raises
    ------
    InputError
        If a folder is unsuitable or cannot be written to.
    """
    make_folder(page.parent)
    done = Reproduction(page)
    for part in parts:
        done.outcomes += [not_run(name, part.missing) for name in part.experiments if part.missing]
    for part in (part for part in parts if not part.missing):
        on_part(part, "begins")
        description = {"experiment": part.name, "preset": preset}
        share_results(part.jobs, part.folder, [other.folder for other in parts], description)
        with bar(part) as on_progress:
            result = run(
                part.jobs,
                part.folder,
                workers=workers,
                retry_failed=True,
                description=description,
                on_progress=on_progress,
            )
        done.failed |= {part.name: len(result.failed)} if result.failed else {}
        _read(part, done)
        write_page(done.page, preset, done.outcomes, done.figures)
        on_part(part, "is finished")
    done.outcomes.sort(key=lambda outcome: list(EXPERIMENTS).index(outcome.experiment))
    write_page(done.page, preset, done.outcomes, done.figures)
    return done


def _read(part: Part, done: Reproduction) -> None:
    """Add the outcomes and figures of a finished part."""
    try:
        dataset = open_run(part.folder, in_memory=True)
    except InputError as error:
        done.outcomes += [not_run(name, str(error)) for name in part.experiments]
        return
    for name in part.experiments:
        done.outcomes.append(outcome_of(name, part.folder, dataset))
        try:
            done.figures[name] = png_of(FIGURES[EXPERIMENTS[name].figure](dataset))
        except Exception as error:  # a figure must not cost the page of a run of hours
            logger.warning("no figure of %s: %r", name, error)


def png_of(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    content = io.BytesIO()
    with styled():
        figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()
