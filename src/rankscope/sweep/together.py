"""Train the jobs of a run that are alike together on one device. Experimental, not yet run on a GPU.

What remains of each job is the state file that training it alone would have left. The ordinary run then continues from
there on processes: it finds the training finished, measures and stores. So locks, results and failures are those of
any other run, and a run begun on a device can be finished on processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from rankscope.errors import InputError
from rankscope.networks.rate import RateRNN
from rankscope.sweep import locks
from rankscope.sweep.store import RunFolder
from rankscope.tasks.trials import Task
from rankscope.training.batched import bytes_of_one
from rankscope.training.config import TrainingConfig
from rankscope.training.cuda import free_bytes
from rankscope.training.fit import Progress
from rankscope.training.together import check_alike, train_together

SHARE_OF_MEMORY = 0.7
"""Share of the free memory of a device that a group may take: `bytes_of_one` is an estimate."""


@dataclass(frozen=True)
class Trainee:
    """Training of one job.

    Attributes
    ----------
    digest
        Of the job.
    kind
        Description of all that has to agree in a group: task, training, size and dynamics of the network.
    steps
        Time steps of a trial.
    begin
        Return the initial network and the generator of its trials.
    """

    digest: str
    kind: str
    task: Task
    steps: int
    config: TrainingConfig
    begin: Callable[[], tuple[RateRNN, np.random.Generator]]


def train_groups(
    trainees: Sequence[Trainee],
    store: RunFolder,
    device: torch.device,
    progress: Callable[[Sequence[str]], Progress] | None = None,
    largest: int | None = None,
) -> dict[str, str]:
    """Train what is alike together, and leave a state file for each job.

    A job that another process works on, that is alone of its kind, or whose group fails is left to the run.

    Parameters
    ----------
    progress
        Returns the `progress` of the group with these digests.
    largest
        Networks in a group; by default as many as fit into the memory of the device.

    Returns
    -------
    dict
        Digest of each job that was not trained here, and the reason.
    """
    alone: dict[str, str] = {}
    kinds: dict[str, list[Trainee]] = {}
    for trainee in trainees:
        if not store.is_done(trainee.digest):
            kinds.setdefault(trainee.kind, []).append(trainee)
    groups: list[list[Trainee]] = []
    for kind in kinds.values():
        try:
            network = check_alike([kind[0].begin()[0]])
        except InputError as error:
            alone |= dict.fromkeys((trainee.digest for trainee in kind), str(error))
            continue
        each = bytes_of_one(network, kind[0].steps, kind[0].config.batch_size)
        size = largest or max(1, int(SHARE_OF_MEMORY * free_bytes(device) / each))
        count = math.ceil(len(kind) / size)
        groups += [kind[number::count] for number in range(count)]
    while groups:
        group = groups.pop(0)
        try:
            alone |= _train(group, store, device, progress)
        except torch.OutOfMemoryError:
            if len(group) > 2:
                groups[:0] = [group[0::2], group[1::2]]
            else:
                alone |= dict.fromkeys((trainee.digest for trainee in group), "the device has too little memory")
        except Exception as error:  # a process repeats each training alone, and records the errors of each
            alone |= dict.fromkeys((trainee.digest for trainee in group), f"{type(error).__name__}: {error}")
    return alone


def _train(
    group: Sequence[Trainee],
    store: RunFolder,
    device: torch.device,
    progress: Callable[[Sequence[str]], Progress] | None,
) -> dict[str, str]:
    """Train one group while holding the locks of its jobs; return the jobs left out and why."""
    with ExitStack() as held:
        ours = []
        for trainee in group:
            lock = locks.acquire(store.claim_path(trainee.digest))
            if lock is not None:
                held.enter_context(lock)
                ours.append(trainee)
        digests = [trainee.digest for trainee in ours]
        left = {one.digest: "another process works on it" for one in group if one.digest not in digests}
        if len(ours) < 2:
            return left | dict.fromkeys(digests, "it is the only one of its kind")
        networks, rngs = zip(*(trainee.begin() for trainee in ours), strict=True)
        train_together(
            networks,
            ours[0].task,
            None,
            rngs,
            config=ours[0].config,
            device=device,
            progress=None if progress is None else progress(digests),
            checkpoints=[store.checkpoint_path(digest) for digest in digests],
        )
        return left
