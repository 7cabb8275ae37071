"""Records of failed jobs: why each failed, as a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname

from rankscope.io.atomic import replacing


@dataclass(frozen=True)
class Failure:
    """Why a job failed: type of the error, message, traceback, host and time."""

    error: str
    message: str
    traceback: str
    host: str
    time: str


def write_failure(path: Path, error: str, message: str, traceback: str) -> None:
    """Record a failure on this host now, atomically.

    Raises
    ------
    OSError, InputError
        If the file system refuses.
    """
    failure = Failure(error, message, traceback, gethostname(), datetime.now(UTC).isoformat(timespec="seconds"))
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(asdict(failure)), encoding="utf-8")


def read_failure(path: Path) -> Failure | None:
    """Return the recorded failure, or None if there is no record."""
    try:
        failure = Failure(**json.loads(path.read_text(encoding="utf-8")))
        if not all(isinstance(value, str) for value in vars(failure).values()):
            raise TypeError
        return failure
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError):
        return Failure("unknown", "the record of this failure is damaged", "", "", "")
