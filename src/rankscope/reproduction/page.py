"""The page of a reproduction: every statement with its verdict at a glance, then each experiment with its figure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from rankscope.experiments import EXPERIMENTS
from rankscope.io.atomic import replacing
from rankscope.pages import Inline, page, shared, templates
from rankscope.reproduction.results import Outcome, described, titled

TITLE = "Reproduction of Schuessler et al. 2020"
LEAD = (
    "The interplay between randomness and structure during learning in RNNs (NeurIPS 2020): every statement of the "
    "paper that rankscope checks, and ours beside them."
)
SIZES = {"quick": "at reduced size (preset quick)", "paper": "at the size of the paper (preset paper)"}


def write_page(
    path: Path, preset: str, outcomes: Sequence[Outcome], figures: Mapping[str, bytes], notes: bool = True
) -> None:
    """Write the page as one HTML file that loads nothing.

    Parameters
    ----------
    figures
        Experiment -> figure as PNG.
    notes
        Whether each experiment has its prose on differences from the paper.
    """
    content = html(preset, outcomes, figures, notes)
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def html(preset: str, outcomes: Sequence[Outcome], figures: Mapping[str, bytes], notes: bool = True) -> str:
    """Return the page that `write_page` writes."""
    experiments = [_values(one, figures.get(one.experiment), notes) for one in outcomes]
    total = {verdict: sum(one.counts[verdict] for one in outcomes) for verdict in outcomes[0].counts}
    body = templates("rankscope.reproduction").get_template("reproduction.html")
    return page(
        TITLE,
        body.render(experiments=experiments, total=total, size=SIZES.get(preset, preset)),
        lead=LEAD,
        styles=[Inline(shared("style.css")), Inline(_own_style())],
        scripts=[Inline(shared("charts.js"))],
        charts=False,
    )


def note_of(name: str) -> str:
    """Return the prose on what differs from the paper in an experiment, and why, as Markdown; empty if there is none.

    It is about the run at full size in docs/results.
    """
    file = files("rankscope.reproduction") / "notes" / f"{name}.md"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def _values(outcome: Outcome, figure: bytes | None, notes: bool) -> dict[str, Any]:
    note = note_of(outcome.experiment) if notes else ""
    return {
        "name": outcome.experiment,
        "description": EXPERIMENTS[outcome.experiment].description,
        "rows": [{key: titled(text) for key, text in row.items()} for row in outcome.rows],
        "counts": outcome.counts,
        "missing": outcome.missing,
        "command": outcome.facts.get("command", ""),
        "facts": described(outcome.facts),
        "figure": base64.b64encode(figure).decode() if figure else "",
        "note": _markdown().render(note) if note else "",
    }


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _own_style() -> str:
    return (files("rankscope.reproduction") / "reproduction.css").read_text(encoding="utf-8")
