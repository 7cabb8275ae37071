"""Train alike jobs of a run together on one device. Experimental, not yet run on a GPU.

Each job is left with the state file that training it alone would have left. The ordinary run then continues from there
in processes: it finds the training finished, measures and stores. So locks, results and failures are those of any other
run, and a run begun on a device can be finished in processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch

from rankscope.errors import InputError
from rankscope.sweep import locks
from rankscope.sweep.job import Job, Progress
from rankscope.sweep.store import RunFolder
from rankscope.training import train_together
from rankscope.training.cuda import find_device

LARGEST_GROUP = 128
"""Networks in a group. A group that does not fit into the memory of the device is halved."""

ProgressOf = Callable[[Sequence[Job]], Progress]


def chosen_device(device: str | None) -> torch.device | None:
    """Return the device to train on together, or None to train in processes; raise `InputError` if it is missing."""
    if device is None or (device == "auto" and not torch.cuda.is_available()):
        return None
    return find_device("cuda" if device == "auto" else device)


def train_groups(
    jobs: Sequence[Job],
    store: RunFolder,
    device: torch.device,
    progress_of: ProgressOf | None = None,
) -> dict[str, str]:
    """Train jobs together that differ only in gain, seed and labels, and leave a state file for each.

    A job that another process works on, that is alone of its kind, or whose group fails is left to the run.

    Parameters
    ----------
    progress_of
        Returns the `progress` of a group.

    Returns
    -------
    dict
        Digest of each job that was not trained here, and the reason.
    """
    alone: dict[str, str] = {}
    kinds: dict[str, list[Job]] = {}
    for job in jobs:
        spec = {name: value for name, value in job.description["network"].items() if name != "gain"}
        kind = {**job.description, "network": spec, "seed": None, "labels": None}
        kinds.setdefault(json.dumps(kind, sort_keys=True), []).append(job)
    groups: list[list[Job]] = []
    for alike in kinds.values():
        count = -(-len(alike) // LARGEST_GROUP)
        groups += [alike[number::count] for number in range(count)]
    while groups:
        group = groups.pop(0)
        try:
            alone |= _train(group, store, device, progress_of)
        except torch.OutOfMemoryError:
            if len(group) > 2:
                groups[:0] = [group[0::2], group[1::2]]
            else:
                alone |= dict.fromkeys((job.digest for job in group), "the device has too little memory")
        except Exception as error:  # a process repeats each training alone, and records the errors of each
            alone |= dict.fromkeys((job.digest for job in group), f"{type(error).__name__}: {error}")
    return alone


def _train(
    group: Sequence[Job], store: RunFolder, device: torch.device, progress_of: ProgressOf | None
) -> dict[str, str]:
    """Train one group while holding the locks of its jobs; return the jobs left out and why."""
    with ExitStack() as held:
        ours = []
        for job in group:
            lock = locks.acquire(store.lock_path(job.digest))
            if lock is not None:
                held.enter_context(lock)
                if not store.is_done(job.digest):
                    ours.append(job)
        digests = {job.digest for job in ours}
        left = {job.digest: "another process works on it" for job in group if job.digest not in digests}
        if len(ours) < 2:
            return left | dict.fromkeys(digests, "it is the only one of its kind")
        task = ours[0].make_task()
        if task.fresh() is not task:
            raise InputError("task must draw fresh trials to be shared by several networks")
        train_together(
            [job.initial_network(task) for job in ours],  # type: ignore[misc]
            task,
            None,
            [job.random_streams()[1] for job in ours],
            config=ours[0].training,
            device=device,
            progress=None if progress_of is None else progress_of(ours),
            checkpoints=[store.state_path(job.digest) for job in ours],
        )
        return left
