"""Write the page docs/results of an experiment: figure, table of scalars, claims, and its section of the README.

    python benchmarks/results.py gain --from runs/gain

writes docs/results/gain.{png,pdf,csv,check.json} and replaces the section between the lines `<!-- gain -->` and
`<!-- end -->` of docs/results/README.md with the figure and the table of claims. For `neurogym`, it replaces the table
of environments in the guide as well.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import xarray as xr

import rankscope as rs
from rankscope.experiments import EXPERIMENTS
from rankscope.experiments.claims import agreement_claim, check_claims
from rankscope.figures import FIGURES, save_figure
from rankscope.figures.selection import with_dims
from rankscope.sweep import export_run

PAGE = Path(__file__).parents[1] / "docs" / "results"
GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "neurogym.md"
REFERENCE = Path(__file__).parents[1] / "tests" / "reference" / "nonlinear_n256.json"
WIDTH = {"gain": 560, "linear": 620, "linear-gain": 560, "divergence": 560, "cosine": 560}


def main() -> None:
    """Draw the figure, check the claims, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("--from", dest="folder", type=Path, required=True)
    options = parser.parse_args()
    name = options.experiment
    run = rs.open_run(options.folder)
    save_figure(FIGURES[name](run), PAGE / f"{name}.png", ("png", "pdf"))
    export_run(options.folder, PAGE / f"{name}.csv", "csv")
    claims = EXPERIMENTS[name].claims
    if name == "gain" and REFERENCE.is_file():
        claims = (*claims, agreement_claim(REFERENCE))
    rows = check_claims(claims, run)
    (PAGE / f"{name}.check.json").write_text(json.dumps(rows, indent=2) + "\n")
    table = ["| claim | paper | measured | verdict |", "|---|---|---|---|"]
    table += [
        "| " + " | ".join(_cell(row[key]) for key in ("statement", "paper", "measured", "verdict")) + " |"
        for row in rows
    ]
    picture = f'<img src="{name}.png" width="{WIDTH.get(name, 720)}" alt="{EXPERIMENTS[name].description}">'
    section = "\n".join([f"<!-- {name} -->", picture, "", *table, "<!-- end -->"])
    page = PAGE / "README.md"
    old = re.compile(rf"<!-- {name} -->.*?<!-- end -->", re.DOTALL)
    text, replaced = old.subn(lambda _: section, page.read_text())
    if not replaced:
        text += f"\n## {name}\n\n{section}\n"
    page.write_text(text)
    if name == "neurogym":
        table = "\n".join(["<!-- environments -->", *_environments(run), "<!-- end -->"])
        old = re.compile(r"<!-- environments -->.*?<!-- end -->", re.DOTALL)
        GUIDE.write_text(old.sub(lambda _: table, GUIDE.read_text()))


def _environments(run: xr.Dataset) -> list[str]:
    """Return a table of environments: the score at each gain, and the measurements of the best network."""
    run = with_dims(run, "task", "gain")
    gains = [float(gain) for gain in run["gain"].values]
    head = ["environment", "steps", "chance", *(f"score, g = {gain:g}" for gain in gains)]
    head += ["best g", "loss / initial", "epochs", "rank", "‖dW‖", "learned"]
    rows = []
    for name in run["task"].values:
        one = run.sel(task=name)
        scores = one["score"].values.astype(float)
        if not np.isfinite(scores).any():
            continue
        best = one.isel(gain=int(np.nanargmax(scores)))
        score, chance = float(best["score"]), float(best["chance"])
        learned = score > (1 + chance) / 2
        numbers = [f"{float(best['evaluation_loss'] / best['initial_loss']):.3f}"]
        for variable, form in (("fall_epoch", ".0f"), ("score_rank", ".0f"), ("change_norm", ".2f")):
            value = float(best[variable])
            numbers.append(format(value, form) if learned and np.isfinite(value) else "-")
        row = [str(name), f"{float(best['steps']):.0f}", f"{chance:.2f}", *(f"{value:.2f}" for value in scores)]
        rows.append((score, [*row, f"{float(best['gain']):g}", *numbers, "yes" if learned else "no"]))
    rows.sort(key=lambda row: (-(row[1][-1] == "yes"), -row[0]))
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *(row for _, row in rows))]


def _cell(text: str) -> str:
    # A bar would end the cell of the table.
    return re.sub(r"\|([^|]+)\|", r"‖\1‖", text).replace("|", "\\|")


if __name__ == "__main__":
    main()
