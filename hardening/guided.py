"""Read coverage-guided inputs with the readers that are parsers of our own.

    pip install atheris
    python hardening/guided.py                           every such reader for a minute
    python hardening/guided.py --seconds 600 --reader glove --json

atheris, libFuzzer for Python, observes which branches of rankscope an input reaches, keeps the inputs that reach new
ones and mutates those. It finds rare paths at a tenth of the speed of `fuzz.py`. One file of each input is generated,
the one that Python parses; the files beside it stay valid. The contract is that of `reader.py`, with 5 s and 1 GB per
input. An input that breaks it is kept in --corpus, READER-crash-... or READER-timeout-....

In the table, *branches* is the number reached, *kept* the number of inputs that reached new ones. The exit status is 0
only if all contracts were kept.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from rich.console import Console
from rich.table import Table

FILES = {
    "sweep": "sweep.yaml",
    "run": "run.json",
    "adapter": "adapter_config.json",
    "shards": "model.safetensors.index.json",
    "treebank": "train.txt",
    "glove": "glove.txt",
    "archives": "snippets.txt",
    "requests": "request",
}
"""The generated file of each reader."""

HANG_SECONDS = 5
MEMORY_MEGABYTES = 1000
LONGEST = 4096
END = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+) ft: \d+ corp: (\d+)")


def main() -> int:
    """Fuzz each reader in a process of its own, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--reader", action="append", choices=list(FILES), help="may be repeated; by default all")
    parser.add_argument(
        "--corpus", type=Path, default=Path("fuzz-corpus"), help="folder of the inputs that break a contract"
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # reader of this process
    options = parser.parse_args()
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("guided.py needs atheris: pip install atheris", file=sys.stderr)
        return 2
    if options.inside:
        _fuzz_here(options.inside, options.seconds, options.corpus)
    options.corpus.mkdir(parents=True, exist_ok=True)
    rows = [_fuzz(name, options.seconds, options.corpus) for name in options.reader or FILES]
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*map(str, row.values()))
        Console(width=130).print(table)
    return int(any(row["broken"] for row in rows))


def _fuzz(name: str, seconds: int, corpus: Path) -> dict[str, object]:
    """Fuzz one reader in another process; return its row."""
    command = [sys.executable, __file__, "--inside", name, "--seconds", str(seconds), "--corpus", str(corpus)]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = END.search(ended.stderr)
    row: dict[str, object] = {"reader": name, "seconds": seconds}
    row |= dict(zip(("inputs", "branches", "kept"), map(int, found.groups()) if found else (0, 0, 0), strict=True))
    row["broken"] = "" if found and ended.returncode == 0 else _why(ended.stderr)
    print(f"{name}: {row['inputs']} inputs; {row['broken'] or 'kept its contract'}", file=sys.stderr, flush=True)
    return row


def _why(printed: str) -> str:
    """Return the line with the error."""
    lines = printed.splitlines()
    errors = [line for line in lines if re.match(r"\w*(Error|Exception)\b|.*ERROR: libFuzzer", line)]
    return (errors or lines or ["no output"])[0][:200]


def _fuzz_here(name: str, seconds: int, corpus: Path) -> None:
    """Fuzz one reader; libFuzzer ends this process."""
    import atheris

    with atheris.instrument_imports(include=["rankscope"]):
        from fuzz_workers import write_bundle
        from reader import attempt
        from readers import READERS
    warnings.simplefilter("ignore")
    reader, file = READERS[name], FILES[name]
    seeds = [bundle for bundle in reader.seeds() if file in bundle]
    with tempfile.TemporaryDirectory(prefix="rankscope-guided-") as folder:
        begun, slot = Path(folder) / "begun", Path(folder) / "slot"
        begun.mkdir()
        for number, bundle in enumerate(seeds):
            (begun / str(number)).write_bytes(bundle[file])

        def one(content: bytes) -> None:
            write_bundle(seeds[0] | {file: content}, slot)
            attempt(reader, slot)

        limits = (f"-max_total_time={seconds}", f"-timeout={HANG_SECONDS}", f"-rss_limit_mb={MEMORY_MEGABYTES}")
        kept = f"-artifact_prefix={corpus}/{name}-"
        atheris.Setup([sys.argv[0], *limits, f"-max_len={LONGEST}", kept, "-print_final_stats=1", str(begun)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
