"""The command `explore`."""

from __future__ import annotations

import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from rankscope.cli.app import JsonFlag, app
from rankscope.cli.output import print_json, print_lines

# The server has started by then.
SECONDS_BEFORE_OPENING = 0.5


@app.command()
def explore(
    run: Annotated[Path | None, typer.Argument(help="Folder of a run to show, finished or not.")] = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1. [default: a free one]", show_default=False)] = 0,
    open_: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open", help="Open the page in a browser. [default: on a terminal]", show_default=False
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Serve an interactive page on this machine: theory with sliders, and the progress and results of a run."""
    from rankscope.explore.serving import Serving

    serving = Serving(run, port)
    if as_json:
        print_json({"address": serving.address})
    else:
        print_lines(serving.address)
        if sys.stderr.isatty():
            sys.stderr.write("Ctrl-C stops it.\n")
    sys.stdout.flush()
    if sys.stdout.isatty() if open_ is None else open_:
        opening = threading.Timer(SECONDS_BEFORE_OPENING, webbrowser.open, [serving.address])
        opening.daemon = True
        opening.start()
    try:
        serving.serve()
    except KeyboardInterrupt:
        # That is how it is meant to end.
        pass
    finally:
        serving.close()
