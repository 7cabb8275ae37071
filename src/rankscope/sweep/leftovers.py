"""What killed processes leave in the folder of a run."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress

from rankscope.sweep import locks
from rankscope.sweep.store import FOLDERS, RunFolder

SECONDS_A_DAY = 86400.0


def remove_leftovers(store: RunFolder) -> None:
    """Remove stale locks, partial files of killed processes, and state files of finished jobs.

    Only the holder of a job's lock writes its files. A partial file is listed first and its lock checked after that:
    without a lock its writer has finished or died. Other temporary files are removed after a day.
    """
    locks.remove_stale(store.path / "locks")
    for path in (store.path / "state").glob("[!.]*.safetensors"):
        # A process may be killed between storing the result and removing the state file.
        if store.is_done(path.stem) and not locks.is_held(store.lock_path(path.stem)):
            path.unlink(missing_ok=True)
    patterns = (".*", *(f"{folder}/.*" for folder in FOLDERS), "jobs/*/.*")
    for path in [path for pattern in patterns for path in store.path.glob(pattern)]:
        in_job = path.parent.parent.name == "jobs"
        digest = path.parent.name if in_job else path.name[1:].split(".")[0]
        partial = (in_job or path.parent.name in ("jobs", "state")) and path.suffix == ".part"
        with suppress(OSError):
            old = time.time() - path.stat().st_mtime > SECONDS_A_DAY
            if (partial and not locks.is_held(store.lock_path(digest))) or old:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
