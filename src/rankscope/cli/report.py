"""The command `report`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from rankscope.cli.app import JsonFlag, app
from rankscope.cli.output import print_json, print_lines


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[Path, typer.Option(help="File to write: .html.")],
    as_json: JsonFlag = False,
) -> None:
    """Write an interactive HTML report of a run, as one self-contained file."""
    from rankscope.report import write
    from rankscope.report.write import page_path

    page_path(out)
    began = time.perf_counter()
    path = write(folder, out)
    if as_json:
        seconds = round(time.perf_counter() - began, 3)
        print_json({"path": str(path), "bytes": path.stat().st_size, "seconds": seconds})
        return
    print_lines(path)
