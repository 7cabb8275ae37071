"""The page itself: what `collect` found, the scripts that draw it, and plotly.js, in one HTML file."""

from __future__ import annotations

import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import xarray as xr
from jinja2 import Environment, PackageLoader

from rankscope.errors import InputError
from rankscope.experiments import EXPERIMENTS
from rankscope.io.atomic import replacing
from rankscope.pages import Data, Inline, page, plotly_javascript, shared
from rankscope.report.collect import collect
from rankscope.report.provenance import of_dataset, open_folder
from rankscope.validation import choice

SCRIPTS = ("data.js", "figures.js", "comparison.js", "network.js", "page.js")


def write(
    run: xr.Dataset | str | os.PathLike[str], out: str | os.PathLike[str], *, experiment: str | None = None
) -> Path:
    """Write the page of a run: one HTML file that needs nothing else, not even a network.

    Parameters
    ----------
    run
        The folder of a run, or what `rankscope.open_run` returned; only the folder knows of failures, dates and
        descriptions of the networks.
    out
        The file to write, .html, in a folder that exists.
    experiment
        The named experiment that a Dataset is of, for its claims; a folder knows.

    Returns
    -------
    The path written.

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
    """Return where `write` would write, which is worth knowing before the work.

    Raises
    ------
    InputError
        If it is not an HTML file in a folder that exists.
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
    """Return the page that `write` writes.

    Raises
    ------
    InputError
        As `write`.
    """
    if experiment is not None:
        choice("experiment", experiment, EXPERIMENTS)
    dataset, known = (run, of_dataset(run, experiment)) if isinstance(run, xr.Dataset) else open_folder(run)
    return render(collect(dataset, known))


def render(content: dict[str, Any]) -> str:
    """Return the page of what `collect` returned."""
    own = files("rankscope.report") / "static"
    scripts = [(own / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return page(
        content["title"],
        _environment().get_template("report.html").render(report=content),
        lead=content["lead"],
        styles=[Inline(shared("style.css"))],
        scripts=[Inline(text) for text in (shared("charts.js"), plotly_javascript(), *scripts)],
        data=[Data("report-data", {name: content[name] for name in DRAWN})],
    )


DRAWN = ("dimensions", "main", "panels", "groups", "scalars", "networks")
"""What the scripts need; the rest is in the HTML."""


@cache
def _environment() -> Environment:
    return Environment(loader=PackageLoader("rankscope.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
