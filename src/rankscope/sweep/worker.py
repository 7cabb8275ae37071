"""What happens to one cell where it is worked on, in a process of ours or on some machine of a cluster.

The claim is taken first, then the folder is looked at once more, then the work is done, saved, and only then is the
claim given back. So at every moment a cell is unclaimed, claimed by somebody alive, or finished.
"""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import torch
import xarray as xr
from safetensors import SafetensorError

from rankscope.errors import InputError
from rankscope.sweep import locks
from rankscope.sweep.netcdf import encode_result
from rankscope.sweep.processes import Report
from rankscope.sweep.store import RunFolder

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Cell(Protocol):
    """What a sweep is made of."""

    @property
    def digest(self) -> str:
        """A name for everything that determines the cell's result."""

    def describe(self) -> dict[str, Any]:
        """Return the cell as plain values."""


Work = Callable[[Any, Report, Path], xr.Dataset]
"""work(cell, report, checkpoint): compute a cell; `checkpoint` is where it may keep a checkpoint to go on from."""


class Ending(Enum):
    """How an attempt at a cell ended."""

    FINISHED = "finished"
    ALREADY = "already"  # finished by somebody else
    FAILED = "failed"
    HELD = "held"  # somebody else is at work on it
    NO_STORAGE = "no storage"  # the folder cannot be written to any more


@dataclass(frozen=True)
class Attempt:
    """How an attempt at a cell ended, and the error if there was one."""

    ending: Ending
    message: str = ""


def attempt(work: Work, folder: RunFolder, cell: Cell, report: Report) -> Attempt:
    """Do the work of one cell, unless it is done or somebody is at it, and save or record what comes of it.

    Raises nothing: whatever goes wrong is in what is returned.
    """
    try:
        if not (folder.path / "run.json").exists():
            return Attempt(Ending.NO_STORAGE, f"a worker does not see {folder.path}; it must be shared by all machines")
        settled = _settled(folder, cell.digest)
        if settled is not None:
            return settled
        claim = locks.acquire(folder.claim_path(cell.digest))
        if claim is None:
            return Attempt(Ending.HELD)
        with claim:
            # Somebody may have settled it between our look and our claim.
            return _settled(folder, cell.digest) or _work_and_save(work, folder, cell, report)
    except (OSError, InputError) as error:
        return Attempt(Ending.NO_STORAGE, str(error))


def attempt_elsewhere(work: Work, folder: RunFolder, cell: Cell, number: int, parent: tuple[str, int]) -> Attempt:
    """`attempt`, on an executor that is not ours.

    Parameters
    ----------
    number
        Differs from call to call, so that no executor takes a second attempt for the first.
    parent
        The host and the process of the sweep.
    """
    if parent != (locks.this_host(), os.getpid()) and torch.get_num_threads() != 1:
        # As in a process of ours, so that the results are the same bits.
        torch.set_num_threads(1)
    return attempt(work, folder, cell, lambda done, total, loss: None)


def _settled(folder: RunFolder, digest: str) -> Attempt | None:
    if folder.is_done(digest):
        return Attempt(Ending.ALREADY)
    failure = folder.failure(digest)
    return None if failure is None else Attempt(Ending.FAILED, f"{failure.error}: {failure.message}")


def _work_and_save(work: Work, folder: RunFolder, cell: Cell, report: Report) -> Attempt:
    checkpoint = folder.checkpoint_path(cell.digest)
    resumed = checkpoint.exists()
    try:
        result = work(cell, report, checkpoint)
        if not isinstance(result, xr.Dataset):
            raise TypeError(f"work must return an xarray.Dataset, got {type(result).__name__}")
        content = encode_result(result, cell.digest)
    except Exception as error:
        if _no_room(error):
            return Attempt(Ending.NO_STORAGE, str(error))
        folder.fail(cell.digest, type(error).__name__, str(error), traceback.format_exc())
        if resumed and checkpoint.exists():
            # It may be what made the cell fail; another try is to begin afresh.
            folder.set_aside(checkpoint, f"the cell failed going on from here: {error}")
        return Attempt(Ending.FAILED, f"{type(error).__name__}: {error}")
    folder.save(cell.digest, content)
    checkpoint.unlink(missing_ok=True)
    return Attempt(Ending.FINISHED)


def _no_room(error: BaseException | None) -> bool:
    while error is not None:
        # safetensors, which writes checkpoints, has the number of the error only in its message.
        told = re.search(r"\(os error (\d+)\)", str(error)) if isinstance(error, SafetensorError) else None
        number = error.errno if isinstance(error, OSError) else int(told[1]) if told else None
        if number in NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False
