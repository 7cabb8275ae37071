"""Training many networks at once, as `train` trains each: for a device on which one of them is too small.

Each network draws its trials from its own `rng`, in the order in which `train` would, so that it sees the same trials
as alone; results agree to the rounding of the products, which are batched over networks. One that diverges or stops
keeps its weights and leaves the others alone. What a graphics card did is heard of some epochs later, as it would have
to wait for us otherwise; nothing depends on it.
"""

from __future__ import annotations

import copy
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.networks.ensemble import can_run_together
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import Task
from rankscope.training import group_checkpoint
from rankscope.training.batched import ASLEEP, DIVERGED, STOPPED, Stack, Step
from rankscope.training.cuda import find_device, full_precision, mark, name_of_device
from rankscope.training.draws import Drawn, Draws
from rankscope.training.history import History
from rankscope.training.loss import Loss, find_loss
from rankscope.training.rules import Rules, make_rules
from rankscope.training.setup import Recording, begin
from rankscope.training.state_file import TrainingState
from rankscope.training.train import Progress
from rankscope.validation import RngLike, generator, integer, number

MATRIX = "recurrent_weights"
HEARD_EVERY = {"cpu": 1, "cuda": 16}
"""After how many epochs the losses are fetched from a device, which then has nothing to do for a moment."""
BESIDE = {"cpu": False, "cuda": True}
"""Whether trials are drawn and weights looked at beside the training; on a processor that would be in its way."""
IN_FLIGHT = 2
"""Epochs that a device is asked for before the first of them is done."""


def train_together(
    networks: Sequence[RateRNN],
    task: Task,
    epochs: int,
    rngs: Sequence[RngLike],
    *,
    batch_size: int = 32,
    optimizer: str = "adam",
    learning_rate: float | None = None,
    clip_norm: float | None = None,
    stop_below: float | None = None,
    loss: str | Loss | None = None,
    recorded_epochs: int | Sequence[int] | None = None,
    singular_values: int = 40,
    eigenvalues: int = 0,
    record_weights: bool = False,
    device: str | torch.device | None = None,
    tf32: bool = False,
    progress: Progress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
) -> list[History]:
    """Train networks of one kind in place, all on the same task and each on its own trials.

    Parameters
    ----------
    networks
        Of one size, one dynamics (current convention, one nonlinearity known by name, no noise) and the same trained
        parts.
    rngs
        A source of trials for each.
    device
        Where to train, "cuda" for one; by default where the networks are. They stay where they are.
    tf32
        Let a graphics card multiply with the ten bits of TF32, faster and without the agreement with `train`.
    epochs, batch_size, optimizer, learning_rate, clip_norm, stop_below, loss
        As in `train`.
    recorded_epochs, singular_values, eigenvalues, record_weights, progress
        As in `train`; the loss given to `progress` is the mean.
    checkpoint, checkpoint_seconds
        As in `train`, one file for all of them. On the same device a training goes on bit for bit.

    Returns
    -------
    list of History
        One for each network; `seconds` is its share of the time.

    Raises
    ------
    InputError
        For anything out of range, networks that cannot run together, a device that is not there, or a checkpoint of
        another training.
    """
    first = check_alike(networks)
    if len(rngs) != len(networks):
        raise InputError(f"rngs must have one source for each of {len(networks)} networks, got {len(rngs)}")
    where = find_device(first.recurrent_weights.device if device is None else device)
    rules = make_rules(
        integer("epochs", epochs, minimum=1),
        first.hidden_size,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=learning_rate,
        clip_norm=clip_norm,
        stop_below=stop_below,
    )
    judge = find_loss(loss, task)
    interval = number("checkpoint_seconds", checkpoint_seconds, minimum=0)
    recording = Recording(recorded_epochs, singular_values, eigenvalues, record_weights, (MATRIX,))
    begun = [
        begin(network, task, generator(rng), rules, judge, recording, first.hidden_size)
        for network, rng in zip(networks, rngs, strict=True)
    ]
    states, settings = [state for state, _ in begun], [its for _, its in begun]
    if checkpoint is not None and Path(checkpoint).exists():
        group_checkpoint.restore(checkpoint, states, settings, epochs)
    for state in states:
        if state.status == "finished" and state.epoch != rules.total:
            state.status = None  # longer than last time
    if any(state.status is None for state in states):

        def save() -> None:
            if checkpoint is not None:
                group_checkpoint.save(checkpoint, states, settings, {"device": name_of_device(where)})

        with full_precision(where.type == "cuda" and not tf32):
            _Training(states, task, rules, judge, where).run(progress, save, interval)
    return [_history(state, rules) for state in states]


class _Training:
    """Networks on their way: what was asked of the device, and what was heard of it."""

    def __init__(
        self, states: Sequence[TrainingState], task: Task, rules: Rules, loss: Loss, device: torch.device
    ) -> None:
        self._states, self._task, self._rules, self._loss, self._device = states, task, rules, loss, device
        self._epoch = _common_epoch(states)
        self._stack = Stack(states, rules, device)
        self._step: Step | None = None
        self._positions = [state.rng.bit_generator.state for state in states]
        self._unheard: deque[tuple[Tensor, list[dict[str, Any]]]] = deque()
        self._in_flight: deque[tuple[Drawn, Callable[[], object]]] = deque()
        self._every = HEARD_EVERY[device.type]
        self._looking = ThreadPoolExecutor(os.cpu_count()) if BESIDE[device.type] else None
        self._progress: Progress | None = None
        self._looks: list[Future[None]] = []
        self._changing = False

    def run(self, progress: Progress | None, save: Callable[[], None], interval: float) -> None:
        """Train until every network has ended; save now and then and at the end."""
        assert self._rules.total is not None
        self._progress = progress
        began = last_saved = time.perf_counter()
        seconds_before = [state.seconds for state in self._states]

        def settle() -> None:
            self._finish_looks()
            self._stack.pour(self._states)
            share = (time.perf_counter() - began) / len(self._states)
            for state, before, position in zip(self._states, seconds_before, self._positions, strict=True):
                state.seconds = before + share
                state.rng.bit_generator.state = position

        self._draws = Draws(
            self._task,
            self._rules.batch_size,
            [state.rng for state in self._states],
            self._rules.total - self._epoch,
            ahead=BESIDE[self._device.type],
            pinned=self._device.type == "cuda",
        )
        try:
            for e in self._ended():
                self._draws.end(e)
            while len(self._ended()) < len(self._states):
                self._ask()
                if len(self._unheard) >= self._every or self._epoch == self._rules.total:
                    self._hear()
                if time.perf_counter() - last_saved >= interval:
                    self._hear()
                    settle()
                    save()
                    last_saved = time.perf_counter()
            settle()
            save()
        except BaseException:
            # As in `train`: what was caught in the act of changing the weights cannot be saved, the file before stands.
            if not self._changing:
                self._progress = None
                self._hear()
                self._finish_looks()
                for state in self._states:
                    state.records.forget_from(state.epoch)
                settle()
                save()
            raise
        finally:
            self._draws.close()
            if self._looking is not None:
                self._looking.shutdown(cancel_futures=True)

    def _ended(self) -> list[int]:
        return [e for e, state in enumerate(self._states) if state.status is not None]

    def _ask(self) -> None:
        """Ask the device for an epoch."""
        drawn = self._draws.next()
        if self._epoch in self._states[0].records.schedule:
            self._hear()
            self._look()
        if self._step is None or not self._step.fits(drawn.shapes):
            self._step = Step(self._stack, self._rules, self._loss, drawn.shapes)
        self._step.load(drawn.blocks)
        self._in_flight.append((drawn, mark(self._device)))
        self._changing = True
        self._step()
        self._unheard.append((self._step.report.clone(), drawn.positions))
        self._epoch += 1
        self._changing = False
        if len(self._in_flight) >= IN_FLIGHT:
            done, wait = self._in_flight.popleft()
            wait()
            self._draws.give_back(done)

    def _hear(self) -> None:
        """Note what became of the epochs that the device was asked for."""
        if not self._unheard:
            return
        rows = torch.stack([report for report, _ in self._unheard]).tolist()
        self._changing = True
        means = []
        for losses, norms, fates in rows:
            positions = self._unheard.popleft()[1]
            for e, fate in enumerate(fates):
                if fate == DIVERGED:
                    self._check_trials(e)
            awake = [e for e, fate in enumerate(fates) if fate != ASLEEP]
            for e in awake:
                self._note(e, losses[e], norms[e], fates[e])
                self._positions[e] = positions[e]
            if awake:
                means.append((self._states[awake[0]].epoch, float(np.mean([losses[e] for e in awake]))))
        self._changing = False
        if self._progress is not None:
            assert self._rules.total is not None
            for epoch, mean in means:
                self._progress(epoch, self._rules.total, mean)

    def _note(self, e: int, loss: float, norm: float, fate: int) -> None:
        state = self._states[e]
        state.records.losses.append(loss)
        state.records.gradient_norms.append(norm)
        state.epoch += 1
        if fate == DIVERGED:
            state.status = "diverged"
        elif fate == STOPPED:
            state.status = "stopped"
        elif state.epoch == self._rules.total:
            state.status = "finished"
        if state.status is not None:
            self._draws.end(e)

    def _check_trials(self, e: int) -> None:
        """Raise InputError if a network diverged because of the trials that it was given."""
        rng = copy.deepcopy(self._states[e].rng)
        rng.bit_generator.state = self._positions[e]
        self._task.sample(self._rules.batch_size, rng).check_content()

    def _look(self) -> None:
        """Record the recurrent weights of those that still learn, as they are before the epoch."""
        self._finish_looks()
        now = self._stack.recurrent_weights()
        for e, state in enumerate(self._states):
            if state.status is not None:
                continue
            look = (self._epoch, {MATRIX: now[e]})
            if self._looking is None:
                state.records.look_at(*look)
            else:
                self._looks.append(self._looking.submit(state.records.look_at, *look))

    def _finish_looks(self) -> None:
        for look in self._looks:
            look.result()
        self._looks.clear()


def check_alike(networks: Sequence[RateRNN]) -> RateRNN:
    """Return the first of networks that can be trained together.

    Raises
    ------
    InputError
        If they cannot.
    """
    if isinstance(networks, RateRNN) or not len(networks) or not all(isinstance(n, RateRNN) for n in networks):
        raise InputError(f"networks must be a list of RateRNN, at least one, got {networks!r}")
    first = networks[0]
    if not can_run_together(first.dynamics) or first.noise_std > 0:
        raise InputError(
            "networks must have the current convention, one nonlinearity known by name, and no noise, to be trained "
            f"together, got {first.architecture()!r}; train them one by one with rankscope.train"
        )
    if not first.trained:
        raise InputError(f"networks must have something to train, got trained = {first.trained!r}")
    for index, network in enumerate(networks):
        shapes = {name: (w.shape, w.dtype) for name, w in network.state_dict().items()}
        if network.architecture() != first.architecture() or shapes != {
            name: (w.shape, w.dtype) for name, w in first.state_dict().items()
        }:
            raise InputError(f"networks must be alike but for their weights, got another kind or size at {index}")
    return first


def _common_epoch(states: Sequence[TrainingState]) -> int:
    """Return the epoch at which all stand that still learn."""
    epochs = {state.epoch for state in states if state.status is None}
    if len(epochs) > 1:
        raise InputError(f"checkpoint must hold networks at one epoch, got some at {min(epochs)} and {max(epochs)}")
    return epochs.pop()


def _history(state: TrainingState, rules: Rules) -> History:
    assert state.status is not None
    return state.records.finish(state.status, rules.learning_rate, state.seconds)
