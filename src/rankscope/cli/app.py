"""The application and the options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rankscope.version import __version__

app = typer.Typer(
    help="Train recurrent networks, and measure how many directions of their weights learning changes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
OutFolder = Annotated[Path, typer.Option(help="Folder for the results.")]
WorkersOption = Annotated[
    int | None, typer.Option(help="Number of processes. [default: one a core]", show_default=False)
]


def comma_separated(texts: list[str]) -> tuple[str, ...]:
    """Return ["norms,spectra", "outlier"], the values of a repeated option, as single names."""
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


def _print_version(requested: bool) -> None:
    if requested:
        sys.stdout.write(f"rankscope {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
