"""Validate the arguments of a training, build its state, and continue it from a state file."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np

from rankscope.errors import InputError
from rankscope.networks.parametrizations import gamma_of
from rankscope.networks.protocol import Network, architecture_of, hidden_size_of, matrices_of
from rankscope.networks.rate import RateRNN
from rankscope.tasks import describe
from rankscope.tasks.trials import BuiltInTask, Task, Trials, as_trials
from rankscope.training import state_file
from rankscope.training.config import DEFAULT_EPOCHS, TrainingConfig, check_kept
from rankscope.training.identity import identities
from rankscope.training.loss import Loss, name_of_loss
from rankscope.training.optimizers import parameter_groups
from rankscope.training.prefetch import drawn_ahead
from rankscope.training.recorder import MatrixRecords, Recorder, record_schedule
from rankscope.training.state import TrainingState
from rankscope.validation import RngLike, generator, integer

VALIDATION_SEED = 20201
"""Seed of the validation trials of every training, so that a continued training has the same."""


def settle(
    config: TrainingConfig | None, task: Task | Iterable[Trials], epochs: int | None, options: dict[str, Any]
) -> TrainingConfig:
    """Return `config`, or one of `options`, with the number of epochs of this task."""
    _check_task(task)
    given = config is not None or "epochs" in options
    if config is None:
        config = TrainingConfig(**options)
    elif options:
        raise InputError(f"options must be fields of config where config is given, got {', '.join(options)} beside it")
    elif not isinstance(config, TrainingConfig):
        raise InputError(f"config must be a TrainingConfig, got {config!r}")
    if epochs is not None:
        return config.model_copy(update={"epochs": integer("epochs", epochs, minimum=1)})
    if given or isinstance(task, Task):
        return config
    return config.model_copy(update={"epochs": len(task) if isinstance(task, Sized) else None})


def begin(
    network: Network,
    task: Task | Iterable[Trials],
    rng: RngLike,
    config: TrainingConfig,
    loss: Loss,
    path: str | os.PathLike[str] | None,
) -> TrainingState:
    """Return the state before the first epoch, or where the state file at `path` left it.

    Raises
    ------
    InputError
        If the network has nothing to train, or cannot be recorded as configured, or the state file is refused.
    """
    N = hidden_size_of(network)
    initial = {name: matrix.detach().clone() for name, matrix in matrices_of(network, config.matrices).items()}
    records = Recorder(
        matrices={name: MatrixRecords(matrix) for name, matrix in initial.items()},
        schedule=record_schedule(config.epochs or DEFAULT_EPOCHS, config.recorded_epochs, N),
        singular_count=config.singular_values,
        keep_weights=config.record_weights,
        eigenvalue_count=config.eigenvalues,
    )
    if config.eigenvalues and not any(matrix.shape[0] == matrix.shape[1] for matrix in initial.values()):
        raise InputError(
            f"eigenvalues must be 0 as none of the matrices {list(initial)} is square, got {config.eigenvalues}"
        )
    check_kept(config.kept_epochs, config.epochs)
    trained = [weights for weights in network.parameters() if weights.requires_grad]
    if not trained:
        got = f"trained = {network.trained!r}" if isinstance(network, RateRNN) else "no parameter with requires_grad"
        raise InputError(f"network must have something to train, got {got}")
    rates, gamma = config.learning_rates, gamma_of(network)
    optimizer = config.make_optimizer(trained if rates is None else parameter_groups(network, rates), N, gamma)
    settings = config.model_dump(mode="json", exclude={"epochs", "recorded_epochs", "kept_epochs"}) | {
        "learning_rate": config.rate_for(N, gamma),
        "architecture": architecture_of(network),
        "weights": {name: [str(w.dtype), *w.shape] for name, w in network.state_dict().items()},
        "task": _described(task),
        "loss": name_of_loss(loss),
        "matrices": list(initial),
    }
    if path is not None:
        settings |= identities(network, task, config, loss)
    state = TrainingState(
        network,
        optimizer,
        generator(rng),
        records,
        settings=json.loads(json.dumps(settings)),
        learning_rate=config.rate_for(N, gamma),
        scheduler=config.make_scheduler(optimizer),
        finite=hasattr(task, "batches"),
    )
    if path is not None and Path(path).exists():
        state_file.restore(path, state, config.epochs)
    if state.status is None:
        state.batches = _batches(task, config, state)
    return state


def _batches(task: Any, config: TrainingConfig, state: TrainingState) -> Iterator[Iterable[Trials]]:
    """Return the batches of each epoch, from `state.epoch` on, drawn from `state.rng`."""
    batch_size = config.batch_size
    noiseless = not config.gradient_noise and isinstance(state.network, RateRNN) and state.network.noise_std == 0
    if state.finite:
        return iter(lambda: task.batches(batch_size, state.rng), None)
    if noiseless and isinstance(task, BuiltInTask) and task.by_rng_alone:
        return ((trials,) for trials in drawn_ahead(task, batch_size, state.rng))
    if isinstance(task, Task):
        return iter(lambda: (task.sample(batch_size, state.rng),), None)
    if isinstance(task, Sequence) and len(task) and config.epochs is not None:  # repeated for all epochs
        return ((task[epoch % len(task)],) for epoch in itertools.count(state.epoch))
    return ((trials,) for trials in itertools.islice(iter(task), state.epoch, None))


def validation_of(task: Any, config: TrainingConfig) -> list[Trials] | None:
    """Return the trials for validation, or None without validation.

    Raises
    ------
    InputError
        If an option needs validation trials and there are none, or the task cannot draw any.
    """
    if hasattr(task, "validation"):
        return list(task.validation())
    if config.validation_trials is None:
        for option in ("keep_best", "patience"):
            if getattr(config, option):
                raise InputError(
                    f"validation_trials must be a number, such as 256, for {option}={getattr(config, option)!r}, as "
                    "the task has no validation data of its own, got None"
                )
        return None
    if not isinstance(task, Task):
        raise InputError("validation_trials must be None for an iterable of Trials, which cannot draw any")
    source = task.fresh() if isinstance(task, BuiltInTask) else task
    return [as_trials(source.sample(config.validation_trials, np.random.default_rng(VALIDATION_SEED)))]


def _check_task(task: object) -> None:
    if isinstance(task, (type, str, Trials)) or not isinstance(task, (Task, Iterable)):
        got, hint = repr(task), ""
        if isinstance(task, type):
            got, hint = f"the class {task.__name__}", f"; make one of it, as in {task.__name__}()"
        elif isinstance(task, Trials):
            hint = "; for one batch write [trials]"
        raise InputError(
            f"task must have a method sample(batch_size, rng) or be an iterable of Trials, got {got}{hint}"
        )


def _described(task: Any) -> Any:
    """Return the description of a task; None if it has none."""
    try:
        return describe(task)
    except InputError:
        return None
