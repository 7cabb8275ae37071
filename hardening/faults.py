"""All fault programs: the table of docs/faults.md.

    python hardening/faults.py --json > faults.json      (about an hour; with --quick a quarter of one)

Runs `full_disk.py`, `kills.py`, `two_hosts.py` and `soak.py` one after the other and prints one table. Programs that
cannot run on this machine are listed with the reason. The exit status is 0 only if nothing was lost.
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
from evidence import Row

HERE = Path(__file__).parent
FULL = {
    "full_disk": ["--jobs", "60"],
    "kills": ["--faults", "150"],
    "two_hosts": ["--jobs", "110"],
    "soak": ["--jobs", "5000"],
}
QUICK = {
    "full_disk": ["--jobs", "20"],
    "kills": ["--faults", "10", "--epochs", "500"],
    "two_hosts": ["--jobs", "24", "--epochs", "600", "--cuts", "5"],
    "soak": ["--jobs", "200"],
}


def run(program: str, options: list[str], folder: Path) -> dict[str, Any]:
    """Run one program and return its output."""
    evidence.log(f"{program} {' '.join(options)}")
    command = [sys.executable, str(HERE / f"{program}.py"), *options, "--json", "--folder", str(folder / program)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if not ended.stdout:
        return {"faults": [], "details": {"ok": False, "exit_status": ended.returncode}}
    output: dict[str, Any] = json.loads(ended.stdout)
    return output


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
    outputs = {program: run(program, plan[program], folder) for program in options.only}
    rows = [Row(**row) for output in outputs.values() for row in output["faults"]]
    details = {program: output["details"] for program, output in outputs.items()}
    evidence.report(rows, details, "Faults", options.as_json)
    sys.exit(0 if all(one["ok"] for one in details.values()) else 1)


if __name__ == "__main__":
    main()
