"""The command line's root: its name, its help, and options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rankscope.version import __version__

app = typer.Typer(
    help="What does learning write into a recurrent network, and how many directions does that need?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
OutFolder = Annotated[Path, typer.Option(help="Folder for the results.")]


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"rankscope {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
