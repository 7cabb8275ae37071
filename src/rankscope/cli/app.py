"""The application and the options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from rankscope.version import __version__

PANELS = {
    "One network": ("train", "tasks", "demo"),
    "Many networks": ("run", "reproduce", "status", "measure", "export", "experiments"),
    "Results": ("figure", "check", "report", "explore"),
    "Checkpoints of any model": ("inspect", "extract"),
    "Theory": ("theory", "learning-rates"),
}
"""Groups of commands in --help; others come last."""


class GroupedCommands(typer.core.TyperGroup):
    """Commands in groups, as plain text."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands of each group with the first sentence of their help."""
        left = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        width = formatter.width - 6 - max(map(len, left))
        for panel, names in [*PANELS.items(), ("More", tuple(left))]:
            rows = [(name, one.get_short_help_str(width)) for name in names if (one := left.pop(name, None))]
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)


app = typer.Typer(
    cls=GroupedCommands,
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
