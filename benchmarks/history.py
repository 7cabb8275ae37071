"""Write the tables of docs/performance.md from what the other programs measured.

    python benchmarks/table.py --json > docs/performance/2026-11-24-b.json
    python benchmarks/ideas.py --json > docs/performance/ideas.json
    python benchmarks/scaling.py --json > docs/performance/scaling.json
    python benchmarks/epoch.py --json > docs/performance/epoch.json
    python benchmarks/history.py

Runs of `table.py` are named after their day and a letter, so that they sort; the last one is the table, all together
are the history. Times differ from machine to machine and from day to day, so the history is in ratios, each measured
within one run: the share of products in an epoch (floor / ours) and how many times faster than the plain loop that is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from timing import duration

DOCS = Path(__file__).parents[1] / "docs"
PAGE, RUNS = DOCS / "performance.md", DOCS / "performance"
TASKS = ("flipflop", "mante", "romo")
Result = dict[str, Any]


def main() -> None:
    """Read, and rewrite all sections."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(RUNS.glob("20*.json"))}
    last = list(results)[-1]
    replace("table", table(results[last]))
    replace("history", history(results))
    replace("ideas", ideas(json.loads((RUNS / "ideas.json").read_text())))
    replace("epoch", epoch(json.loads((RUNS / "epoch.json").read_text())))
    replace("scaling", scaling(json.loads((RUNS / "scaling.json").read_text())))


def replace(name: str, lines: list[str]) -> None:
    """Put lines between the marks of a section."""
    old = re.compile(rf"<!-- {name} -->.*?<!-- end -->", re.DOTALL)
    # A number and its unit, and a date, stay on one line in a narrow column.
    whole = [re.sub(r"(?<=\d) (?=(ms|s|µs|MB|%) )", "\u00a0", line) if line.startswith("|") else line for line in lines]
    whole = [re.sub(r"^\| (\d+)-(\d+)-(\d+)-", "| \\1\u2011\\2\u2011\\3\u2011", line) for line in whole]
    new = "\n".join([f"<!-- {name} -->", *whole, "<!-- end -->"])
    text, replaced = old.subn(lambda _: new, PAGE.read_text())
    if not replaced:
        raise SystemExit(f"{PAGE} must have the marks <!-- {name} --> and <!-- end -->")
    PAGE.write_text(text)


def table(result: Result) -> list[str]:
    """Return everything of one run."""
    lines = [
        f"{result['processor']}, one core of {result['cores']}, {result['gflops_of_one_core']:.0f} GFLOP/s in "
        f"products; torch {result['torch']}; float32.",
        "",
        "| what | task | N | batch | floor | ours | plain | floor / ours | plain / ours | MB ours | MB plain |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        cells = [row["what"], row["task"], row["hidden_size"], row["batch"]]
        times = [row[f"{kind}_ms"] for kind in ("floor", "ours", "plain")]
        cells += [None if ms is None else duration(ms) for ms in times]
        cells += [percent(row["floor_over_ours"]), decimal(row["plain_over_ours"])]
        cells += [None if row[f"{kind}_mb"] is None else f"{row[f'{kind}_mb']:.0f}" for kind in ("ours", "plain")]
        lines.append("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")
    whole = result["gain_paper"]
    disturbed = ", ".join(result["disturbed"])
    return [
        *lines,
        "",
        f"All {whole['networks']} networks of `gain --preset paper` on one core, from these rows: "
        f"{whole['ours_minutes']:.1f} min, of which products {percent(whole['floor_over_ours'])}; by the plain loop "
        f"{whole['plain_minutes']:.0f} min. "
        + (f"Disturbed by something else on the machine: {disturbed}." if disturbed else "Undisturbed."),
    ]


def history(results: dict[str, Result]) -> list[str]:
    """Return a line for each run."""
    heads = [f"{task}, {kind}" for task in TASKS for kind in ("floor / ours", "plain / ours")]
    heads += ["truncation, plain / ours", "singular values, svdvals / ours", "`gain`, floor / ours"]
    lines = ["| run | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, result in results.items():
        cells = []
        for task in TASKS:
            row = row_of(result, "epoch", task)
            cells += [percent(row["floor_over_ours"]), decimal(row["plain_over_ours"])]
        for what in ("truncation", "singular values"):
            cells.append(decimal(row_of(result, what, "flipflop")["plain_over_ours"]))
        cells.append(percent(result["gain_paper"]["floor_over_ours"]))
        lines.append(f"| {name} | " + " | ".join(str(cell) for cell in cells) + " |")
    return lines


def ideas(result: Result) -> list[str]:
    """Return a line for each idea."""
    lines = ["| idea | without | with | saves | kept |", "|---|---|---|---|---|"]
    for row in result["ideas"]:
        times = (duration(row["without_ms"]), duration(row["with_ms"]))
        cells = (row["idea"], *times, f"{row['gain_percent']:.0f} %", "yes" if row["kept"] else "no")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def epoch(result: Result) -> list[str]:
    """Return where the time of an epoch goes, a column for each task."""
    tasks = result["tasks"]
    lines = ["| ms an epoch | " + " | ".join(row["task"] for row in tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for part in (name for name in tasks[0] if name not in ("task", "epoch", "products")):
        lines.append(f"| {part} | " + " | ".join(f"{row[part]:.2f}" for row in tasks) + " |")
    lines.append("| **in all** | " + " | ".join(f"{row['epoch']:.2f}" for row in tasks) + " |")
    lines.append("| products that are computed | " + " | ".join(f"{row['products']:.2f}" for row in tasks) + " |")
    return lines


def scaling(result: Result) -> list[str]:
    """Return how time and memory grow along each of the three sizes."""
    names = {"N": ("units N", 2), "batch": ("batch B", 1), "steps": ("steps T", 1)}
    lines = [
        "| varied | | epoch | exponent (expected) | GFLOP/s | memory | expected |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (label, expected) in names.items():
        for row in result[name]:
            exponent = "" if row["exponent"] is None else f"{row['exponent']:.2f} ({expected})"
            memory = [row[key] and f"{row[key]:.0f} MB" for key in ("megabytes", "expected_megabytes")]
            cells = (label, row[name], duration(row["ms"]), exponent, f"{row['gflops']:.0f}", *memory)
            lines.append("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")
    return lines


def row_of(result: Result, what: str, task: str, hidden_size: int = 256) -> dict[str, Any]:
    """Return the first row of this kind: that of batch 32."""
    rows = (row for row in result["rows"] if (row["what"], row["task"]) == (what, task))
    return next(row for row in rows if row["hidden_size"] == hidden_size)


def percent(share: float | None) -> str | None:
    """Return a share in percent."""
    return None if share is None else f"{100 * share:.0f} %"


def decimal(ratio: float | None) -> str | None:
    """Return a ratio with one decimal."""
    return None if ratio is None else f"{ratio:.1f}"


if __name__ == "__main__":
    main()
