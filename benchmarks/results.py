"""Write docs/results from the folders of runs: one page an experiment, and one with every statement and its verdict.

    python benchmarks/results.py runs

reads every run below `runs` whose experiment is one of ours, and writes for each NAME.png and .pdf (the figure), .csv
(the scalars of every network), .check.json (the claims) and .run.json (command, wall time, versions). From these four
it writes NAME.md and index.md, those of experiments without a run among `runs` as they are. Of several presets of an
experiment, `paper` makes its page, or else the one with most networks; each other one but `quick` has a section there,
from files NAME-PRESET.*. Without a change of the runs nothing changes. The prose on what differs from the paper is
src/rankscope/reproduction/notes/NAME.md, which is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import rankscope as rs
from rankscope.errors import InputError
from rankscope.experiments import EXPERIMENTS
from rankscope.experiments.claims import agreement_claim
from rankscope.figures import FIGURES, save_figure
from rankscope.figures.selection import with_dims
from rankscope.io.atomic import replacing
from rankscope.reproduction.page import note_of
from rankscope.reproduction.plan import NAMES
from rankscope.reproduction.results import described, duration, opened, outcome_of, titled
from rankscope.sweep import RunFolder, export_run

PAGES = Path(__file__).parents[1] / "docs" / "results"
GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "neurogym.md"
REFERENCE = Path(__file__).parents[1] / "tests" / "reference" / "nonlinear_n256.json"
WIDTH = {"gain": 560, "rounding": 640, "linear": 620, "linear-gain": 560, "divergence": 560, "cosine": 560}
MAIN = "paper"
VERDICTS = ("holds", "fails", "not in this run")


def main() -> None:
    """Refresh the results of the runs, then write all pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", help="folder with run folders; without it, only the pages")
    options = parser.parse_args()
    if options.runs is not None:
        for name, preset, folder in found_runs(options.runs):
            refresh(name, preset, folder)
    for name in NAMES:
        if (PAGES / f"{name}.check.json").is_file():
            write_if_changed(PAGES / f"{name}.md", page(name))
    write_if_changed(PAGES / "index.md", index())


def found_runs(runs: Path) -> list[tuple[str, str, Path]]:
    """Return experiment, suffix of file names and folder of each finished run; the main one has no suffix."""
    by_name: dict[str, dict[str, Path]] = {}
    for folder in sorted(path for path in runs.iterdir() if (path / "run.json").is_file()):
        name = opened(folder)
        if name is None:
            continue
        store = RunFolder(folder)
        counts, preset = store.counts(), str(store.manifest().description.get("preset", ""))
        if counts.done + counts.failed < counts.total:
            sys.stdout.write(f"left as it is: {folder}, {counts.done} of {counts.total} networks\n")
            continue
        digests = set(store.manifest().jobs)
        for other, experiment in EXPERIMENTS.items():
            same = other in NAMES and preset in experiment.presets
            if same and (other == name or {job.digest for job in experiment.jobs(preset)} == digests):
                by_name.setdefault(other, {})[preset] = folder
    found = []
    for name, presets in by_name.items():
        main = MAIN if MAIN in presets else max(presets, key=lambda one: len(RunFolder(presets[one]).done()))
        for preset, folder in presets.items():
            if preset == main or preset != "quick":
                found.append((name, "" if preset == main else f"-{preset}", folder))
    return found


def refresh(name: str, suffix: str, folder: Path) -> None:
    """Write figure, scalars, claims and facts of one run."""
    stem = f"{name}{suffix}"
    run = rs.open_run(folder, in_memory=True)
    further = [agreement_claim(REFERENCE)] if name == "gain" and REFERENCE.is_file() else []
    outcome = outcome_of(name, folder, run, further)
    save_figure(FIGURES[EXPERIMENTS[name].figure](run), PAGES / f"{stem}.png", ("png", "pdf"))
    table = EXPERIMENTS[name].table
    if table is None:
        export_run(folder, PAGES / f"{stem}.csv", "csv")
    else:
        with replacing(PAGES / f"{stem}.csv") as temporary:
            table(run).to_csv(temporary, index=False, float_format="%.6g")
    write_json(PAGES / f"{stem}.check.json", outcome.rows)
    write_json(PAGES / f"{stem}.run.json", outcome.facts)
    if name == "neurogym" and not suffix:
        table = "\n".join(["<!-- environments -->", *environments(run), "<!-- end -->"])
        old = re.compile(r"<!-- environments -->.*?<!-- end -->", re.DOTALL)
        write_if_changed(GUIDE, old.sub(lambda _: table, GUIDE.read_text(encoding="utf-8")))
    sys.stdout.write(f"{stem}: {outcome.counts}\n")


def page(name: str) -> str:
    """Return the page of an experiment from the files of its runs."""
    parts = [f"# {name}", "", f"{EXPERIMENTS[name].description}.", "", *figure_and_claims(name, name)]
    note = note_of(name)
    if note:
        parts += ["## What differs from the paper, and why", "", note, ""]
    parts += ["## The run", "", *about(name, name)]
    further = {path.name.removesuffix(".run.json") for path in PAGES.glob(f"{name}-*.run.json")} - set(NAMES)
    for stem in sorted(further):
        parts += [f"## Preset {stem.removeprefix(f'{name}-')}", "", *figure_and_claims(name, stem), *about(name, stem)]
    return "\n".join(parts).rstrip() + "\n"


def figure_and_claims(name: str, stem: str) -> list[str]:
    """Return figure and claims of one run."""
    rows = read_json(PAGES / f"{stem}.check.json")
    picture = f'<img src="{stem}.png" width="{WIDTH.get(name, 720)}" alt="{EXPERIMENTS[name].description}">'
    table = [row("statement", "paper", "measured", "verdict"), row(*["---"] * 4)]
    table += [row(*(cell(one[key]) for key in ("statement", "paper", "measured")), verdict(one)) for one in rows]
    return [picture, "", *table, ""]


def about(name: str, stem: str) -> list[str]:
    """Return the facts of one run, and its files."""
    facts = read_json(PAGES / f"{stem}.run.json")
    table = [row("", ""), row("---", "---"), row("Command", f"`{facts['command']}`")]
    table += [row(title, cell(text)) for title, text in described(facts)]
    rows = "scalars of every network" if EXPERIMENTS[name].table is None else "table of networks and ranks"
    titles = {"csv": rows, "check.json": "claims", "run.json": "the run", "pdf": "figure"}
    files = [
        f"[{title}]({stem}.{suffix})" for suffix, title in titles.items() if (PAGES / f"{stem}.{suffix}").is_file()
    ]
    return [*table, "", f"Files: {', '.join(files)}.", ""]


def index() -> str:
    """Return the page with every statement and its verdict."""
    names = [name for name in NAMES if (PAGES / f"{name}.check.json").is_file()]
    rows = {name: read_json(PAGES / f"{name}.check.json") for name in names}
    facts = {name: read_json(PAGES / f"{name}.run.json") for name in names}
    total = {one: sum(row["verdict"] == one for found in rows.values() for row in found) for one in VERDICTS}
    lines = [
        "# Results",
        "",
        "Every statement of the paper that rankscope checks, and some of ours, as measured by the runs below. "
        f"**{total['holds']} hold, {total['fails']} fail**"
        + (f", {total['not in this run']} are not in these runs" if total["not in this run"] else "")
        + ". The page of each experiment has its figure, what differs from the paper and why, and how it was run. "
        "`rankscope reproduce` runs all of them, `python benchmarks/results.py RUNS` writes these pages.",
        "",
        row("experiment", *VERDICTS, "preset", "networks", "wall time", "rankscope"),
        row(*["---"] * 8),
    ]
    for name in names:
        counts = [sum(one["verdict"] == verdict for one in rows[name]) or "" for verdict in VERDICTS]
        seconds = facts[name].get("wall_seconds")
        wall = "not recorded" if seconds is None else duration(seconds)
        known = (facts[name]["preset"], facts[name]["networks"], wall, facts[name]["versions"].get("rankscope", ""))
        lines.append(row(f"[{name}]({name}.md)", *counts, *known))
    missing = [name for name in NAMES if name not in names]
    if missing:
        lines += ["", f"Not run yet: {', '.join(missing)}."]
    failing = [(name, one) for name in names for one in rows[name] if one["verdict"] == "fails"]
    if failing:
        lines += ["", "## Statements that fail", "", "The page of the experiment says why.", ""]
        lines += [row("experiment", "statement", "paper", "measured"), row(*["---"] * 4)]
        for name, one in failing:
            texts = (cell(one[key]) for key in ("statement", "paper", "measured"))
            lines.append(row(f"[{name}]({name}.md)", *texts))
    for name in names:
        lines += ["", f"## {name}", "", f"{EXPERIMENTS[name].description}. [Page]({name}.md).", ""]
        lines += [row("verdict", "statement", "paper", "measured"), row(*["---"] * 4)]
        lines += [
            row(verdict(one), *(cell(one[key]) for key in ("statement", "paper", "measured"))) for one in rows[name]
        ]
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *names, "```", ""])


def environments(run: xr.Dataset) -> list[str]:
    """Return a table of environments: the mean score at each gain, and the measurements at the best one."""
    run = with_dims(run, "task", "gain", "sample")
    gains = [float(gain) for gain in run["gain"].values]
    head = ["environment", "steps", "chance", *(f"score, g = {gain:g}" for gain in gains)]
    head += ["best g", "loss / initial", "epochs", "rank", "‖dW‖", "learned"]
    rows = []
    for name in run["task"].values:
        one = run.sel(task=name)
        scores = one["score"].astype(float).mean("sample").values
        if not np.isfinite(scores).any():
            continue
        best = one.isel(gain=int(np.nanargmax(scores)))
        score, chance = float(best["score"].mean()), float(best["chance"].mean())
        learned = score > (1 + chance) / 2
        numbers = [f"{float((best['evaluation_loss'] / best['initial_loss']).mean()):.3f}"]
        for variable, form in (("fall_epoch", ".0f"), ("score_rank", ".3g"), ("change_norm", ".2f")):
            value = float(best[variable].astype(float).mean())
            numbers.append(format(value, form) if learned and np.isfinite(value) else "-")
        cells = [
            str(name),
            f"{float(best['steps'].mean()):.0f}",
            f"{chance:.2f}",
            *(f"{value:.2f}" for value in scores),
        ]
        rows.append((score, [*cells, f"{float(best['gain']):g}", *numbers, "yes" if learned else "no"]))
    rows.sort(key=lambda one: (-(one[1][-1] == "yes"), -one[0]))
    return ["| " + " | ".join(one) + " |" for one in (head, ["---"] * len(head), *(cells for _, cells in rows))]


def row(*cells: Any) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def cell(text: str) -> str:
    """Return text for a cell of a Markdown table."""
    return titled(text).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def verdict(one: dict[str, Any]) -> str:
    """Return a verdict, bold if the statement fails."""
    return "**fails**" if one["verdict"] == "fails" else str(one["verdict"])


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    if not path.is_file():
        raise InputError(f"{path} must exist beside the other files of its run")
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: dict[str, Any] | Sequence[Any]) -> None:
    """Write JSON for readers."""
    write_if_changed(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_if_changed(path: Path, text: str) -> None:
    """Write a file unless it has this content already."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
