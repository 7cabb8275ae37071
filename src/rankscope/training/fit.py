"""The training loop, for one network or many, trials drawn afresh or finite data, and any gradient.

The order of an epoch: the recorder looks up the schedule and records the matrices; each batch gives a loss and a
gradient, which is clipped and makes a step, unless the training diverges; then come validation, the learning rate
schedule and the callbacks. All randomness comes from the state's generator in this order, so that a seed repeats a
training exactly and a state file continues it exactly.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankscope.tasks.trials import Trials, as_trials
from rankscope.training import state_file
from rankscope.training.config import TrainingConfig
from rankscope.training.gradients import Gradient
from rankscope.training.state import TrainingState
from rankscope.training.state_file import Contents

LARGEST_STEP = 1e30
"""A longer step would take single-precision weights out of range."""

Progress = Callable[[int, int, float], None]
"""Called after every epoch with the number of completed epochs, their total, and the loss."""
Callback = Callable[[TrainingState], object]
"""Called after every epoch with the state; returning True stops the training."""
Validate = Callable[[TrainingState], tuple[float, float]]
"""Returns validation loss and accuracy."""


@dataclass(frozen=True)
class _Begun:
    """What an interruption needs to return to the beginning of an epoch."""

    states: Sequence[TrainingState] = ()
    epochs: Sequence[int] = ()
    rngs: Sequence[Mapping[str, Any]] = ()
    buffers: Sequence[tuple[Tensor, Tensor]] = ()
    passes: Sequence[Contents] = ()


def fit(
    states: Sequence[TrainingState],
    gradient: Gradient,
    config: TrainingConfig,
    *,
    validate: Validate | None = None,
    callbacks: Sequence[Callback] = (),
    progress: Progress | None = None,
    paths: Sequence[str | os.PathLike[str]] = (),
    seconds: float = 60.0,
) -> None:
    """Train until every state has a status.

    An interruption or an error undoes the epoch that it cut short, and saves. If it hits while weights are being
    changed, the last file remains; a pass over finite data is undone there too.

    Parameters
    ----------
    states
        Networks to train; those with a status are left alone.
    gradient
        Computes the gradients of all of them.
    config
        `epochs` is the total, None to train until the batches end.
    validate
        Called after every `validation_every` epochs.
    progress
        Receives the mean loss of several networks.
    paths, seconds
        State file of each network, or none, and the time between two saves.
    """
    run = _Run(states, gradient, config, validate, paths)
    started = saved = time.perf_counter()
    before = [state.seconds for state in states]
    try:
        while learning := [state for state in states if state.status is None]:
            run.begin(learning)
            trained = run.epoch(learning)
            now = time.perf_counter()
            for state, earlier in zip(states, before, strict=True):
                state.seconds = earlier + (now - started) / len(states)
            for state in trained:
                for callback in callbacks:
                    if callback(state) is True and state.status is None:
                        state.status = "stopped"
            if now - saved >= seconds:
                run.save()
                saved = time.perf_counter()
            if progress is not None and trained:
                done = trained[0].epoch
                progress(done, config.epochs or done, float(np.mean([state.records.losses[-1] for state in trained])))
        run.save()
    except BaseException:
        run.undo()
        raise


class _Run:
    """One call of `fit`."""

    def __init__(
        self,
        states: Sequence[TrainingState],
        gradient: Gradient,
        config: TrainingConfig,
        validate: Validate | None,
        paths: Sequence[str | os.PathLike[str]],
    ) -> None:
        self._states, self._gradient, self._config, self._validate = states, gradient, config, validate
        self._paths = paths
        self._buffers = [buffer for state in states for buffer in state.network.buffers()]
        self._begun = _Begun()
        self._dirty = False  # weights, records and status belong to different epochs
        self._saved: dict[int, tuple[int, object]] = {}

    def begin(self, learning: Sequence[TrainingState]) -> None:
        """Keep what `undo` needs."""
        self._begun = _Begun(
            learning,
            [state.epoch for state in learning],
            [state.rng.bit_generator.state for state in learning],
            [(buffer, buffer.clone()) for buffer in self._buffers],
            [state_file.contents(state) for state in learning if state.finite and self._paths],
        )

    def epoch(self, learning: Sequence[TrainingState]) -> Sequence[TrainingState]:
        """Run one epoch; return the states that had batches for it."""
        states, passes = [], []
        for state in learning:
            batches = None if state.epoch == self._config.epochs else next(state.batches, None)
            if batches is not None:
                states.append(state)
                passes.append(batches)
            elif self._config.epochs in (None, state.epoch):
                state.status = "finished"
            else:
                state.status = "exhausted"
        for state in states:
            state.records.record_matrices(state.epoch, state.network)
        found: list[list[tuple[float, float, int]]] = [[] for _ in states]
        diverged = [False] * len(states)
        for batches in zip(*passes, strict=True):
            self._step(states, [as_trials(trials) for trials in batches], found, diverged)
            if all(diverged):
                break
        if states:
            self._commit(states, found, diverged)
        return states

    def _step(
        self,
        states: Sequence[TrainingState],
        batches: Sequence[Trials],
        found: list[list[tuple[float, float, int]]],
        diverged: list[bool],
    ) -> None:
        moving = []
        for i, (loss, norm) in enumerate(self._gradient(states, batches)):
            found[i].append((loss, norm, batches[i].batch_size))
            # Steps of Adam are about as long as the learning rate, those of SGD as its product with the gradient.
            longest = states[i].learning_rate * max(norm, 1.0)
            if math.isfinite(loss) and math.isfinite(norm) and longest < LARGEST_STEP:
                if self._config.clip_norm is not None:
                    _clip(states[i], norm, self._config.clip_norm)
                if self._config.gradient_noise:
                    _add_noise(states[i], self._config.gradient_noise)
                moving.append(states[i])
            else:
                batches[i].check_content()  # wrong trials are an error of the task, no divergence
                diverged[i] = True
        self._dirty = True
        self._gradient.step(moving)

    def _commit(
        self, states: Sequence[TrainingState], found: list[list[tuple[float, float, int]]], diverged: list[bool]
    ) -> None:
        """Enter the epoch into the records, and set the status of trainings that it ended."""
        config = self._config
        for state, steps, has_diverged in zip(states, found, diverged, strict=True):
            records = state.records
            loss, norm, _ = steps[0]
            if len(steps) > 1:
                losses, norms, sizes = zip(*steps, strict=True)
                loss, norm = float(np.average(losses, weights=sizes)), float(np.mean(norms))
            if self._validate is not None:
                due = (state.epoch + 1) % config.validation_every == 0 or state.epoch + 1 == config.epochs
                checked = self._validate(state) if due else (math.nan, math.nan)
                if config.keep_best and checked[0] < min(
                    map(_or_infinite, records.validation_losses), default=math.inf
                ):
                    state.best = state.weights()
                records.validation_losses.append(checked[0])
                records.validation_accuracies.append(checked[1])
            records.losses.append(loss)
            records.gradient_norms.append(norm)
            state.epoch += 1
            if state.epoch in config.kept_epochs:
                state.kept[state.epoch] = state.weights()
            if has_diverged:
                state.status = "diverged"
            elif (
                (config.stop_below is not None and loss < config.stop_below * records.losses[0])
                or (config.stop_loss is not None and loss < config.stop_loss)
                or (
                    config.patience is not None
                    and _validations_without_gain(records.validation_losses) >= config.patience
                )
            ):
                state.status = "stopped"
            elif state.epoch == config.epochs:
                state.status = "finished"
            if state.scheduler is not None and not has_diverged:
                metric = loss if self._validate is None else records.validation_losses[-1]
                if not isinstance(state.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                    state.scheduler.step()
                elif not math.isnan(metric):
                    state.scheduler.step(metric)
        self._dirty = False

    def save(self) -> None:
        """Write the state files that are out of date."""
        for i, path in enumerate(self._paths):
            state = self._states[i]
            if self._saved.get(i) != (state.epoch, state.status):
                state_file.write(path, state_file.contents(state))
                self._saved[i] = (state.epoch, state.status)

    def undo(self) -> None:
        """Return to the beginning of an epoch that was cut short, and save it."""
        begun = self._begun
        if self._dirty:
            for state, kept in zip(begun.states, begun.passes, strict=False):
                state_file.put_back(state, kept)
                state_file.write(self._paths[self._states.index(state)], kept)
            return
        cut = [i for i, state in enumerate(begun.states) if state.epoch == begun.epochs[i]]
        for i in cut:
            begun.states[i].rng.bit_generator.state = begun.rngs[i]
            begun.states[i].records.drop_from(begun.epochs[i])
        for buffer, value in begun.buffers if cut else ():
            buffer.copy_(value)
        self.save()


def _or_infinite(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss


def _validations_without_gain(losses: Sequence[float]) -> int:
    """Return the number of validations since the lowest loss; epochs without validation are NaN."""
    made = [_or_infinite(loss) for loss in losses if not math.isnan(loss)]
    return len(made) - 1 - made.index(min(made)) if made else 0


def _add_noise(state: TrainingState, std: float) -> None:
    for weights in state.parameters:
        if weights.grad is not None:
            weights.grad.add_(
                torch.from_numpy(state.rng.standard_normal(tuple(weights.shape))).to(weights.grad), alpha=std
            )


def _clip(state: TrainingState, norm: float, largest: float) -> None:
    """Scale the gradient down to the norm `largest`."""
    gradients = [weights.grad for weights in state.parameters if weights.grad is not None]
    factor = torch.clamp(largest / (torch.tensor(norm, dtype=gradients[0].dtype) + 1e-6), max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.to(gradient.device))
