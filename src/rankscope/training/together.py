"""`train_together`: train many rate networks at once on one device. Experimental, not yet run on a GPU.

For a device on which one network is too small. Each network draws its trials from its own generator, as in `train`;
results agree with `train` to the rounding of the batched products.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.networks.ensemble import can_run_together
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import Task
from rankscope.training import state_file
from rankscope.training.batched import BatchedGradient, stacked
from rankscope.training.config import TrainingConfig
from rankscope.training.cuda import find_device, full_precision
from rankscope.training.fit import Callback, Files, Progress, fit
from rankscope.training.history import History
from rankscope.training.setup import batches_of, begin, settle
from rankscope.validation import RngLike, generator, number


def train_together(
    networks: Sequence[RateRNN],
    task: Task,
    epochs: int | None,
    rngs: Sequence[RngLike],
    *,
    config: TrainingConfig | None = None,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback] = (),
    progress: Progress | None = None,
    checkpoints: Sequence[str | os.PathLike[str]] = (),
    checkpoint_seconds: float = 60.0,
    **options: Any,
) -> list[History]:
    """Train networks of one kind in place, all on one task and each on its own trials.

    Parameters
    ----------
    networks
        Networks of one size, one dynamics (current convention, one named nonlinearity, no noise) and the same trained
        weights.
    task, epochs, config, options, callbacks, progress
        As in `train`, for a task that draws trials; `progress` receives the mean loss.
    rngs
        Source of trials of each network.
    device
        "cuda" or "cpu"; by default where the networks are. Afterwards they are back where they were.
    checkpoints
        State file of each network, the same files as those of `train`: a network can be continued alone, or in other
        company.

    Returns
    -------
    list of History
        One for each network; `seconds` is its share of the time.

    Raises
    ------
    InputError
        For an argument out of range, networks that differ in kind, a missing device, or a state file of another
        training.
    """
    first = check_alike(networks)
    if len(rngs) != len(networks):
        raise InputError(f"rngs must have one source for each of {len(networks)} networks, got {len(rngs)}")
    if checkpoints and len(checkpoints) != len(networks):
        raise InputError(f"checkpoints must have a file for each of {len(networks)} networks, got {len(checkpoints)}")
    if not isinstance(task, Task) or hasattr(task, "batches"):
        raise InputError(f"task must draw trials for networks that are trained together, got {task!r}")
    where = find_device(first.recurrent_weights.device if device is None else device)
    config = settle(config, task, epochs, options)
    loss = config.find_loss(task)
    files = Files(checkpoints, number("checkpoint_seconds", checkpoint_seconds, minimum=0))
    with stacked(networks, where) as stacks, full_precision(), threads_for(first.hidden_size):
        states = [begin(network, task, generator(rng), config) for network, rng in zip(networks, rngs, strict=True)]
        for state, path in zip(states, checkpoints, strict=False):
            if Path(path).exists():
                state_file.restore(path, state, config.epochs)
                state.extend(config.epochs)
        for state in states:
            state.batches = batches_of(task, config.batch_size, state)
        if any(state.status is None for state in states):
            gradient = BatchedGradient(states, stacks, config, loss)
            fit(states, gradient, config, callbacks=callbacks, progress=progress, files=files)
        return [state.history() for state in states]


def check_alike(networks: Sequence[RateRNN]) -> RateRNN:
    """Return the first of networks that can be trained together.

    Raises
    ------
    InputError
        If they cannot.
    """
    if isinstance(networks, RateRNN) or not len(networks) or not all(type(n) is RateRNN for n in networks):
        raise InputError(f"networks must be a list of RateRNN, at least one, got {networks!r:.200}")
    first = networks[0]
    kinds = [(n.architecture(), {name: (w.shape, w.dtype) for name, w in n.state_dict().items()}) for n in networks]
    if not can_run_together(first.dynamics) or first.noise_std > 0:
        raise InputError(
            "networks must have the current convention, one nonlinearity known by name, and no noise, to be trained "
            f"together, got {first.architecture()!r}; train them one by one with rankscope.train"
        )
    for index, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise InputError(f"networks must be of one kind and size, got another at {index}")
    if len({id(network) for network in networks}) < len(networks):
        raise InputError("networks must be different objects, got one twice")
    return first
