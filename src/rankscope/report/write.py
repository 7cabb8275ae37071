"""Write a report: `collect`'s contents, the scripts that draw them, and plotly.js, in one HTML file."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import xarray as xr

from rankscope.errors import InputError
from rankscope.experiments import EXPERIMENTS
from rankscope.io.atomic import replacing
from rankscope.pages import Data, Inline, page, plotly_javascript, shared, templates
from rankscope.report.collect import collect
from rankscope.report.provenance import of_dataset, open_folder
from rankscope.validation import choice

SCRIPTS = ("data.js", "figures.js", "comparison.js", "anatomy.js", "network.js", "page.js")
#: What the scripts need; the rest is in the HTML.
DRAWN = ("dimensions", "main", "panels", "groups", "scalars", "networks")


def write(
    run: xr.Dataset | str | os.PathLike[str], out: str | os.PathLike[str], *, experiment: str | None = None
) -> Path:
    """Write the report of a run as one HTML file without external resources, and return its path.

    Parameters
    ----------
    run
        The folder of a run, or the Dataset of `rankscope.open_run`; only the folder has failures, dates and
        descriptions of the jobs.
    out
        The .html file to write, in an existing folder.
    experiment
        Name of the experiment of a Dataset, whose claims are checked; a folder contains it.

    Raises
    ------
    InputError
        If there is no finished network, the experiment is not known, or `out` cannot be written.
    """
    target = page_path(out)
    content = html(run, experiment)
    with replacing(target) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return target


def page_path(out: str | os.PathLike[str]) -> Path:
    """Return the path that `write` would write; call it to validate `out` before long work.

    Raises
    ------
    InputError
        If it is not an HTML file in an existing folder.
    """
    target = Path(out)
    if target.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"out must be an .html file, got {str(out)!r}")
    if not target.parent.is_dir():
        raise InputError(f"out must be in a folder that exists, got {str(out)!r}")
    if target.is_dir():
        raise InputError(f"out must be a file to write, got the folder {str(out)!r}")
    return target


def html(run: xr.Dataset | str | os.PathLike[str], experiment: str | None = None) -> str:
    """Return the page that `write` writes; same arguments and errors."""
    if experiment is not None:
        choice("experiment", experiment, EXPERIMENTS)
    plotly_javascript()  # raises before the run is read if the extra is missing
    dataset, known = (run, of_dataset(run, experiment)) if isinstance(run, xr.Dataset) else open_folder(run)
    return render(collect(dataset, known))


def render(content: dict[str, Any]) -> str:
    """Return the page for the result of `collect`."""
    static = files("rankscope.report") / "static"
    scripts = [(static / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return page(
        content["title"],
        templates("rankscope.report").get_template("report.html").render(report=content),
        lead=content["lead"],
        styles=[Inline(shared("style.css"))],
        scripts=[Inline(text) for text in (shared("charts.js"), plotly_javascript(), *scripts)],
        data=[Data("report-data", {name: content[name] for name in DRAWN})],
    )
