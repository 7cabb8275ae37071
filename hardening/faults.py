"""All faults at once: the table of docs/faults.md.

Run it:   python hardening/faults.py --json > faults.json      (about an hour; `--quick` takes a few minutes)

Runs `full_disk.py`, `kills.py`, `two_hosts.py` and `soak.py` one after the other, each as its own program, and prints
one table: the fault, how often, how many cells were lost, how long until work went on. As root on Linux it runs all of
them; what cannot run is listed with the reason. The exit status is 0 only if nothing was lost.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import evidence
from evidence import Row, say

HERE = Path(__file__).parent
FULL = {
    "full_disk": ["--cells", "60"],
    "kills": ["--seconds", "1200"],
    "two_hosts": ["--cells", "110"],
    "soak": ["--cells", "5000"],
}
QUICK = {
    "full_disk": ["--cells", "20"],
    "kills": ["--seconds", "60", "--epochs", "500"],
    "two_hosts": ["--cells", "24", "--epochs", "600", "--cuts", "5"],
    "soak": ["--cells", "200"],
}


def run(program: str, options: list[str], folder: Path) -> dict[str, Any]:
    """Run one program and return what it says; what it tells on the way goes to stderr."""
    say(f"{program} {' '.join(options)}")
    command = [sys.executable, str(HERE / f"{program}.py"), *options, "--json", "--folder", str(folder / program)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if not ended.stdout:
        return {"faults": [], "details": {"ok": False, "ended_with": ended.returncode}}
    said: dict[str, Any] = json.loads(ended.stdout)
    return said


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(FULL), default=list(FULL))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    plan = QUICK if options.quick else FULL
    said = {program: run(program, plan[program], folder) for program in options.only}
    rows = [Row(**row) for program in said.values() for row in program["faults"]]
    details = {program: what["details"] for program, what in said.items()}
    evidence.report(rows, details, "Faults", options.as_json)
    sys.exit(0 if all(what["ok"] for what in details.values()) else 1)


if __name__ == "__main__":
    main()
