"""Entry point: runs a command, and turns bad input into one line and exit status 2."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer

from rankscope.cli import checkpoints, data, explore, extract, figures, report, reproduce, runs, theories, train
from rankscope.cli.app import app
from rankscope.errors import InputError

# Importing these modules registers their commands, which `--help` lists in this order of files.
COMMANDS = (train, runs, reproduce, figures, report, explore, theories, checkpoints, extract, data)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 for success, 2 for bad input, 130 and 143 for interruptions."""
    signal.signal(signal.SIGTERM, _on_terminate)
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = app(args=given, standalone_mode=False)
    except InputError as error:
        _fail(str(error), 2)
    except typer.TyperException as error:
        _fail(error.format_message() + _unreadable_value(error, given), 2)
    except OSError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; the same command resumes a training or a run", 130)
    sys.exit(status if isinstance(status, int) else 0)


def _unreadable_value(error: typer.TyperException, given: list[str]) -> str:
    """Return ", got VALUE" for an option whose text could not be parsed, which typer leaves out."""
    for option in getattr(getattr(error, "param", None), "opts", ()):
        for index, text in enumerate(given):
            name, equals, value = text.partition("=")
            if name == option and (equals or index + 1 < len(given)):
                unreadable = value if equals else given[index + 1]
                return f", got {unreadable!r}"
    return ""


def _fail(message: str, status: int) -> None:
    sys.stderr.write(f"rankscope: {' '.join(message.split())}\n")
    sys.exit(status)


def _on_terminate(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)
