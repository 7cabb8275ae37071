"""Read mutated inputs with every reader of files, and print the outcomes.

    python hardening/fuzz.py                          every reader for a minute of processor time
    python hardening/fuzz.py --seconds 600 --reader torch --reader job
    python hardening/fuzz.py --replay FOLDER --reader torch

An input is a valid file, or a few that belong together, with one to four changes (`fuzz_mutations.py`), or a text that
hypothesis has drawn from the grammar of its format. A separate process (`fuzz_workers.py`) reads it as a user would
(`readers.py`). A reader keeps its contract if it returns or raises `InputError`: no other exception, no crash, no more
than 5 s of processor time and 500 MB of memory for less than 1 MB of input. An input that breaks it is kept in
--corpus, READER/NUMBER/input, with the reason in what.txt; `--replay` reads such a folder again, in this process. The
exit status is 0 only if all contracts were kept.

In the table, *refused* counts inputs that raised `InputError`, in so many *places* of the code; *slowest* and *memory*
are the largest of any one input.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fuzz_workers import as_row, fuzz
from reader import attempt
from readers import READERS


def main() -> int:
    """Fuzz, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of processor time, for each reader")
    parser.add_argument("--reader", action="append", choices=list(READERS), help="may be repeated; by default all")
    parser.add_argument(
        "--corpus", type=Path, default=Path("fuzz-corpus"), help="folder of the inputs that break a contract"
    )
    parser.add_argument("--start", type=int, default=0, help="number of the first batch; other numbers, other inputs")
    parser.add_argument("--replay", type=Path, help="folder of a kept input")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    options = parser.parse_args()
    names = options.reader or list(READERS)
    if options.replay is not None:
        (name,) = names
        print(attempt(READERS[name], options.replay) or "returned")
        return 0
    rows = []
    for name in names:
        began = time.monotonic()
        rows.append(as_row(name, fuzz(READERS[name], options.seconds, options.corpus, options.start)))
        broken = ", ".join(f"{what} ({count})" for what, count in rows[-1]["broken"].items()) or "kept its contract"
        seconds = time.monotonic() - began
        print(f"{name}: {rows[-1]['inputs']} inputs in {seconds:.0f} s; {broken}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        _print(rows)
    return int(any(row["broken"] for row in rows))


def _print(rows: list[dict[str, object]]) -> None:
    heads = ("reader", "inputs", "seconds", "returned", "refused", "distinct_refusals", "exceptions", "crashes", "hangs",  # noqa: E501
             "memory_floods", "slowest_seconds", "largest_megabytes")  # fmt: skip
    table = Table(*(head.replace("distinct_refusals", "places").replace("_", " ") for head in heads))
    for row in rows:
        table.add_row(*(str(row[head]) for head in heads))
    Console(width=160).print(table)


if __name__ == "__main__":
    sys.exit(main())
