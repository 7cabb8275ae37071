"""`train`: validate the arguments, choose the gradient, and train one network. The loop itself is in `fit.py`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from rankscope.linalg.threads import threads_for
from rankscope.networks.protocol import Network, check_network, hidden_size_of
from rankscope.notebook import training_bar
from rankscope.tasks.trials import Task, Trials
from rankscope.training.config import DTYPES, TrainingConfig
from rankscope.training.constrained_gradient import ConstrainedGradient
from rankscope.training.fit import Callback, Progress, fit
from rankscope.training.gradients import AutogradGradient
from rankscope.training.history import History
from rankscope.training.loss import find_loss, validate
from rankscope.training.manual_gradient import ManualGradient
from rankscope.training.setup import begin, settle, validation_of
from rankscope.validation import RngLike, number


def train(
    network: Network,
    task: Task | Iterable[Trials],
    epochs: int | None = None,
    rng: RngLike = None,
    *,
    config: TrainingConfig | None = None,
    callbacks: Sequence[Callback] = (),
    progress: Progress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    **options: Any,
) -> History:
    """Train `network` in place and return its history.

    An epoch is one gradient step on a fresh batch, as in the paper; for a task with finite data it is one pass.

    Parameters
    ----------
    network
        RateRNN (its `trained` weights change), GatedRNN, or any torch.nn.Module whose forward maps (batch, time, in)
        to (batch, time, out) (the parameters with `requires_grad` change). See `rankscope.networks.protocol`.
    task
        A task with `sample(batch_size, rng)`; a task with finite data, `batches(batch_size, rng)`, an iterable over
        the Trials of one pass, and optionally `validation()`, a list of Trials; a list of Trials, one an epoch,
        repeated for all epochs; or any other iterable of Trials, one an epoch.
    epochs
        1000 by default, or the length of an iterable.
    rng
        Seed or Generator of the trials and the network's noise.
    config, options
        A TrainingConfig, or its fields as keywords: batch_size, optimizer, learning_rate, learning_rates, schedule,
        weight_decay, clip_norm, gradient_noise, penalties, dtype, stop_below, stop_loss, loss, recorded_epochs,
        singular_values, eigenvalues, record_weights, matrices, validation_trials, validation_every, keep_best,
        kept_epochs, patience.
    callbacks
        Functions of the TrainingState, called after every epoch. One that returns True ends the training.
    progress
        Called after every epoch with (completed epochs, total, loss). By default a bar in notebooks, else nothing.
    checkpoint
        State file. If it exists, the training continues from it, bit for bit, also to more epochs than before. It is
        written every `checkpoint_seconds`, on an interruption, and at the end. An iterable of Trials must yield the
        same batches again from the start.

    Returns
    -------
    History
        A divergence (a loss or gradient that is not finite, a step out of the range of the weights) ends the training
        with status "diverged"; nothing is raised.

    Raises
    ------
    InputError
        For an argument out of range, a network with nothing to train, or a state file of another training.
    """
    check_network("network", network)
    config = settle(config, task, epochs, options)
    loss = find_loss(config.loss, task)
    number("checkpoint_seconds", checkpoint_seconds, minimum=0)
    validation = validation_of(task, config)
    if config.dtype is not None and isinstance(network, nn.Module):
        network.to(DTYPES[config.dtype])
    state = begin(network, task, rng, config, loss, checkpoint)
    if state.status is None:
        kinds = () if config.penalties else (ManualGradient, ConstrainedGradient)
        fitting = next((kind for kind in kinds if kind.fits(network, loss)), None)
        gradient = AutogradGradient(loss, config.penalties) if fitting is None else fitting(network)  # type: ignore[arg-type]
        with threads_for(hidden_size_of(network)):
            fit(
                [state],
                gradient,
                config,
                validate=None if validation is None else lambda state: validate(state.network, validation, loss, task),
                callbacks=callbacks,
                progress=training_bar() if progress is None else progress,
                paths=() if checkpoint is None else (checkpoint,),
                seconds=checkpoint_seconds,
            )
    if state.best is not None:
        network.load_state_dict(state.best)
    if state.status == "exhausted":
        warnings.warn(
            f"the iterable of trials ended after {state.epoch} of {config.epochs} epochs, and so did the training; a "
            "list of trials is repeated",
            stacklevel=2,
        )
    return state.history()
