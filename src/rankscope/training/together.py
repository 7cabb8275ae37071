"""`train_together`: train many rate networks at once on one device. Experimental, not yet run on a GPU.

For a device on which one network is too small. Each network draws its trials from its own generator, as in `train`;
results agree with `train` to the rounding of the batched products.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import torch

from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.networks.ensemble import can_run_together
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import Task
from rankscope.training.batched import BatchedGradient, stacked
from rankscope.training.config import TrainingConfig
from rankscope.training.cuda import find_device, full_precision
from rankscope.training.fit import Callback, Progress, fit
from rankscope.training.history import History
from rankscope.training.loss import find_loss
from rankscope.training.setup import begin, settle
from rankscope.validation import RngLike, number


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
        "cuda" or "cpu"; by default where the networks are, and where they are afterwards.
    checkpoints
        State file of each network, as of `train`: a network can be continued alone, or with others.

    Returns
    -------
    list of History
        One for each network; `seconds` is its share of the time.

    Raises
    ------
    InputError
        For an argument out of range, networks that differ in kind, or a state file of another training.
    """
    first = _check_alike(networks)
    if len(rngs) != len(networks):
        raise InputError(f"rngs must have one source for each of {len(networks)} networks, got {len(rngs)}")
    if checkpoints and len(checkpoints) != len(networks):
        raise InputError(f"checkpoints must have a file for each of {len(networks)} networks, got {len(checkpoints)}")
    if not isinstance(task, Task) or hasattr(task, "batches"):
        raise InputError(f"task must draw trials for networks that are trained together, got {task!r}")
    where = find_device(first.recurrent_weights.device if device is None else device)
    config = settle(config, task, epochs, options)
    for option in ("penalties", "validation_trials", "keep_best", "patience", "dtype"):
        if getattr(config, option):
            raise InputError(f"{option} must not be given for networks that are trained together; use rankscope.train")
    loss = find_loss(config.loss, task)
    number("checkpoint_seconds", checkpoint_seconds, minimum=0)
    with stacked(networks, where) as stacks, full_precision(), threads_for(first.hidden_size):
        each = itertools.zip_longest(networks, rngs, checkpoints)
        states = [begin(network, task, rng, config, loss, path) for network, rng, path in each]
        gradient = BatchedGradient(states, stacks, config, loss)
        fit(
            states,
            gradient,
            config,
            callbacks=callbacks,
            progress=progress,
            paths=checkpoints,
            seconds=checkpoint_seconds,
        )
        return [state.history() for state in states]


def _check_alike(networks: Sequence[RateRNN]) -> RateRNN:
    """Return the first of these networks; raise `InputError` if they cannot be trained together."""
    if isinstance(networks, RateRNN) or not len(networks) or not all(type(n) is RateRNN for n in networks):
        raise InputError(f"networks must be a list of RateRNN, at least one, got {networks!r:.200}")
    first = networks[0]
    kinds = [(n.architecture(), {name: (w.shape, w.dtype) for name, w in n.state_dict().items()}) for n in networks]
    if not can_run_together(first.dynamics) or first.noise_std > 0 or first.tau is not None:
        raise InputError(
            "networks must have the current convention, one nonlinearity known by name, no noise and no tau, to be "
            f"trained together, got {first.architecture()!r}; train them one by one with rankscope.train"
        )
    for index, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise InputError(f"networks must be of one kind and size, got another at {index}")
    if len({id(network) for network in networks}) < len(networks):
        raise InputError("networks must be different objects, got one twice")
    return first
