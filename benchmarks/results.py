"""Make what docs/results shows of an experiment: figure, table of scalars, claims, and its section of the page.

    python benchmarks/results.py gain --from runs/gain

writes docs/results/gain.{png,pdf,csv,check.json} and replaces the section between the lines `<!-- gain -->` and
`<!-- end -->` of docs/results/README.md by the figure and the table of claims.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import rankscope as rs
from rankscope.experiments import EXPERIMENTS, export_run
from rankscope.experiments.claims import agreement_claim, check_claims
from rankscope.figures import FIGURES, save_figure

PAGE = Path(__file__).parents[1] / "docs" / "results"
REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "nonlinear_n256.json"
WIDTH = {"gain": 560, "linear": 620, "linear-gain": 560, "divergence": 560, "cosine": 560}


def main() -> None:
    """Draw, check, write."""
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


def _cell(text: str) -> str:
    # A bar would end the cell.
    return re.sub(r"\|([^|]+)\|", r"‖\1‖", text).replace("|", "\\|")


if __name__ == "__main__":
    main()
