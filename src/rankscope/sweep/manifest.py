"""`run.json`: the description of a run and the list of its jobs.

The same folder may be used again with more jobs; the lists are merged. The file is for readers: no result depends on
it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankscope.errors import InputError
from rankscope.io.atomic import replacing
from rankscope.sweep.job import Job
from rankscope.sweep.locks import acquire

FORMAT = "rankscope.run.2"
DIGEST = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""Digests are names of files."""


@dataclass(frozen=True)
class Manifest:
    """The content of run.json.

    Attributes
    ----------
    description
        What the run is, as plain values.
    jobs
        The description of each job by its digest, in the order in which they were first requested.
    """

    description: Mapping[str, Any]
    jobs: Mapping[str, Mapping[str, Any]]


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest at `path`, or None if there is none.

    Raises
    ------
    InputError
        If the file cannot be read or is not the manifest of a run.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']!r}")
        jobs = {str(digest): dict(job) for digest, job in dict(values["jobs"]).items()}
        foreign = next((digest for digest in jobs if not DIGEST.fullmatch(digest)), None)
        if foreign is not None:
            raise ValueError(f"a job has the digest {foreign[:40]!r}")
        return Manifest(dict(values["description"]), jobs)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path} must be the run.json of a run ({FORMAT}), got something else ({error!r:.200}); choose another "
            "folder, or move the file away: no finished job depends on it"
        ) from error


def merge_manifest(
    path: Path,
    lock_path: Path,
    jobs: Sequence[Job],
    description: Mapping[str, Any] | None,
    dropped: Collection[str] = (),
) -> Manifest:
    """Add `jobs` to the manifest at `path`, and replace its description unless `description` is None.

    Parameters
    ----------
    lock_path
        Held while the file is read and written, so that no process overwrites what another one added.
    dropped
        Digests of jobs that are no longer listed.

    Raises
    ------
    InputError
        If the file there is not a manifest, cannot be written, or the description is not JSON.
    """
    while (lock := acquire(lock_path)) is None:
        time.sleep(0.02)
    with lock:
        old = read_manifest(path) or Manifest({}, {})
        described = {job.digest: json.loads(job.to_json()) for job in jobs}
        kept = {digest: job for digest, job in old.jobs.items() if digest not in dropped}
        merged = Manifest(old.description if description is None else description, {**kept, **described})
        values = {"format": FORMAT, "description": merged.description, "jobs": merged.jobs}
        try:
            text = json.dumps(values, indent=1)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"description of a run must be JSON values: {error}") from error
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return merged
