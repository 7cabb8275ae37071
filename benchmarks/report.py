"""Prints what `recurrence.py` measured, as tables; computes nothing."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from timing import Measurement

WIDTH = 132


def print_tables(results: dict[str, Any]) -> None:
    """Print all tables to stdout."""
    console = Console()
    if console.width < WIDTH:
        console = Console(width=WIDTH)
    m = results["machine"]
    console.print(
        f"{m['processor']}, {m['cores']} cores, torch {m['torch']}, products at N = 256 by {m['chosen_product']}",
        style="bold",
        highlight=False,
    )
    console.print(
        "float32, batch 32, one thread unless said; median \\[first quartile, third quartile]", highlight=False
    )
    tables = (_rates, _epochs, _plain, _side_by_side, _training, _analysis)
    for table in tables:
        console.print()
        console.print(table(results))
    if results["disturbed"]:
        names = ", ".join(results["disturbed"])
        console.print(f"\nDisturbed: something else took a tenth or more of the cores from: {names}.", highlight=False)
    else:
        console.print("\nUndisturbed: everything got the cores it asked for.", highlight=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=bool(number))
    return table


def _number(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def _time(measured: Measurement) -> str:
    ms = measured.median
    scale, unit = (1000, "s") if ms >= 1000 else (1, "ms") if ms >= 0.1 else (0.001, "µs")
    median, first, third = (_number(value / scale) for value in (ms, *measured.quartiles))
    return f"{median} {unit} [dim]\\[{first}, {third}][/dim]"


def _rates(results: dict[str, Any]) -> Table:
    rates = results["matrix_rates"]
    shapes = [key for key in rates["torch.mm"] if key != "best"]
    table = _table("Matrix rate of one core, GFLOP/s", "library", *shapes, "best")
    for library in ("torch.mm", "oneDNN", "ours"):
        if library in rates:
            table.add_row(library, *(f"{rates[library][shape]:.0f}" for shape in (*shapes, "best")))
    return table


def _epochs(results: dict[str, Any]) -> Table:
    fastest = results["matrix_rates"]["fastest"]["library"]
    columns = ("N", "steps", "forward only", "epoch", "floor torch.mm", "share", f"floor {fastest}", "share")
    table = _table("Our epoch (forward, backward, Adam; fixed batch) and its floors", "task", *columns)
    for row in results["epochs"]:
        floors, shares = row["floor_ms"], row["floor_share_percent"]
        pairs = [(f"{_number(floors[k])} ms", f"{shares[k]:.0f} %") for k in ("torch.mm", "fastest")]
        cells = (str(row["hidden_size"]), str(row["steps"]), _time(row["forward"]), _time(row["epoch"]))
        table.add_row(row["task"], *cells, *pairs[0], *pairs[1])
    return table


def _plain(results: dict[str, Any]) -> Table:
    columns = ("threads", "time of an epoch", "ratio to ours")
    table = _table("Loops in autograd against ours on one thread, flip-flop", "N", "loop", *columns)
    for row in results["plain_loop"]:
        N = str(row["hidden_size"])
        table.add_row(N, "ours", "1", _time(row["ours"]), "1")
        for kind in ("plain", "thrifty"):
            for cores in ("one", "all"):
                threads = "1" if cores == "one" else f"all ({results['machine']['cores']})"
                ratio = f"{row[f'{kind}_{cores}_over_ours']:.2f}"
                table.add_row("", kind, threads, _time(row[f"{kind}_{cores}"]), ratio)
        table.add_section()
    worst = max(row["largest_relative_difference"] for row in results["plain_loop"])
    table.caption = f"Losses and gradients of all loops agree with ours to {worst:.0e}."
    return table


def _side_by_side(results: dict[str, Any]) -> Table:
    row = results["side_by_side"]
    columns = ("time of an epoch, per network", "per-network speed-up of ours")
    table = _table(f"Two networks in two processes, flip-flop, N = {row['hidden_size']}", "what", *columns)
    table.add_row("ours, two processes with one thread each", _time(row["per_network"]), "")
    for kind in ("plain", "thrifty"):
        speed_up = f"{row[f'per_network_speed_up_over_{kind}_all']:.2f}"
        table.add_row(f"{kind} loop, one process with all cores", _time(row[f"{kind}_all"]), speed_up)
    return table


def _training(results: dict[str, Any]) -> Table:
    columns = ("steps", "epoch, everything", "32 trials", "share of drawing trials", "share of recording")
    table = _table("rs.train with its defaults, N = 256", "task", *columns)
    for row in results["training"]:
        shares = (f"{row[key]:.1f} %" for key in ("sampling_percent", "recording_percent"))
        table.add_row(row["task"], str(row["steps"]), _time(row["epoch"]), _time(row["sampling"]), *shares)
    rate = results["training"][0]["records_per_epoch"]
    table.caption = f"Recording: the singular values of the change of the weights, {rate:g} times an epoch."
    return table


def _analysis(results: dict[str, Any]) -> Table:
    table = _table("Analysis, flip-flop", "what", "threads", "time")
    curve = results["truncation"]
    what = f"truncation curve, N = 256, {curve['ranks']} ranks, {curve['trials']} trials"
    table.add_row(what, "1", _time(curve["one_thread"]))
    table.add_row(what, f"all ({results['machine']['cores']})", _time(curve["all_cores"]))
    for name, measured in results["singular_values"].items():
        size, _, which = name.partition(" ")
        table.add_row(f"singular values, N = {size}, {which}", "1", _time(measured))
    return table
