"""The training loop: fresh trials, one gradient step, a look at the weights now and then.

One *epoch* is one gradient step on one fresh batch, as in the paper. Everything random comes from `rng`, in one
order, so that a seed repeats a training exactly, and a checkpoint continues it exactly. (paper section 1,
"Training")
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.networks.protocol import Network, check_network, hidden_size_of, outputs_of
from rankscope.tasks.trials import Task, Trials, as_trials
from rankscope.training import state_file
from rankscope.training.config import DEFAULT_EPOCHS, TrainingConfig, make_config
from rankscope.training.history import History
from rankscope.training.loss import Loss
from rankscope.training.manual_gradient import DirectGradient
from rankscope.training.rules import Rules, make_rules
from rankscope.training.setup import Recording, batches_of, begin
from rankscope.training.state_file import TrainingState
from rankscope.validation import RngLike, generator, integer, number

Progress = Callable[[int, int, float], None]
"""Called after every epoch with the number of epochs done, their total, and the last loss."""


def train(
    network: Network,
    task: Task | Iterable[Trials],
    epochs: int | None = None,
    rng: RngLike = None,
    *,
    config: TrainingConfig | None = None,
    progress: Progress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    **options: Any,
) -> History:
    """Train `network` in place and return what happened.

    Parameters
    ----------
    network
        A RateRNN, of which the `trained` parts change; a GatedRNN; or any torch.nn.Module whose forward takes (batch,
        time, in) and returns (batch, time, out), of which the parameters with `requires_grad` change. What a network
        may say about itself is in `rankscope.networks.protocol`.
    task
        Where the trials come from: a task, or any iterable of Trials, one batch an epoch.
    epochs
        Number of gradient steps; by default 1000, or all that the iterable has.
    rng
        Seed or Generator for the trials and the network's noise.
    config, options
        A TrainingConfig, or its fields as keywords: batch_size, optimizer, learning_rate, schedule, weight_decay,
        clip_norm, stop_below, loss, recorded_epochs, singular_values, eigenvalues, record_weights, matrices. See
        `TrainingConfig` for each.
    progress
        Called after every epoch with (epochs done, epochs in all, loss).
    checkpoint
        A file. If it is there, the training goes on from it, bit for bit, also to more epochs than it was begun
        with; it is written every `checkpoint_seconds`, on an interruption, and at the end. A resumed iterable
        has to yield the same batches again from the start.

    Returns
    -------
    History
        A divergence (a loss or gradient that is not finite, a step out of the range of the weights) ends the training
        and is recorded there; nothing is raised.

    Raises
    ------
    InputError
        For anything out of range, a network that has nothing to train, or a checkpoint of another training.
    """
    check_network("network", network)
    N = hidden_size_of(network)
    config = make_config(config, options)
    rules = make_rules(
        _total_epochs(task, epochs),
        N,
        batch_size=config.batch_size,
        optimizer=config.optimizer,  # type: ignore[arg-type]
        learning_rate=config.learning_rate,
        clip_norm=config.clip_norm,
        stop_below=config.stop_below,
    )
    judge = config.find_loss(task)
    interval = number("checkpoint_seconds", checkpoint_seconds, minimum=0)
    recording = Recording(
        config.recorded_epochs, config.singular_values, config.eigenvalues, config.record_weights, config.matrices
    )
    state, settings = begin(network, task, generator(rng), rules, judge, recording, N)
    total = rules.total
    if checkpoint is not None and Path(checkpoint).exists():
        state_file.restore(checkpoint, state, settings, total)
    if state.status in ("finished", "exhausted") and state.epoch != total:
        state.status = None  # longer than last time
    if state.status is None:

        def save() -> None:
            if checkpoint is not None:
                state_file.save(checkpoint, state, settings)

        parameters = dict(network.named_parameters())
        matrices_now = {name: parameters[name] for name in state.records.matrices}
        direct = DirectGradient(network) if DirectGradient.fits(network, judge) else None  # type: ignore[arg-type]
        course = _Course(batches_of(task, rules.batch_size, state), rules, judge, matrices_now, direct)
        with threads_for(N):
            _loop(state, course, progress, save, interval)
    assert state.status is not None
    return state.records.finish(state.status, rules.learning_rate, state.seconds)


@dataclass(frozen=True)
class _Course:
    """What stays the same from epoch to epoch."""

    batches: Iterator[Trials]
    rules: Rules
    loss: Loss
    matrices: Mapping[str, Tensor]
    direct: DirectGradient | None


def _loop(
    state: TrainingState, course: _Course, progress: Progress | None, save: Callable[[], None], interval: float
) -> None:
    """Run epochs until one of the reasons to end, which goes into `state.status`; save now and then and at the end."""
    started = last_saved = time.perf_counter()
    seconds_before = state.seconds
    owned = list(state.network.buffers())
    try:
        while state.status is None:
            random_state = state.rng.bit_generator.state
            buffers = [(buffer, buffer.clone()) for buffer in owned]
            _epoch(state, course)
            now = time.perf_counter()
            state.seconds = seconds_before + now - started
            if now - last_saved >= interval:
                save()
                last_saved = time.perf_counter()
            if progress is not None and state.epoch > state.epoch_begun:
                total = course.rules.total
                progress(state.epoch, state.epoch if total is None else total, state.records.losses[-1])
        save()
    except BaseException:
        # Ctrl-C, an error in the task: undo the half epoch, unless it was caught in the act of changing the weights;
        # then the checkpoint before it stands.
        if not state.changing:
            if len(state.records.losses) == state.epoch_begun:
                state.rng.bit_generator.state = random_state
                for buffer, before in buffers:
                    buffer.copy_(before)
            state.records.forget_from(state.epoch)
            save()
        raise


def _epoch(state: TrainingState, course: _Course) -> None:
    """Do one gradient step, and set `state.status` if it is the last."""
    rules = course.rules
    state.epoch_begun = state.epoch
    trials = None if state.epoch == rules.total else next(course.batches, None)
    if trials is None:
        state.status = "finished" if rules.total in (None, state.epoch) else "exhausted"
        return
    trials = as_trials(trials)
    records = state.records
    records.look_at(state.epoch, course.matrices)
    loss, total_norm = _gradient(state, course, trials) if course.direct is None else course.direct(trials, state.rng)
    parameters = state.optimizer.param_groups[0]["params"]
    norm = float(total_norm)
    diverged = rules.diverges(loss, norm)
    if diverged:
        trials.check_content()  # no divergence, if that is what the loss is made of
    factor = rules.clip_factors(total_norm)
    if factor is not None:
        for gradient in (weights.grad for weights in parameters if weights.grad is not None):
            gradient.mul_(factor.to(gradient.device))
    state.changing = True
    if not diverged:
        state.optimizer.step()
    records.losses.append(loss)
    records.gradient_norms.append(norm)
    state.epoch += 1
    state.status = "diverged" if diverged else rules.ending(state.epoch, loss, records.losses[0])
    state.changing = False


def _gradient(state: TrainingState, course: _Course, trials: Trials) -> tuple[float, Tensor]:
    """Leave the gradient in the parameters; return the loss, and the norm of the gradient."""
    # `outputs` and `batch_loss` go out of scope with this function, which hands their workspace to the next epoch.
    outputs = outputs_of(state.network, trials.inputs, state.rng)
    batch_loss = course.loss(outputs, trials.targets.to(outputs), trials.mask.to(outputs))
    if not batch_loss.requires_grad:
        raise InputError(
            "network must have outputs that depend on its parameters and a loss that torch can differentiate"
        )
    state.optimizer.zero_grad(set_to_none=True)
    batch_loss.backward()  # type: ignore[no-untyped-call]
    parameters = state.optimizer.param_groups[0]["params"]
    total_norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return float(batch_loss.detach()), total_norm


def _total_epochs(task: Task | Iterable[Trials], epochs: int | None) -> int | None:
    is_task = isinstance(task, Task)
    if isinstance(task, (type, str, Trials)) or not (is_task or isinstance(task, Iterable)):
        got, hint = repr(task), ""
        if isinstance(task, type):
            got, hint = f"the class {task.__name__}", f"; make one of it, as in {task.__name__}()"
        elif isinstance(task, Trials):
            hint = "; for one batch say [trials]"
        raise InputError(
            f"task must have a method sample(batch_size, rng) or be an iterable of Trials, got {got}{hint}"
        )
    if epochs is not None:
        return integer("epochs", epochs, minimum=1)
    if is_task:
        return DEFAULT_EPOCHS
    return len(task) if isinstance(task, Sized) else None
