"""Results of jobs that several runs have in common, taken from another run folder instead of computed again."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rankscope.sweep.job import Job
from rankscope.sweep.store import RunFolder


def share_results(
    jobs: Sequence[Job],
    folder: str | os.PathLike[str],
    others: Iterable[str | os.PathLike[str]],
    description: Mapping[str, Any] | None = None,
) -> int:
    """Link finished results of the same jobs in other run folders into `folder`; return how many.

    The files are hard links where the file system has them, and copies elsewhere. No file of a result is ever changed
    in place, so a run cannot change the results of another one.

    Raises
    ------
    InputError
        If `folder` cannot be made or is not that of a run.
    """
    store = RunFolder(folder)
    found: dict[str, RunFolder] = {}
    for other in map(RunFolder, others):
        if other.path != store.path and other.path.is_dir():
            found |= {job.digest: other for job in jobs if other.is_done(job.digest)}
    wanted = [digest for digest in found if not store.path.is_dir() or not store.is_done(digest)]
    if wanted:
        store.prepare(jobs, description)
    for digest in wanted:
        target = store.path / "jobs" / digest
        temporary = target.with_name(f".{digest}.{secrets.token_hex(4)}.part")
        try:
            shutil.copytree(found[digest].path / "jobs" / digest, temporary, copy_function=_link)
            if not target.exists():
                temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return len(wanted)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return str(Path(target))
