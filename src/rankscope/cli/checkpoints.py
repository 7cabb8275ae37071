"""The command `inspect`: compare two checkpoints of any PyTorch model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from rankscope.cli.app import JsonFlag, app, comma_separated
from rankscope.cli.cluster import SchedulerOption, executor_of
from rankscope.cli.comparison_table import print_comparison, printable
from rankscope.cli.output import print_json, print_lines
from rankscope.errors import InputError

WEIGHTS = "A file (torch.save, safetensors, NumPy, Keras, MATLAB, ONNX, ...), an index of shards, or a folder with one"

KeyOption = Annotated[
    str | None,
    typer.Option(help="State dict to take of a file that holds several: 'model_ema'.", show_default=False),
]
PrefixOption = Annotated[
    str | None, typer.Option(help="Beginning of names to ignore, such as 'model.', in both.", show_default=False)
]
RenameOption = Annotated[
    list[str] | None,
    typer.Option(help="OLD=NEW: replace a text in the names of both; may be given again.", show_default=False),
]


@app.command()
def inspect(
    before: Annotated[Path, typer.Argument(help=f"The weights before learning. {WEIGHTS}.")],
    after: Annotated[
        list[Path] | None,
        typer.Argument(
            help="After learning, or a LoRA adapter. Omit it if the first file holds both, or is an adapter. Each of "
            "several, in the order of training, is compared with the first file."
        ),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Number of attention heads, to measure each too; auto: that of the model's config.json.",
            show_default=False,
        ),
    ] = None,
    kv_heads: Annotated[
        int | None, typer.Option(help="Number of heads of keys and values, if they are fewer.", show_default=False)
    ] = None,
    gates: Annotated[bool, typer.Option(help="Also measure each gate of an RNN, GRU or LSTM.")] = True,
    layers: Annotated[
        str | None,
        typer.Option(help="Weights or patterns, separated by commas, such as '*.q_proj.weight'.", show_default="all"),
    ] = None,
    key: KeyOption = None,
    prefix: PrefixOption = None,
    rename: RenameOption = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compute all singular values of large matrices too (slow).")
    ] = False,
    intruders: Annotated[
        bool, typer.Option("--intruders", help="Count singular vectors of W that none of W0 resembles (slow).")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes that measure matrices, one thread each.")] = 1,
    scheduler: SchedulerOption = None,
    device: Annotated[str, typer.Option(help="Where singular values are computed: cpu or cuda.")] = "cpu",
    csv: Annotated[Path | None, typer.Option(help="Table to write, one row for each matrix.")] = None,
    out: Annotated[Path | None, typer.Option(help="Figure to write: .png, .pdf or .svg.")] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Network of a run, where BEFORE is the folder of a run; repeatable."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Report how each weight matrix changed between two or more checkpoints, and in how many directions."""
    from rankscope.checkpoints import inspect as compare_files
    from rankscope.cli.runs import network_of_run
    from rankscope.figures.saving import figure_paths, save_figure

    before = network_of_run(before, select)
    if out is not None:
        figure_paths(out)
    if after and len(after) > 1:
        from rankscope.cli.along import inspect_along

        options = {"heads": heads, "workers": workers > 1, "scheduler": scheduler, "device": device != "cpu"}
        options["intruders"] = intruders
        for name, given in options.items():
            if given:
                raise InputError(f"--{name} is for two checkpoints, got {len(after) + 1}")
        chosen = None if layers is None else comma_separated([layers])
        inspect_along([before, *after], chosen, key, prefix, renaming(rename or []), exact, csv, out, as_json)
        return
    with tensor_bar() as on_progress, executor_of(scheduler) as executor:
        compared = compare_files(
            before,
            after[0] if after else None,
            gates=gates,
            heads=_heads(heads),
            kv_heads=kv_heads,
            layers=None if layers is None else comma_separated([layers]),
            key=key,
            prefix=prefix,
            rename=renaming(rename or []),
            exact=exact,
            intruders=intruders,
            workers=workers,
            executor=executor,
            device=device,
            on_progress=on_progress,
        )
    files = [] if csv is None else [compared.write_csv(csv)]
    if out is not None:
        from rankscope.figures.checkpoints import checkpoints

        files += save_figure(checkpoints(compared.to_dataframe()), out)
    if as_json:
        rows = [matrix.row() for matrix in compared.matrices]
        skipped = [one._asdict() for one in compared.skipped]
        print_json(
            {
                "matrices": rows,
                "skipped": skipped,
                "note": compared.note,
                "files": [str(path) for path in files],
            }
        )
        return
    print_comparison(compared)
    print_lines(*files)


def _heads(given: str | None) -> int | Literal["auto"] | None:
    if given is None or given == "auto":
        return None if given is None else "auto"
    try:
        return int(given)
    except ValueError:
        raise InputError(f"--heads must be a number or auto, got {given!r}") from None


def renaming(given: list[str]) -> dict[str, str]:
    """Return texts and their replacements from OLD=NEW."""
    for text in given:
        if "=" not in text[1:]:
            raise InputError(f"--rename must be OLD=NEW, got {text!r}")
    return {old: new for old, _, new in (text.partition("=") for text in given)}


@contextmanager
def tensor_bar() -> Iterator[Callable[[int, int, str], None] | None]:
    """Yield on_progress(done, total, name) of a progress bar; None unless stderr is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("", total=None)

        def on_progress(done: int, total: int, name: str) -> None:
            bars.update(bar, completed=done, total=total, description=printable(name))

        yield on_progress
